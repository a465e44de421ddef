"""Transfers over a clip: steadied within their shot, the same whatever was asked for before."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pytest
from composed import composed, inverted_project, settings

from sg3cli.compositing.face_mask import landmarks_in_window
from sg3cli.compositing.hue import REC601
from sg3cli.compositing.map_maker import Drawn, MapMaker
from sg3cli.compositing.own_lines import LINE, RIM, sagging
from sg3cli.compositing.skin import skin_mask
from sg3cli.geometry import warp_quad
from sg3cli.latents.edits import Edit, parse_edit
from sg3cli.pipeline import Job, render_plan
from sg3cli.pipeline.face_crops import SMOOTHEST, FaceEdits, with_smooth_landmarks
from sg3cli.pipeline.face_paster import FacePaster, paster_of
from sg3cli.pipeline.finetune import tuned_generator
from sg3cli.pipeline.invert import smoothed_codes
from sg3cli.pipeline.transfer_maps import SMOOTHING, SteadyTransfers
from sg3cli.project import Project
from sg3cli.settings import RenderConfig
from sg3cli.smoothing import smooth_zero_phase
from sg3cli.video import VideoReader
from sg3cli.weights.bundle import load_model
from sg3cli.weights.direction_tools import write_direction


@pytest.fixture(scope="module")
def inverted(tmp_path_factory: pytest.TempPathFactory, talk: Path, tiny_bundle: Path) -> Project:
    return inverted_project(tmp_path_factory.mktemp("transfer"), talk, tiny_bundle)


def transfers(project: Project, bundle: Path, cut: int | None = None, batch: int = 2) -> SteadyTransfers:
    """Those of a render; with `cut`, another shot begins there."""
    job = Job(project, settings(bundle))
    plan = render_plan.plan(job, job.bundle(), False)
    track = with_smooth_landmarks(project.track())
    if cut is not None:
        track = replace(track, shots=(np.arange(len(track)) >= cut).astype(track.shots.dtype))
    face: FaceEdits = plan.of_face(track, smoothed_codes(project, plan.bundle, track, "paper"))
    G = tuned_generator(project, plan.bundle, False)
    paster = FacePaster(track, replace(job.settings.render, batch=batch), G.img_resolution)
    return SteadyTransfers(partial(VideoReader, project.source()), face, paster, G, None, MapMaker())


def test_maps_are_smoothed_over_time_without_lag_and_each_shot_on_its_own(inverted, tiny_bundle):
    steady = transfers(inverted, tiny_bundle, cut=5)
    drawn = [steady.at(k) for k in range(12)]
    with VideoReader(inverted.source()) as reader:
        single = [drawn for _, drawn in steady._draw(list(reader))]
    times = steady.face.track.times

    def check(of: Callable[[Drawn], np.ndarray], tolerance: float) -> None:
        found, raw = (np.stack([of(d).astype(np.float32) for d in frames]) for frames in (drawn, single))
        for shot in (slice(0, 5), slice(5, 12)):
            expected = smooth_zero_phase(raw[shot].reshape(len(times[shot]), -1), times[shot], SMOOTHING)
            np.testing.assert_allclose(found[shot].reshape(expected.shape), expected, atol=tolerance)

    check(lambda d: d.transfer.motion, 2e-5)
    check(lambda d: d.edited, 0.02)  # levels
    check(lambda d: d.plain, 0.02)


def test_what_was_asked_for_before_does_not_count_and_little_is_held(inverted, tiny_bundle):
    one, other = transfers(inverted, tiny_bundle), transfers(inverted, tiny_bundle)
    whole = [one.at(k) for k in range(12)]
    assert len(one._made) <= 2 * 4 + 2
    for k in (7, 8, 2, 11):
        drawn = other.at(k)
        assert np.array_equal(drawn.edited, whole[k].edited)
        assert np.array_equal(drawn.transfer.motion, whole[k].transfer.motion)
    one.close()
    one.close()


def test_an_older_face_sags_as_a_whole_and_keeps_its_wrinkles(inverted, tiny_bundle):
    """A younger one keeps deeper lines alone; the paster of a render knows of its edits."""
    steady = transfers(inverted, tiny_bundle)
    with VideoReader(inverted.source()) as reader:
        frame = next(iter(reader))
    (pair,) = steady.face.pairs([frame], steady.G, steady.G, steady.paster.config)

    def motion(share: float | None) -> np.ndarray:
        skin = None if share is None else np.full(len(steady.face.track), share, np.float32)
        return replace(steady.paster, skin=skin).drawn(steady.maker, frame, *pair).transfer.motion

    as_found = motion(None)
    assert as_found.any() and np.array_equal(motion(0), as_found) and np.array_equal(motion(-0.5), as_found)
    np.testing.assert_array_equal(motion(0.5), sagging(as_found))
    depths = [replace(steady.paster, skin=np.full(12, share)).own_lines(0, (128, 128)) for share in (0.5, -0.5)]
    assert [own.depth for own in depths if own] == [LINE, RIM] and replace(steady.paster).own_lines(0, (9, 9)) is None
    older = replace(steady.face, edits=[replace(steady.face.edits[0], skin=0.25)])
    found = paster_of(older, steady.paster.config, steady.paster.resolution)
    assert found.skin is not None and (found.skin > 0).all() and not found.shaded
    np.testing.assert_array_equal(found.person, older.character())
    assert paster_of(steady.face, found.config, found.resolution).person is None  # nobody ages
    bare = replace(found, config=replace(found.config, skin=0.0))  # --skin 0: its lines do not come out, and stay
    share = np.ones((128, 128), np.float32)
    assert bare.own_lines(0, (128, 128)) is not None and bare.skin_map(0, (128, 128), share) is None
    assert found.skin_map(0, (128, 128), share).any()


def test_hue_is_kept_where_no_edit_is_about_it(inverted, tiny_bundle):
    """By the direction's file, by the option, and not with one edit of many."""
    face, still = transfers(inverted, tiny_bundle).face, parse_edit("smile=0")
    held, other = (replace(face.edits[0], keeps=frozenset(keeps)) for keeps in (["hue"], []))
    assert replace(face, edits=[held, still]).keeps("hue", "auto")
    assert not replace(face, edits=[held, other]).keeps("hue", "auto")
    assert not replace(face, edits=[still]).keeps("hue", "auto")
    assert replace(face, edits=[other]).keeps("hue", "keep")
    assert not replace(face, edits=[held]).keeps("hue", "free")


