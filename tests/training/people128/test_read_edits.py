"""Directions that a reader supervises: what is asked, what is held, and that they learn it."""

from __future__ import annotations

import pytest
import torch
from tiny import tiny_generator

from sg3cli.compositing.hue import in_the_hue_of
from sg3cli.nets.efficientnet_lite import EfficientNetLite
from sg3cli.nets.face_reader import FaceReader, describe
from sg3cli.training.people128.read_edits import (
    PARTS,
    READABLE,
    Faces,
    ReadConfig,
    ReadEdits,
    Span,
    _asymmetry,
    _kept,
    as_in_footage,
    fit_directions,
)
from sg3cli.weights.kept import KEEPING

LABELS = ("age", "male", "smile", "mouth_open", "eyes_closed", "brow_raise", "makeup")
NAMES, HELD = list(READABLE), torch.tensor([0.3])


@pytest.fixture(scope="module")
def edits() -> ReadEdits:
    torch.manual_seed(0)
    reader, G = FaceReader(EfficientNetLite(), LABELS), tiny_generator()
    described = describe(reader.net, G.synthesis(torch.randn(24, 8, 32)))
    reader.mean.copy_(described.mean(0))
    reader.scale.copy_(1 / (described.std(0) + 1e-2))
    reader.spread.copy_(torch.tensor([40.0, 1.0, 1.0, 0.3, 1.0, 1.0, 1.0]))
    reader.weight.copy_(torch.randn(reader.weight.shape) * reader.weight.shape[0] ** -0.5 * reader.spread)
    reader.projection.copy_(torch.randn(reader.projection.shape))
    reader.bias[0] = 50.0
    return ReadEdits(reader, G, ReadConfig(steps=20, edits_per_step=3, lr=0.15, size=1e-6, shift=1, colour=1.0))


def _faces(ws: torch.Tensor) -> Faces:
    return Faces(ws, torch.full((len(ws), 68, 2), 16.0))


def _none() -> dict[str, torch.Tensor]:
    return {name: torch.zeros(8, 32) for name in NAMES}


def test_wishes_lie_within_what_faces_are(edits: ReadEdits) -> None:
    read = torch.zeros(300, len(LABELS))
    read[:, 0] = torch.linspace(15, 90, 300)
    names, strengths = edits.wishes(read, NAMES, torch.Generator().manual_seed(1))
    assert set(names) == set(NAMES) and strengths.abs().min() >= edits.config.least - 1e-6
    wanted = edits._wanted(names, strengths)
    assert ((wanted != 0).sum(1) == 1).all()
    age = torch.tensor([name == "age" for name in names])
    torch.testing.assert_close(wanted[age, 0], 20 * strengths[age])
    reached = (read + wanted)[age, 0]
    assert reached.min() >= 15 and reached.max() <= 90
    assert strengths[age][:20].min() > 0 > strengths[age][-20:].max()  # the young get older, the old younger


def test_no_change_costs_the_wish_alone(edits: ReadEdits) -> None:
    terms, _ = edits.losses(_none(), _faces(torch.randn(4, 8, 32)), torch.Generator().manual_seed(3))
    assert float(terms["asked"]) > 0.01
    assert all(float(terms[n]) < 1e-5 for n in ("leak", "identity", "colour", "symmetry", "kept", "beyond"))


def test_hue_counts_more_than_lightness_and_texture_not_at_all(edits: ReadEdits) -> None:
    grey = edits._colour(torch.full((1, 3, 32, 32), 0.1), HELD)
    red = edits._colour(torch.tensor([0.1, -0.05, 0.0])[None, :, None, None].expand(1, 3, 32, 32), HELD)
    assert float(edits._colour(torch.full((1, 3, 32, 32), 0.1), 2 * HELD)) == pytest.approx(2 * float(grey), rel=1e-3)
    stripes = torch.ones(1, 3, 32, 32)
    stripes[..., ::2] = -1
    coloured = stripes * torch.tensor([1.0, -0.5, 0.0])[:, None, None]  # spots count where lines are asked for
    assert float(edits._colour(coloured, HELD)) > 0.1 and float(edits._colour(coloured, 0 * HELD)) < 1e-6
    assert float(red) > 1.5 * float(grey) > 0 and float(edits._colour(stripes, HELD)) < 1e-6


def test_one_eye_alone_is_seen() -> None:
    change = torch.zeros(1, 3, 32, 32)
    change[..., 8:12, 8:12] = 1
    assert float(_asymmetry(change)) > 0.01
    assert float(_asymmetry(change + change.flip(3))) < 1e-5


def test_a_part_that_is_kept_is_missed_where_it_lies() -> None:
    landmarks = torch.full((2, 68, 2), -99.0)
    landmarks[:, list(PARTS["brows"])] = torch.tensor([20.0, 8.0])
    landmarks[:, list(PARTS["mouth"])] = torch.tensor([16.0, 26.0])
    at_brow = torch.zeros(2, 3, 32, 32)
    at_brow[:, :, 6:10, 18:22] = 1
    kept = [float(_kept(at_brow, landmarks, [parts, parts])) for parts in (("brows",), ("mouth",), ())]
    assert kept[0] > 0.02 > 1e-4 > kept[1] >= kept[2]
    sideways = at_brow.transpose(2, 3)
    assert float(_kept(sideways, landmarks, [("brows",)] * 2)) < 1e-4
    one = float(_kept(at_brow, landmarks, [("brows",), ("mouth",)]))  # each face keeps its own parts
    assert one == pytest.approx(kept[0] / 2, rel=1e-3)


