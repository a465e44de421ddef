"""Reports made of invented figures, for tests of the page."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from clips import make_clip, numbered

from sg3cli.console import Console
from sg3cli.drawing.images import jpeg_bytes, tint_bytes
from sg3cli.drawing.line_plot import Line, Panel
from sg3cli.drawing.plot_layout import layout
from sg3cli.evaluation.report import ClipReport, StageRow, Tile
from sg3cli.evaluation.report_models import ModelRow
from sg3cli.evaluation.report_videos import Footage, SmallVideos, data_url, small_videos

FRAMES, RATE, SIZE = 50, 25, (96, 64)


def figures(**changes: Any) -> dict[str, Any]:
    """Of a clip; each figure is another number, so that one in the wrong place shows."""
    plain = {
        "judged": 12,
        "identity": {"mean": 0.91, "min": 0.82, "local": 0.993, "global": 0.974},
        "distance": {"mean": 0.0123},
        "temporal": {"mean": 0.0045},
        "warping": {"ratio": 1.16},
        "jitter": {"ratio": 1.27},
        "flicker": {"ratio": 1.38},
        "frozen": 3,
        "sharpness": 0.89,
        "seam": 0.451,
        "outside": {"share": 0.0152},
        "sound": {"offset": 0.0831},
        "attributes": {
            "labels": {"age": {"change_std": 1.75, "asked": 2.0, "follows": 0.5}, "yaw": {"change_std": 0.1}}
        },
    }
    return plain | changes


def small(folder: Path, edited: bool = True) -> SmallVideos:
    """A source of numbered frames and its negative."""
    source = make_clip(folder / "source.mkv", FRAMES, SIZE, RATE, codec="ffv1")
    negative = make_clip(
        folder / "edited.mkv", FRAMES, SIZE, RATE, codec="ffv1", image=lambda k, w, h: 255 - numbered(k, w, h)
    )
    found = small_videos(
        Footage(source, negative if edited else None), 1 << 20, Console(quiet=True), set(), lambda *_: None
    )
    assert found is not None
    return found


def report(name: str = "talk.mp4", videos: SmallVideos | None = None, **changes: Any) -> ClipReport:
    """Of a clip of two seconds."""
    times = np.linspace(0, 2, 50)
    panel = layout(Panel("identity", [Line("edited", times, np.cos(times))]), 2.0)
    square = np.full((16, 16, 3), 90, np.uint8)
    image = data_url(jpeg_bytes(square), "image/jpeg")
    mask = data_url(tint_bytes(np.ones((8, 8)), (0, 120, 100)), "image/png")
    box = [[0.2, 0.1], [0.2, 0.5], [0.6, 0.5], [0.6, 0.1]]
    words: dict[str, Any] = {
        "name": name,
        "project": "talk.sg3",
        "facts": [("project", "talk.sg3"), ("length", "2.00 s")],
        "edits": ["age = 2"],
        "videos": videos,
        "tiles": [Tile(0.0, image, image, mask), Tile(1.0, image, image, mask)],
        "panels": [panel, layout(Panel("attributes", (), note="not computed: nobody reads them"), 2.0)],
        "figures": figures(),
        "features": np.zeros((12, 2, 4)),
        "measured": [("sharpness", "0.890 of the source's"), ("sound", "not computed")],
        "evaluated": [],
        "stages": [
            StageRow("align", "done", 1.25, 300 << 20, "0.2.0", [("face", "largest")]),
            StageRow("invert", "done", 2.0, None, "0.1.0", []),
            StageRow("render", "missing", None, None, "", []),
        ],
        "models": [ModelRow("invert", "people-128", "MIT", "this project", "sha256:12", ("somebody",))],
        "provenance": [("source", name)],
        "notices": [],
        "shapes": [{"t": 0.0, "windows": [box], "faces": [box[:3]]}, {"t": 1.0, "windows": [], "faces": []}],
        "mask_words": "the face",
    }
    return ClipReport(**(words | changes))
