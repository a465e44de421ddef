"""A flow's algebra: there and back, shares of the way, rows that belong, conditions that are looked up."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from sg3cli.nets.checkpoint import flow_config, load_flow_file, save_flow
from sg3cli.nets.code_flow import FULL, GRID, REACH, CodeFlow, CodeFlowConfig

LABELS = ("age", "mouth_open")


@pytest.fixture
def flow() -> CodeFlow:
    """One that bends: random weights, codes [N,4,6] of which 10 of 18 dimensions are known."""
    with torch.random.fork_rng():
        torch.manual_seed(3)
        made = CodeFlow(CodeFlowConfig(LABELS, 4, 6, components=10, width=16, blocks=1, keeps_hue=("age",)))
        torch.nn.init.normal_(made.velocity.end.weight, 0, 0.3)
        made.vectors.copy_(torch.linalg.qr(torch.randn(18, 10))[0].T)
        made.deviations.uniform_(0.5, 2)
        made.reading.normal_(0, 0.4)
        made.label_mean.copy_(torch.tensor([40.0, 0.2]))
        made.label_std.copy_(torch.tensor([15.0, 0.1]))
    return made.eval().requires_grad_(False)


def codes(count: int = 5) -> Tensor:
    return torch.randn(count, 4, 6, generator=torch.Generator().manual_seed(0))


def test_there_and_back_is_the_same_code(flow: CodeFlow) -> None:
    x, c = flow.coordinates(codes()), flow.standard(flow.read(codes()))
    z = flow.solve(x, c, 1.0, 0.0)
    assert float((flow.solve(z, c, 0.0, 1.0) - x).abs().max()) < 1e-4
    assert float((z - x).abs().max()) > 0.1


def test_under_its_own_attributes_a_code_stays(flow: CodeFlow) -> None:
    ws = codes()
    torch.testing.assert_close(flow.under(ws, flow.standard(flow.read(ws))), ws, atol=1e-4, rtol=0)


def test_a_share_of_the_way_and_none_of_it(flow: CodeFlow) -> None:
    ws, target = codes(), torch.full((5,), 60.0)
    whole, half, none = (flow.moved(ws, "age", target, torch.full((5,), share)) for share in (1.0, 0.5, 0.0))
    assert torch.equal(none, ws)
    assert float((whole - ws).abs().max()) > 0.05
    torch.testing.assert_close(half, (whole + ws) / 2)


def test_only_rows_that_belong_move_and_what_is_beyond_the_components_stays(flow: CodeFlow) -> None:
    flow.rows[0] = torch.tensor([1.0, 0, 1, 0])
    ws = codes()
    change = flow.moved(ws, "age", torch.full((5,), 70.0), torch.ones(5)) - ws
    assert (change.abs().amax((0, 2)) > 0).tolist() == [False, False, True, False]
    other = flow.moved(ws, "mouth_open", torch.full((5,), 0.4), torch.ones(5)) - ws
    flat = other[:, 1:].flatten(1)
    torch.testing.assert_close(flat @ flow.vectors.T @ flow.vectors, flat, atol=1e-5, rtol=0)


def test_the_call_is_the_one_that_reaches_the_value(flow: CodeFlow) -> None:
    flow.reached[0] = torch.linspace(-REACH / 2, REACH / 2, GRID)  # it comes half as far as it is asked to
    targets = torch.tensor([40.0, 55.0, 25.0, 300.0, -300.0])
    torch.testing.assert_close(flow.call(0, targets), torch.tensor([0.0, 2.0, -2.0, REACH, -REACH]))


def test_a_call_beyond_what_was_seen_goes_further_the_same_way(flow: CodeFlow) -> None:
    ws = codes()
    full, more = (flow.called(ws, 0, torch.full((5,), call)) - ws for call in (FULL, 2 * FULL))
    torch.testing.assert_close(more, 2 * full)


def test_a_file_holds_all_of_it(flow: CodeFlow, tmp_path) -> None:
    flow.rows[1] = torch.tensor([0.0, 1, 0, 1])
    save_flow(tmp_path / "flow.safetensors", flow, {"generator": "sha256:1"})
    again, meta = load_flow_file(tmp_path / "flow.safetensors")
    assert meta == {"generator": "sha256:1"}
    assert flow_config(tmp_path / "flow.safetensors") == flow.config == again.config
    target, share = torch.full((5,), 0.3), torch.ones(5)
    assert torch.equal(
        again.moved(codes(), "mouth_open", target, share), flow.moved(codes(), "mouth_open", target, share)
    )
    with pytest.raises(KeyError):
        again.column("hat")