def test_parts_of_the_face_stay_the_source_s_where_no_edit_is_about_them(inverted, tiny_bundle):
    face = transfers(inverted, tiny_bundle).face
    older, other = (replace(face.edits[0], keeps=frozenset(keeps)) for keeps in (["eyes", "nose", "hue"], ["nose"]))

    def parts(*edits: Edit, **options: object) -> frozenset[str]:
        return replace(face, edits=list(edits)).parts(replace(RenderConfig(), **options))

    assert parts(older) == {"eyes", "nose"} and parts(older, other) == {"nose"}
    assert parts(older, keep_parts="none") == frozenset()
    assert parts(other, keep_parts="mouth,eyes") == {"mouth", "eyes"}
    mine = {"mask": "m.png", "mask_mode": "replace"}  # and in a face that is drawn as a whole, unless they are named
    for options in ({"transfer": "draw"}, mine, {"detail": 0.0}, {"stitch": "none"}):
        assert not parts(older, **options) and parts(older, keep_parts="nose", **options) == {"nose"}
    assert parts(older, mask="m.png") == {"eyes", "nose"}


def test_what_one_edit_keeps_is_as_the_others_leave_it(inverted, tiny_bundle):
    """Somebody older who smiles: the mouth is that of the smile alone, the face that of both."""
    steady = transfers(inverted, tiny_bundle)
    smile = replace(steady.face.edits[0], keeps=frozenset({"nose"}))
    less = tuple(replace(key, strength=-0.5 * key.strength) for key in smile.keyframes)
    older = replace(smile, keyframes=less, keeps=frozenset({"mouth", "nose", "hue"}))
    with VideoReader(inverted.source()) as reader:
        frame = next(iter(reader))
    config = steady.paster.config

    def drawn(*edits: Edit) -> np.ndarray:
        ((_, edited),) = replace(steady.face, edits=list(edits)).pairs([frame], steady.G, steady.G, config)
        return edited.astype(np.float32)

    free = replace(older, keeps=frozenset({"nose"}))
    both, alone, unkept = drawn(smile, older), drawn(smile), drawn(smile, free)
    face = replace(steady.face, edits=[smile, older])
    assert (
        face.taken(config) == {(0,): ["mouth"]} and face.parts(config) == {"nose"} and face.rest("hue", "auto") == (0,)
    )
    x, y = np.rint(face.landmarks(0, both, (0, 0, 0, 0))[48:60].mean(axis=0)).astype(int)
    assert np.abs(alone - unkept)[y, x].max() > 3
    assert np.abs(both - alone)[y, x].max() <= 2
    ratio = [image.sum(axis=(0, 1)) / image.sum() for image in (both, alone, unkept)]
    assert np.abs(ratio[0] - ratio[1]).max() < 0.5 * np.abs(ratio[2] - ratio[1]).max()  # its hue as well
    swapped = drawn(older, smile)
    np.testing.assert_allclose(swapped, both, atol=1.01)


