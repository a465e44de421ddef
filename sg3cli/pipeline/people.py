"""Who is in a clip: the table of people and tracks, and their contact sheet."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sg3cli.drawing import contact_sheet
from sg3cli.drawing.images import write_png
from sg3cli.pipeline.align import Clip, digests, find_clip
from sg3cli.video import VideoReader

if TYPE_CHECKING:
    from sg3cli.pipeline import Job


SHEET_PEOPLE = 12  # rows of the contact sheet


def table(job: Job) -> tuple[Clip, list[dict[str, Any]]]:
    """Detect the clip's faces (if that is not done) and describe each person as plain data."""
    clip = find_clip(job, digests(job.settings.align, job.pull))
    return clip, [_entry(clip, number) for number in range(len(clip.candidates.people))]


def _entry(clip: Clip, number: int) -> dict[str, Any]:
    candidates, person = clip.candidates, clip.candidates.people[number]
    seen = candidates.seen.take(person.rows)
    first, last = candidates.span(person)
    x, y = np.median(candidates.centres(person), axis=0)
    size = np.median((seen.boxes[:, 2:] - seen.boxes[:, :2]).max(axis=1))
    return {
        "face": number,
        "frames": len(person.rows),
        "of": len(clip.pts),
        "first": round(first, 3),
        "last": round(last, 3),
        "size": round(float(size), 1),
        "position": [round(float(x), 1), round(float(y), 1)],
        "shots": sorted({int(clip.shots[frame]) for frame in seen.frames}),
        "tracks": sorted({int(track) for track in seen.tracks}),
        "yaw": [round(float(seen.yaws.min()), 1), round(float(seen.yaws.max()), 1)],
        "score": round(float(seen.scores.mean()), 3),
    }


def lines(entries: list[dict[str, Any]]) -> list[str]:
    """The table in words."""
    rows = [("face", "frames", "from", "to", "size", "at", "shots", "tracks", "score")]
    for entry in entries:
        x, y = entry["position"]
        rows.append(
            (
                str(entry["face"]),
                f"{entry['frames']}/{entry['of']}",
                f"{entry['first']:.2f} s",
                f"{entry['last']:.2f} s",
                f"{entry['size']:.0f} px",
                f"{x:.0f},{y:.0f}",
                ranges(entry["shots"]),
                ranges(entry["tracks"]),
                f"{entry['score']:.2f}",
            )
        )
    widths = [max(len(row[k]) for row in rows) for k in range(len(rows[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def ranges(numbers: list[int]) -> str:
    """`0-3,7` for ascending numbers."""
    parts = np.split(np.array(numbers), np.flatnonzero(np.diff(numbers) > 1) + 1)
    return ",".join(str(part[0]) if len(part) == 1 else f"{part[0]}-{part[-1]}" for part in parts)


def write_sheet(job: Job, clip: Clip, path: Path) -> None:
    """The contact sheet at `path`; the clip is read once more, as far as the last image."""
    people = clip.candidates.people[:SHEET_PEOPLE]
    rows = {person.number: contact_sheet.best_rows(clip.candidates, person) for person in people}
    wanted: dict[int, list[int]] = {}
    for row in (int(row) for found in rows.values() for row in found):
        wanted.setdefault(int(clip.candidates.seen.frames[row]), []).append(row)
    images: dict[int, np.ndarray] = {}
    with VideoReader(job.project.source(), **job.project.reading) as reader:
        for frame in reader.frames(min(wanted, default=0)):
            for row in wanted.get(frame.index, ()):
                images[row] = contact_sheet.crop(frame.rgb, clip.candidates.seen.landmarks[row])
            if frame.index >= max(wanted, default=-1):
                break
    drawn = []
    for person in people:
        first, last = clip.candidates.span(person)
        title = f"face {person.number}: {len(person.rows)} frames, {first:.2f} s to {last:.2f} s"
        captions = [f"{clip.candidates.times[clip.candidates.seen.frames[row]]:.2f} s" for row in rows[person.number]]
        drawn.append((title, list(zip(captions, (images[int(row)] for row in rows[person.number]), strict=True))))
    write_png(path, contact_sheet.draw(drawn))
