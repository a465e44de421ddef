"""What was read off an edited video over time, as panels: jitter, likeness, attributes, beside what was asked for.

The values are those from which `video_figures` makes its means.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sg3cli.drawing.line_plot import Line, Panel
from sg3cli.evaluation.figure_words import MOVED
from sg3cli.evaluation.timeline import mean_text, strength_panel
from sg3cli.evaluation.video_figures import Judged, accelerations_of, likeness_of, mean, shots_of
from sg3cli.evaluation.video_pass import Judges
from sg3cli.latents.edits import Edit

MOST_LABELS = 3
SPARSE = 40  # values of a line that are marked one by one


def panels(judged: Judged | None, judges: Judges | None, edits: Sequence[Edit], duration: float) -> list[Panel]:
    """Four panels; those of a video that was not judged say so."""
    if judged is None or judges is None:
        titles = ("jitter: acceleration of the landmarks, pixels/s²", "identity: cosine with the source", "attributes")
        empty = [Panel(title, (), note="not computed: no edited video was judged") for title in titles]
        return [*empty, strength_panel(edits, duration)]
    return [
        jitter_panel(judged),
        identity_panel(judged),
        attribute_panel(judged, judges, edits),
        strength_panel(edits, duration),
    ]


def jitter_panel(judged: Judged) -> Panel:
    """Acceleration of the landmarks in both videos."""
    source, edited = accelerations_of(judged.seen, shots_of(judged.seen))
    times = np.array(judged.seen.times)
    lines = [_line("edited", times, edited), _line("source", times, source)]
    note = "" if np.isfinite(source).any() else "not computed: the face is not seen in three frames in a row"
    return Panel("jitter: acceleration of the landmarks, pixels/s²", lines, log=True, note=note)


def identity_panel(judged: Judged) -> Panel:
    """Likeness of the edited face to the source's."""
    title = f"identity: cosine with the source, by the {judged.figures['identity']['network']}"
    values = likeness_of(judged.seen)
    if not len(values):
        return Panel(title, (), note="not computed: the edited face is not found")
    return Panel(title, [_line("edited", np.array(judged.seen.times)[judged.seen.read], values)])


def attribute_panel(judged: Judged, judges: Judges, edits: Sequence[Edit]) -> Panel:
    """Change of the labels that the edits are named after, or else of those that moved the most."""
    figures, reading = judged.figures["attributes"], judges.reading
    if figures is None or reading is None:
        return Panel("attributes: change", (), note="not computed: no network reads attributes off these faces")
    times = np.array(judged.seen.times)[judged.seen.read]
    standard = np.array(judged.seen.labels) / reading.spread
    wanted = [label for label in reading.labels if any(edit.direction == label for edit in edits)]
    moved = sorted(reading.labels, key=lambda label: -abs(figures["labels"][label]["change_std"]))
    moved = [label for label in moved if abs(figures["labels"][label]["change_std"]) >= MOVED]
    shown = (wanted or moved)[:MOST_LABELS]
    lines = [_line(label, times, standard[:, reading.labels.index(label)]) for label in shown]
    note = "" if lines else "no attribute moved, and none was asked for"
    return Panel(f"attributes: change, standard deviations, by the {reading.name}", lines, note=note)


def _line(name: str, times: np.ndarray, values: np.ndarray) -> Line:
    average = mean(values.tolist())
    label = name if average is None else f"{name} (mean {mean_text(average)})"
    return Line(label, times, values, dots=len(values) <= SPARSE)