@pytest.mark.parametrize("kind", ["motion", "paste", "draw"])
def test_what_is_kept_has_the_source_s_bits(inverted, tiny_bundle, kind):
    landmarks = inverted.track().landmarks
    changed = {}
    for keep in ("none", "mouth"):
        pairs = composed(inverted, tiny_bundle, transfer=kind, keep_parts=keep)
        changed[keep] = [np.abs(after.astype(int) - before).max(axis=2) for before, after in pairs]
    at = [tuple(np.rint(points[48:60].mean(axis=0)).astype(int)) for points in landmarks]
    free, kept = ([frame[y, x] for frame, (x, y) in zip(changed[keep], at, strict=True)] for keep in changed)
    assert not any(kept) and any(free)
    assert np.max(changed["mouth"]) >= 0.5 * np.max(changed["none"])  # the rest of the face still changes


def test_skin_changes_by_what_all_edits_say(inverted, tiny_bundle):
    face = transfers(inverted, tiny_bundle).face
    times = face.track.times
    older = replace(face.edits[0], skin=0.25)
    other = replace(parse_edit("smile=2"), skin=-0.1)
    strength = older.strength_at(times)
    np.testing.assert_allclose(replace(face, edits=[older]).skin(), 0.25 * strength)
    np.testing.assert_allclose(replace(face, edits=[older, other]).skin(), 0.25 * strength - 0.2, rtol=1e-6)
    assert not replace(face, edits=[]).skin().any() and len(replace(face, edits=[]).skin()) == len(times)
    waxen = replace(other, skin=-5.0)
    assert replace(face, edits=[waxen]).skin()[1] == np.float32(-SMOOTHEST)  # some structure is left
    shares = np.linspace(0, 1, len(times))
    np.testing.assert_allclose(replace(face, edits=[older], shares=shares).skin(), shares * 0.25 * strength, rtol=1e-6)


