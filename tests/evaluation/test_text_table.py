"""The table of texts: what counts as raised, and what the others sum up to."""

from __future__ import annotations

import pytest
import torch
from tiny import tiny_generator

from sg3cli.evaluation.text_table import TEXTS, change_row, passes, read_moved
from sg3cli.latents.sampling import GenerateConfig, Sampler


class Reader:
    names = ("age", "smile", "makeup")
    spread = torch.tensor([10.0, 0.5, 1.0])

    def column(self, name: str) -> int:
        return self.names.index(name)

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        return x.mean((2, 3))


def test_changes_count_in_deviations_and_those_of_others_add_up() -> None:
    before = torch.zeros(2, 3)
    after = torch.tensor([[10.0, -0.1, 0.3], [10.0, -0.1, 0.1]])
    row = change_row(before, after, Reader(), "age")  # type: ignore[arg-type]
    assert [row[key] for key in ("change", "sum", "read")] == pytest.approx([1.0, 0.4, 0.2], abs=1e-6)
    assert row["most"] in ("smile -0.20", "makeup +0.20") and passes(row)
    assert not passes(change_row(before, -after, Reader(), "age"))  # type: ignore[arg-type]
    assert not passes(change_row(before, after * torch.tensor([0.4, 0.1, 0.1]), Reader(), "age"))  # type: ignore[arg-type]
    assert not passes(change_row(before, after * torch.tensor([1.0, 1.0, 5.0]), Reader(), "age"))  # type: ignore[arg-type]


def test_styles_move_by_alpha() -> None:
    import numpy as np

    G = tiny_generator()
    ws = Sampler(G, GenerateConfig(truncation=0.5)).codes(range(3))
    vector = np.zeros(sum(G.config.style_sizes.values()), np.float32)
    plain = read_moved(G, ws, Reader(), None, 2.0)  # type: ignore[arg-type]
    assert torch.equal(read_moved(G, ws, Reader(), vector, 2.0), plain)  # type: ignore[arg-type]
    vector[-3:] = 1
    one, two = (read_moved(G, ws, Reader(), vector, alpha) - plain for alpha in (0.1, 0.2))  # type: ignore[arg-type]
    assert torch.allclose(two, 2 * one, atol=2e-2) and float(two.abs().max()) > float(one.abs().max()) > 0
    assert len(TEXTS) == 10
