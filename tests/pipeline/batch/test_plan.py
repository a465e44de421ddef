"""Shards and ranges of a batch, before anything is done."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sg3cli.errors import UsageError
from sg3cli.pipeline.batch.plan import cuts_of, of_shard, parse_shard
from sg3cli.settings import Settings


@given(st.integers(0, 40), st.integers(1, 9))
def test_every_input_is_in_one_shard(items: int, count: int) -> None:
    shards = [of_shard(range(items), number, count) for number in range(1, count + 1)]
    assert sorted(item for shard in shards for item in shard) == list(range(items))
    assert max(map(len, shards)) - min(map(len, shards)) <= 1


@pytest.mark.parametrize("text", ["0/4", "5/4", "1", "1/0", "a/b", "-1/4", "1/4/2", ""])
def test_a_shard_that_is_none(text: str) -> None:
    with pytest.raises(UsageError, match="the shard is"):
        parse_shard(text)
    assert parse_shard(" 4/4 ") == (4, 4)


def cuts(
    frames: int, out: str = "out.mp4", rate: str = "25/1", longest: float = 20.0, res: int = 128, **given: Any
) -> Any:
    return cuts_of({"frames": frames, "average_rate": rate}, Settings().having(**given), out, res, longest)


def test_ranges_cover_the_clip_and_end_where_a_single_run_s_chunks_do() -> None:
    found = cuts(1003)
    assert found.render == ((0, 250), (250, 500), (500, 750), (750, 1003))
    assert found.invert == ((0, 256), (256, 512), (512, 768), (768, 1003))  # whole blocks of 32 frames
    assert found.tasks == 10 and found
    assert [first % 8 for first, _ in cuts(1003, res=1024).invert] == [0] * 4
    odd = cuts(2000, rate="30000/1001", render={"batch": 8})
    for spans in (odd.render, odd.invert):
        assert spans[0][0] == 0 and spans[-1][1] == 2000 and all(a[1] == b[0] for a, b in pairwise(spans))
    assert all(first % 8 == 0 for first, _ in odd.render)


@pytest.mark.parametrize(
    "plan",
    [
        cuts(500),  # 20 s
        cuts(5000, longest=0),
        cuts(5000, out="frames/%04d.png"),
        cuts(5000, out="frames/"),
        cuts(5000, out="-"),
        cuts(5000, encode={"segment": 0}),
        cuts(600, encode={"segment": 30.0}),
        cuts(5000, render={"stitch": "tune"}),
    ],
)
def test_what_is_one_task(plan: Any) -> None:
    assert not plan and plan.tasks == 1 and plan.render == ()