def test_a_render_brings_out_what_skin_has(inverted, tiny_bundle, tmp_path):
    """The direction's file says by how much, `--skin` how far; skin has more structure then, the wall is the same."""
    path = tmp_path / "older.safetensors"
    direction = load_model(str(tiny_bundle)).directions["age"]
    write_direction(path, replace(direction, meta={**direction.meta, "skin": 0.5}))
    edits, inverted.edits = inverted.edits, [parse_edit(f"{path}=1")]
    try:
        found = {skin: next(composed(inverted, tiny_bundle, skin=skin)) for skin in (0.0, 2.0)}
    finally:
        inverted.edits = edits
    track = inverted.track()
    skin = skin_mask(landmarks_in_window(track.landmarks[0], track.windows[0], (128, 128)), (128, 128)) > 0.5
    before, after = found[0.0][1], found[2.0][1]
    fine = [warp_quad(x.astype(np.float32), track.windows[0], (128, 128)) for x in (before, after)]
    deep = [(x - cv2.GaussianBlur(x, (0, 0), 2.0))[skin].std() for x in fine]
    assert deep[1] > 1.08 * deep[0]
    assert np.array_equal(before[:20], after[:20]) and not np.array_equal(before, after)


@pytest.mark.parametrize("kind", ["motion", "paste"])
def test_the_hue_of_areas_stays_and_their_lightness_does_not(inverted, tiny_bundle, kind):
    found = {
        hue: np.stack([after for _, after in composed(inverted, tiny_bundle, transfer=kind, hue=hue)]).astype(float)
        for hue in ("keep", "free", "auto")
    }
    assert np.array_equal(found["auto"], found["free"])  # the tiny model's directions say nothing of hue
    source = np.stack([before for before, _ in composed(inverted, tiny_bundle)]).astype(float)
    hue, light = {}, {}
    for name in ("keep", "free"):
        change = found[name] - source
        luma = change @ REC601
        light[name], hue[name] = np.abs(luma).mean(), np.abs(change - luma[..., None]).mean()
    assert hue["keep"] < 0.2 * hue["free"] and light["keep"] > 0.5 * light["free"]  # of less than a level


@pytest.mark.parametrize("kind", ["motion", "paste", "draw", "auto"])
def test_every_kind_of_transfer_leaves_the_rest_of_the_frame(inverted, tiny_bundle, kind):
    changed = [np.abs(after.astype(int) - before) for before, after in composed(inverted, tiny_bundle, transfer=kind)]
    window = inverted.track().windows
    for index, difference in enumerate(changed):
        low, high = window[index].min(axis=0) - 1, window[index].max(axis=0) + 1
        outside = np.ones(difference.shape[:2], bool)
        top, left = (max(int(v), 0) for v in low[::-1])
        outside[top : int(high[1]) + 1, left : int(high[0]) + 1] = False
        assert not difference[outside].any() and difference.any()


def test_a_model_without_a_network_takes_motion(inverted, tiny_bundle):
    pairs = zip(composed(inverted, tiny_bundle), composed(inverted, tiny_bundle, transfer="motion"), strict=True)
    assert all(np.array_equal(auto[1], motion[1]) for auto, motion in pairs)


def test_along_hair_nothing_ages(inverted, tiny_bundle):
    """Strands over a forehead are fine and dark, as lines are: somebody younger had a fog there."""
    steady = transfers(inverted, tiny_bundle)
    with VideoReader(inverted.source()) as reader:
        frame = next(iter(reader))
    seen = np.ones((96, 96), np.float32)
    seen[:40] = 0
    older, as_before = (
        replace(steady.paster, skin=skin, config=replace(steady.paster.config, protect="all"), inputs=Known(seen))
        for skin in (np.full(12, 0.5, np.float32), np.zeros(12, np.float32))
    )
    assert as_before.visible(frame, None) is seen
    found = older.visible(frame, None)
    assert found is not None and found[40, 48] < 0.3 and found[46:].min() > 0.99 and not found[:38].any()


class Known:
    """Inputs of pasting whose maps are `seen`."""

    mask = None

    def __init__(self, seen):
        self.maps, self.seen = self, seen

    def at(self, index):
        return self.seen