def test_only_what_is_shaded_is_held_to_the_contrast_of_the_face() -> None:
    plain = torch.linspace(0, 0.2, 32).expand(2, 3, 32, 32).contiguous()
    edited = plain.clone()
    edited[:, :, 12:20, 12:20] -= 0.8
    nowhere = torch.full((2, 68, 2), -99.0)
    held, free = as_in_footage(plain, edited, ["smile", "gender"], nowhere)
    assert torch.equal(free, in_the_hue_of(plain, edited)[1])
    assert float((held - plain[0]).abs().mean()) < 0.5 * float((free - plain[1]).abs().mean())


def test_eyes_of_somebody_older_or_smiling_are_shown_as_they_were() -> None:
    plain, edited = torch.zeros(3, 3, 32, 32), torch.full((3, 3, 32, 32), 0.2)
    landmarks = torch.full((3, 68, 2), -99.0)
    landmarks[:, list(PARTS["eyes"])] = torch.tensor([20.5, 8.5])
    older, smiling, a_man = as_in_footage(plain, edited, ["age", "smile", "gender"], landmarks)
    for shown in (older, smiling):
        assert torch.equal(shown[:, 8, 20], plain[0, :, 8, 20])
    assert not torch.equal(a_man[:, 8, 20], plain[0, :, 8, 20])
    assert torch.allclose(older[:, 24:], smiling[:, 24:], atol=1e-4) and float(older[:, 24:].abs().min()) > 0.01


def test_directions_learn_what_is_asked(edits: ReadEdits, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is read as age is what one direction of the codes does; it is found from nothing."""
    monkeypatch.setitem(KEEPING, "shade", frozenset())  # a tiny generator shades all it does
    ws = torch.randn(300, 8, 32, generator=torch.Generator().manual_seed(1))
    reader, true = edits.reader, torch.cat([torch.zeros(1, 32), torch.randn(7, 32)])
    plain = edits.G.synthesis(ws)
    ends = [in_the_hue_of(plain, edits.G.synthesis(ws + sign * true)) for sign in (1, -1)]  # hue the reader never sees
    apart = reader.features(ends[0]) - reader.features(ends[1])
    kept = reader.weight.clone()
    reader.weight[:, 0] = 20 * apart.mean(0) / apart.mean(0).square().sum()

    def asked(direction: torch.Tensor) -> float:
        rngs = (torch.Generator().manual_seed(1000 + k) for k in range(6))
        return sum(float(edits.losses({"age": direction}, _faces(ws[:6]), rng)[0]["asked"]) for rng in rngs)

    found = fit_directions(ReadEdits(reader, edits.G, edits.config), _faces(ws))
    assert set(found) == set(READABLE)
    learned = found["age"]
    assert asked(learned) < 0.6 * asked(torch.zeros(8, 32))
    assert not learned[0].any() and learned[1:].any()
    again = fit_directions(ReadEdits(reader, edits.G, edits.config), _faces(ws))["age"]
    assert torch.equal(learned, again)
    reader.weight.copy_(kept)


def test_the_span_of_codes_is_measured_in_how_they_differ() -> None:
    """Ten codes differ in nine ways; each component is one standard deviation, and the first code stays."""
    ws = torch.randn(10, 8, 32, generator=torch.Generator().manual_seed(2)) * torch.linspace(1, 3, 8)[:, None]
    span = Span(ws, 500)
    assert span.vectors.shape == (9, 256)
    torch.testing.assert_close(span.of_codes.square().mean(0), torch.ones(9), rtol=1e-3, atol=1e-3)
    direction = span.place(span.of_codes[4])
    torch.testing.assert_close(direction[1:], (ws[4] - ws.mean(0))[1:], rtol=1e-3, atol=1e-3)
    assert not direction[0].any()
    assert Span(ws, 3).vectors.shape == (3, 256)


def test_people_who_differ_in_a_label_show_what_it_does() -> None:
    """Codes are a sum of two vectors by two labels that go together, and noise; each vector is found for itself."""
    noise = torch.Generator().manual_seed(6)
    labels = torch.randn(3000, 2, generator=noise) @ torch.tensor([[1.0, 0.7], [0.0, 0.7]])
    vectors = torch.randn(2, 8, 32, generator=noise)
    ws = torch.einsum("nl,lkd->nkd", labels, vectors) + 0.05 * torch.randn(3000, 8, 32, generator=noise)
    span = Span(ws, 256)
    for found, vector in zip(span.of_people(labels), vectors, strict=True):
        torch.testing.assert_close(span.place(found)[1:], vector[1:], rtol=0.1, atol=0.1)
