"""Edits at equal change: gradients, which layers move, the secant, and what a leak is."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tiny import tiny_generator

from sg3cli.errors import UsageError
from sg3cli.evaluation import editability as ed
from sg3cli.evaluation.face_reading import FaceReading
from sg3cli.evaluation.space_samples import Samples, images_of
from sg3cli.latents.codes import Codes
from sg3cli.latents.rendering import draw
from sg3cli.latents.sampling import GenerateConfig, Sampler
from sg3cli.latents.spaces import Statistics, statistics

G = tiny_generator()
WS = Sampler(G, GenerateConfig()).codes(range(4))
INPUT = G.config.style_sizes["input"]


def colours(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean red, green and blue, and who it is by them."""
    means = x.mean((2, 3))
    return means, torch.nn.functional.normalize(torch.cat([means, torch.ones(len(means), 1)], 1), dim=1)


READING = FaceReading("colours", ("red", "green", "blue"), np.array([0.1, 0.2, 0.4]), colours)


def read(codes: Codes) -> np.ndarray:
    with torch.no_grad():
        return colours(draw(G, codes))[0].double().numpy() / READING.spread


def gradients() -> dict[str, np.ndarray]:
    rows = list(ed.answers(G, READING, WS[:2], 0))
    return {key: np.stack([row[key] for row in rows]) for key in rows[0]}


def test_answers_are_the_slopes_of_what_is_read_in_its_deviations() -> None:
    found, step = gradients(), 0.01
    moved = WS[:1].copy()
    moved[0, 3] += step * np.arange(32) / 32
    slope = (read(Codes(moved)) - read(Codes(WS[:1])))[0] / step
    assert found["w+"][0, :, 3] @ (np.arange(32) / 32) == pytest.approx(slope, rel=0.05, abs=2e-3)
    shift = np.zeros((1, sum(G.config.style_sizes.values())), np.float32)
    shift[0, -2] = step
    slope = (read(Codes(WS[:1], shift)) - read(Codes(WS[:1])))[0] / step
    assert found["s"][0, :, -2] == pytest.approx(slope, rel=0.05, abs=2e-3)
    (second,) = ed.answers(G, READING, WS[:2], 1)
    np.testing.assert_array_equal(second["w+"], found["w+"][1])


def test_a_step_in_w_is_one_in_all_layers_but_that_which_places_the_image() -> None:
    found = gradients()
    of_w, of_plus, of_s = (ed.in_space(space, found, G) for space in ed.EDITED)
    assert of_w == pytest.approx(found["w+"].mean(0)[:, 1:].sum(1), rel=1e-5)
    assert of_plus.reshape(3, G.num_ws, -1)[:, 0].any() == of_s[:, :INPUT].any() == False  # noqa: E712
    assert of_plus.reshape(3, G.num_ws, -1)[:, 1:].any() and of_s[:, INPUT:].any()


@pytest.mark.parametrize("space", ed.EDITED)
def test_moves_leave_what_places_the_image_alone_and_go_forward(space: str) -> None:
    size = {"w": 32, "w+": 32 * G.num_ws, "s": sum(G.config.style_sizes.values())}[space]
    moved = ed.as_move(space, np.ones(size), G)(Codes(WS), np.full(4, 0.5, np.float32))
    change = moved.ws - WS
    assert not change[:, 0].any()
    if space == "s":
        assert not change.any() and moved.shift is not None
        assert not moved.shift[:, :INPUT].any() and (moved.shift[:, INPUT:] == 0.5).all()
    else:
        assert change[:, 1:] == pytest.approx(0.5, abs=1e-6)


@pytest.mark.parametrize("space", ed.EDITED)
def test_an_edit_by_relevance_changes_its_attribute_by_what_was_asked(space: str) -> None:
    known, answer = statistics(G, space, 256), ed.in_space(space, gradients(), G)
    nothing = Samples({}, {})
    way = ed.make_direction("relevance", space, 0, nothing, answer, known, G, 0.3)
    before = READING.read(list(images_of(G, Codes(WS))))
    found = ed.at_equal_change(G, READING, WS, before, way, 0, 0.3)
    assert found["reached"] and found["changes"][0] == pytest.approx(0.3, abs=0.031)
    assert found["strength"] > 0 and 0 < found["identity"] < 1
    again = way.move(Codes(WS), np.full(4, found["strength"], np.float32))
    assert (read(again) - read(Codes(WS))).mean(0) == pytest.approx(found["changes"], abs=0.05)  # levels are whole


