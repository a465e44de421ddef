"""Every kind of footage through the whole command: nothing that another program counts differs without a word."""

from __future__ import annotations

from pathlib import Path

import pytest
from footage_runs import KINDS, run_kind


@pytest.mark.slow
@pytest.mark.parametrize("number", range(len(KINDS)), ids=[kind.name for kind in KINDS])
def test_what_comes_out_is_what_went_in_or_it_is_said(
    number: int, tmp_path: Path, tiny_bundle: Path, face_model: None
) -> None:
    row = run_kind(KINDS[number], tmp_path / "x", tiny_bundle)
    assert row.code == 0, row.notices
    assert row.before.frames == row.after.frames == KINDS[number].frames and not row.silent, row
