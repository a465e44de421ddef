"""Strengths over time, and codes that move along directions."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sg3cli.errors import UsageError
from sg3cli.latents.codes import Codes
from sg3cli.latents.edits import (
    EASES,
    RAMP,
    Edit,
    Keyframe,
    apply_edits,
    make_edit,
    parse_channel,
    parse_edit,
    parse_layers,
    parse_target,
    set_edit,
)
from sg3cli.latents.moves import ShiftS, ShiftW

TIMES = np.linspace(0, 4, 401)
finite = st.floats(-8, 8, allow_nan=False).map(lambda x: round(x, 3))


def strength(text: str, *times: float) -> list[float]:
    return parse_edit(f"age={text}").strength_at(np.array(times)).tolist()


def test_a_number_is_the_same_at_all_times() -> None:
    assert strength("-2.5", 0, 1, 100) == [-2.5, -2.5, -2.5]


def test_keyframes_are_joined_and_held_at_both_ends() -> None:
    assert strength("1s:0,2s:4", 0, 1, 1.25, 1.5, 2, 9) == pytest.approx([0, 0, 1, 2, 4, 4])


def test_ease_is_smooth_and_meets_its_ends() -> None:
    eased = parse_edit("age=1s:0,3s:1:ease").strength_at(TIMES)
    assert eased[100] == 0 and eased[300] == 1 and eased[200] == pytest.approx(0.5)
    assert eased[150] == pytest.approx(0.25**2 * (3 - 0.5))
    steps = np.diff(eased)
    assert (steps >= 0).all() and steps[100] < steps[150] < steps[199]


def test_hold_jumps_at_its_keyframe() -> None:
    assert strength("0:1,2s:3:hold", 0, 1.999, 2, 5) == [1, 1, 3, 3]


def test_units_of_time() -> None:
    assert strength("500ms:0,1.5:2", 0.5, 1.0, 1.5) == pytest.approx([0, 1, 2])
    assert parse_edit("age=1m:0,2m:1").keyframes[1].time == 120


def test_an_interval_is_zero_outside_and_full_inside() -> None:
    values = parse_edit("smile=2@1s..3s").strength_at(TIMES)
    inside = (TIMES >= 1 + RAMP) & (TIMES <= 3 - RAMP)
    assert (values[(TIMES <= 1) | (TIMES >= 3)] == 0).all()
    assert values[inside] == pytest.approx(np.full(inside.sum(), 2.0))
    assert np.abs(np.diff(values)).max() < 2 * 1.6 * (TIMES[1] / RAMP)


def test_an_interval_at_the_clip_s_start_has_no_ramp_there() -> None:
    assert strength("1@0s..2s", 0, 1, 2, 3) == [1, 1, 0, 0]
    assert strength("1@..2s", 0) == [1]
    assert strength("1@2s..", 2, 2 + RAMP, 100) == [0, 1, 1]


def test_an_interval_shorter_than_its_ramps_is_a_peak() -> None:
    assert strength("3@1s..1.2s", 1, 1.1, 1.2) == pytest.approx([0, 3, 0])


@given(st.lists(st.tuples(st.floats(0, 100), finite, st.sampled_from(EASES)), min_size=1, max_size=6))
def test_strength_stays_between_its_keyframes(keys: list[tuple[float, float, str]]) -> None:
    times = sorted({round(t, 2) for t, _, _ in keys})
    frames = tuple(Keyframe(t, s, e) for t, (_, s, e) in zip(times, keys, strict=False))
    values = Edit("age", frames).strength_at(np.linspace(-1, 101, 500))
    strengths = [frame.strength for frame in frames]
    assert values.min() >= min(strengths) - 1e-9 and values.max() <= max(strengths) + 1e-9
    at_keys = Edit("age", frames).strength_at(np.array([frame.time for frame in frames]))
    assert at_keys.tolist() == strengths


UNREADABLE = "nan inf -inf two 1@ 1@2s 1@3s..2s 1@2s..2s 0s:nan,1s:2 1s:0,0s:1 0s:1:jump 0s -1s:0,1s:1 0s:1:ease:2"


@pytest.mark.parametrize("text", ["", *UNREADABLE.split(), "1@-1s..2s", "nan@0s..1s", "1h:2,3h:4"])
def test_what_cannot_be_read_is_a_usage_error(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        make_edit("age", text)
    assert caught.value.hint


@pytest.mark.parametrize("text", ["age", "=2", "age=", "age=nan"])
def test_an_edit_without_its_parts_is_a_usage_error(text: str) -> None:
    with pytest.raises(UsageError):
        parse_edit(text)


def test_a_direction_file_may_have_an_equals_sign_in_its_name() -> None:
    assert parse_edit("runs/lr=1/age.npy=-3").direction == "runs/lr=1/age.npy"


def test_layers() -> None:
    assert parse_layers("1-4,8") == (1, 2, 3, 4, 8)
    assert parse_layers("3,1,2-3") == (1, 2, 3)
    for wrong in ("", "a", "4-2", "1,", "-1", "1-2-3", "1000"):
        with pytest.raises(UsageError):
            parse_layers(wrong)


def test_edits_survive_their_plain_form() -> None:
    edit = make_edit("age", "0s:0,1s:2:ease", "1-3", preserve=["smile"])
    assert Edit.from_dict(edit.to_dict()) == edit


def test_setting_a_direction_again_replaces_it_and_zero_removes_it() -> None:
    age, smile, more = parse_edit("age=1"), parse_edit("smile=2"), parse_edit("age=3")
    assert set_edit(set_edit([], age), smile) == [age, smile]
    assert set_edit([age, smile], more) == [more, smile]
    assert set_edit([age, smile], parse_edit("age=0")) == [smile]
    assert set_edit([smile], parse_edit("age=0s:0,1s:0")) == [smile]


@pytest.mark.parametrize("text", ["L5:133=+3", "1:L5:133=3@0s..2s", "input:2=-1", "L0:0=0s:0,1s:2"])
def test_one_channel_of_stylespace_is_an_edit(text: str) -> None:
    edit = parse_channel(text)
    assert edit == parse_edit(text) and edit.names == () and Edit.from_dict(edit.to_dict()) == edit
    assert edit.channel == ((0, 2) if "input" in text else (6, 133) if "L5" in text else (1, 0))
    assert edit.face == (1 if text[0] == "1" else None)


def test_a_channel_belongs_to_its_layer_and_to_s() -> None:
    for wrong in ("age=2", "L5=1", "5:133=1", "L5:x=1", "L5:133"):
        with pytest.raises(UsageError):
            parse_channel(wrong)
    with pytest.raises(UsageError, match="layer 6"):
        parse_channel("L5:1=1", layers="1-5")
    assert parse_channel("L5:1=1", layers="6").layers == (6,)
    for parts in ({"space": "w"}, {"preserve": ["age"]}, {"space": "z"}):
        with pytest.raises(UsageError):
            make_edit("L5:1", "1", **parts)


# ---- codes


def some_codes(frames: int = 5) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(frames, 8, 6)).astype(np.float32)


def applied(ws: np.ndarray, times: np.ndarray, edits: list[Edit], vector: np.ndarray) -> np.ndarray:
    """W+ codes after edits that are all along `vector`."""
    loaded = [replace(edit, move=ShiftW(vector, edit.rows(ws.shape[1]))) for edit in edits]
    return apply_edits(Codes(ws), times, loaded).ws


def test_codes_move_by_strength_times_direction_on_the_chosen_layers_only() -> None:
    ws, times = some_codes(), np.arange(5) / 4
    direction = np.random.default_rng(1).normal(size=(8, 6)).astype(np.float32)
    moved = applied(ws, times, [make_edit("age", "0s:0,1s:2", "2-3")], direction)
    expected = ws.astype(np.float64)
    for frame, time in enumerate(times):
        expected[frame, 2:4] += 2 * time * direction[2:4]
    assert moved == pytest.approx(expected, abs=1e-6)
    assert moved.dtype == np.float32


def test_the_fourier_layer_stays_unless_asked_for() -> None:
    ws, ones = some_codes(), np.ones((1, 6), np.float32)
    moved = applied(ws, np.zeros(5), [make_edit("age", "1")], ones)
    assert (moved[:, 0] == ws[:, 0]).all() and (moved[:, 1:] != ws[:, 1:]).all()
    assert (applied(ws, np.zeros(5), [make_edit("age", "1", "0")], ones)[:, 0] != ws[:, 0]).all()


def test_frames_without_strength_keep_their_bits_and_the_input_is_untouched() -> None:
    ws = some_codes()
    ws[0, 0, 0] = -0.0
    before = ws.copy()
    moved = applied(ws, np.arange(5.0), [make_edit("age", "1@2s..4s")], np.ones((1, 6), np.float32))
    assert moved[[0, 1, 2, 4]].tobytes() == before[[0, 1, 2, 4]].tobytes()
    assert (moved[3] != before[3]).any() and ws.tobytes() == before.tobytes()


@given(finite, finite)
def test_edits_of_one_direction_add_up(a: float, b: float) -> None:
    ws, direction = some_codes(2).astype(np.float32), np.ones((1, 6), np.float32)
    one_by_one = applied(applied(ws, np.zeros(2), [_number(a)], direction), np.zeros(2), [_number(b)], direction)
    assert one_by_one == pytest.approx(applied(ws, np.zeros(2), [_number(a + b)], direction), abs=1e-4)


def _number(value: float) -> Edit:
    return Edit("age", (Keyframe(0.0, value),))


def test_a_layer_beyond_the_generator_is_named() -> None:
    with pytest.raises(UsageError, match="layer 8 of age"):
        make_edit("age", "1", "1-8").rows(8)


def test_styles_move_on_the_frames_of_an_edit_and_codes_stay() -> None:
    """A shift in S is a part of its own: it does not touch W+ codes, and is 0 where no edit is at work."""
    codes, vector = Codes(some_codes()), np.arange(4, dtype=np.float32)
    edit = replace(make_edit("L0:1", "0s:0,2s:0:hold,4s:2"), move=ShiftS(vector))
    moved = edit.apply(codes, np.arange(5.0))
    assert moved.ws.tobytes() == codes.ws.tobytes() and moved.shift is not None
    assert moved.shift == pytest.approx(np.outer([0, 0, 0, 1, 2], vector))
    again = edit.apply(moved, np.full(5, 4.0)).shift
    assert again == pytest.approx(np.outer([2, 2, 2, 3, 4], vector)) and moved.shift[4, 1] == 2


def test_an_edit_that_was_not_read_is_not_applied_silently() -> None:
    with pytest.raises(ValueError, match="1:age"):
        parse_edit("1:age=2").apply(Codes(some_codes()), np.zeros(5))


def test_a_target_is_a_value_and_its_strength_a_share_of_the_way() -> None:
    still = parse_target("age=70")
    assert still.target == (Keyframe(0.0, 70.0),) and still.strength_at(np.array([0.0, 9.0])).tolist() == [1, 1]
    some = parse_target("1:glasses=0@1s..3s")
    assert some.face == 1 and some.target == (Keyframe(0.0, 0.0),)
    assert some.strength_at(np.array([0.5, 2.0, 4.0])).tolist() == [0, 1, 0]
    grows = parse_target("age=0s:30,2s:70")
    assert grows.target == (Keyframe(0.0, 30.0), Keyframe(2.0, 70.0)) and not grows.is_zero
    for edit in (still, some, grows):
        assert Edit.from_dict(json.loads(json.dumps(edit.to_dict()))) == edit
        assert edit.names == ()
    assert still.describe() == "age to 70"
    for text in ("age", "age=old", "L5:3=2", "=3"):
        with pytest.raises(UsageError):
            parse_target(text)


def test_targets_follow_the_frames_that_are_moved() -> None:
    class Noted:
        def towards(self, targets: np.ndarray) -> Noted:
            self.targets = targets
            return self

        def __call__(self, codes: Codes, strengths: np.ndarray) -> Codes:
            return replace(codes, ws=codes.ws + self.targets[:, None, None].astype(np.float32))

    edit = replace(parse_target("age=0s:30,2s:70"), keyframes=parse_target("age=1@1s..").keyframes, move=Noted())
    moved = edit.apply(Codes(np.zeros((4, 2, 3), np.float32)), np.array([0.0, 1.5, 2.0, 3.0]))
    assert moved.ws[:, 0, 0].tolist() == [0, 60, 70, 70]