def test_a_hyperplane_is_the_normal_between_the_ends_in_deviations_in_s() -> None:
    rng = np.random.default_rng(0)
    codes = rng.normal(size=(400, 6)) * (1, 1, 1, 100, 1, 1)
    labels = (codes[:, :1] + codes[:, 3:4] / 100) * (1, -1)
    samples = Samples({"w": codes, "s": codes}, {"w": labels, "s": labels})
    known = Statistics(codes.mean(0), codes.std(0), None, 400)
    found = ed.hyperplane("s", samples, 0, known)
    assert found / known.std == pytest.approx(np.array([1, 0, 0, 1, 0, 0]) / np.sqrt(2), abs=0.12)
    assert ed.hyperplane("s", samples, 1, known)[0] < 0
    assert np.linalg.norm(ed.hyperplane("w", samples, 0, known)) == pytest.approx(1)


def test_a_direction_along_which_the_attribute_falls_is_refused() -> None:
    answer = np.zeros((3, 32))
    answer[0, 0] = -1.0
    samples = Samples({"w": np.random.default_rng(0).normal(size=(200, 32))}, {})
    samples.labels["w"] = samples.codes["w"][:, :1]
    known = Statistics(np.zeros(32), np.ones(32), None, 200)
    with pytest.raises(UsageError, match="does not rise"):
        ed.make_direction("hyperplane", "w", 0, samples, answer, known, G, 1.0)


def test_coordinates_that_do_more_to_others_are_left_out_and_with_none_left_there_is_no_direction() -> None:
    known, nothing = Statistics(np.zeros(32), np.full(32, 2.0), None, 200), Samples({}, {})
    answer = np.zeros((2, 32))
    answer[:, 3], answer[:, 4], answer[:, 5] = (1, 0.5), (0.1, -1), (-1, 0)
    vector = ed.make_direction("relevance", "w", 0, nothing, answer, known, G, 1.0).move.vector[0]
    assert np.flatnonzero(vector).tolist() == [3, 5]
    assert vector[3] == pytest.approx(2 / np.sqrt(1.25)) and vector[5] == pytest.approx(-2)
    with pytest.raises(UsageError, match=r"no coordinate agrees with the attribute by 0\.6, the best by 0\.10"):
        ed.make_direction("relevance", "w", 0, nothing, answer[:, 4:5] * np.eye(32)[4], known, G, 1.0)


def test_the_secant_meets_a_line_at_once_and_does_not_run_away() -> None:
    assert ed.next_strength([(2.0, 0.5)], 1.0) == pytest.approx(4.0)
    assert ed.next_strength([(2.0, 0.5), (4.0, 0.8)], 1.0) == pytest.approx(4.0 + 0.2 / 0.15)
    assert ed.next_strength([(2.0, -0.1)], 1.0) == ed.next_strength([(2.0, 0.01)], 1.0) == 6.0


def test_a_leak_is_of_the_others_alone() -> None:
    assert ed.leak(np.array([9.0, 0.3, -0.4]), 0) == pytest.approx(np.sqrt((0.09 + 0.16) / 2))


def test_spaces_are_compared_over_what_all_of_them_reached() -> None:
    def row(space: str, attribute: str, value: float | None) -> dict[str, object]:
        return {"family": "hyperplane", "space": space, "attribute": attribute, "leak": value, "identity": value}

    rows = [row(space, "age", k) for k, space in enumerate(ed.EDITED, start=1)]
    rows += [row("w", "smile", 100.0), row("w+", "smile", None), row("s", "smile", 1.0)]
    means = ed.averages(rows)
    assert [means["hyperplane", space]["leak"] for space in ed.EDITED] == [1, 2, 3]
    assert means["relevance", "w"] == {"identity": None, "leak": None, "attributes": 0}
