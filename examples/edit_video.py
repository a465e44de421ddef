"""Edit a clip from Python, with progress, and with a limit on the time that it may take.

    python examples/edit_video.py CLIP OUT [--edit age=2 ...] [--draft] [--minutes 10]

When the time is over, or on Ctrl-C, the work ends; the same command goes on from what was saved.
"""

from __future__ import annotations

import argparse
import sys
import time

import sg3cli


class TimeIsOver(Exception):
    """Raised in `progress`; it ends the work and comes out of `edit_video`."""


def main() -> int:
    """Read the arguments, edit, say what came of it; returns the exit code."""
    parser = argparse.ArgumentParser(description="Edit the face in a clip.")
    parser.add_argument("clip")
    parser.add_argument("out")
    parser.add_argument("--edit", action="append", help="default: age=2")
    parser.add_argument("--draft", action="store_true", help="no tuning")
    parser.add_argument("--minutes", type=float, default=float("inf"))
    given = parser.parse_args()
    end = time.monotonic() + 60 * given.minutes

    def progress(stage: str, done: int, total: int | None) -> None:
        sys.stderr.write(f"\r{stage} {done}/{total or '?'}   ")
        if time.monotonic() > end:
            raise TimeIsOver

    settings = sg3cli.Settings()
    if given.draft:
        settings = settings.having(finetune={"steps": 0})
    try:
        result = sg3cli.edit_video(
            given.clip, given.out, given.edit or ["age=2"], settings=settings, progress=progress, notice=note
        )
    except TimeIsOver:
        sys.stderr.write(f"\n{given.minutes:g} minutes are over; the same command goes on\n")
        return 1
    except sg3cli.Sg3Error as error:
        sys.stderr.write(f"\n{error}\n{error.hint}\n")
        return error.code
    sys.stderr.write(f"\nproject {result.project}, {result.seconds:.0f} s\n")
    sys.stdout.write(f"{result.output}\n")
    return 0


def note(text: str) -> None:
    """Something that was decided or changed without being asked for."""
    sys.stderr.write(f"\n{text}\n")


if __name__ == "__main__":
    sys.exit(main())
