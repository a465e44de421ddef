"""The table of edits at equal change: a row for each direction that there is, and the reason where there is none."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from sg3cli.errors import ModelError, UsageError
from sg3cli.evaluation.editability import Direction, as_move, at_equal_change, leak
from sg3cli.evaluation.face_reading import FaceReading, Readings
from sg3cli.evaluation.report_run import Figures, ReportRun, Row
from sg3cli.latents.text_models import load_text_model
from sg3cli.nets.generator import Generator
from sg3cli.pipeline.text_edits import make_text_direction
from sg3cli.weights.bundle import Bundle

TEXT = "text"  # the family of StyleCLIP's own directions, from a text model's table


@dataclass(frozen=True)
class EditTable:
    """Edits of the faces ws [n,num_ws,w_dim], which the judge has read `before`, by `change` deviations over people."""

    run: ReportRun
    G: Generator
    judge: FaceReading
    ws: np.ndarray
    before: Readings
    change: float

    def row(self, family: str, space: str, attribute: str, make: Callable[[], Direction]) -> Figures:
        """Strength, change, leak and identity of an edit along what `make` gives, or why there is none."""
        entry: Figures = {"family": family, "space": space, "attribute": attribute, "identity": None, "leak": None}
        column = self.judge.labels.index(attribute)
        try:
            way = make()
        except UsageError as error:
            return entry | {"not_computed": str(error)}

        def measure(first: int) -> Iterator[Row]:
            yield at_equal_change(self.G, self.judge, self.ws, self.before, way, column, self.change)

        found = self.run.rows(f"edit-{family}-{space}-{attribute}", 1, measure)
        return entry | edit_row({key: value[0] for key, value in found.items()}, self.judge, column, self.change)


def edit_row(found: dict[str, np.ndarray], judge: FaceReading, column: int, change: float) -> Figures:
    """What is told of one edit; identity and leak only where the change is the one that all are compared at."""
    changes = found["changes"]
    told: Figures = {
        "strength": float(found["strength"]), "change": float(changes[column]),
        "changes": dict(zip(judge.labels, changes.tolist(), strict=True)),
    }  # fmt: skip
    if not bool(found["reached"]):
        why = f"the attribute changed by {changes[column]:+.2f}, not {change:+.2f} deviations"
        return told | {"not_computed": why}
    return told | {"identity": float(found["identity"]), "leak": leak(changes, column)}


def text_rows(
    table: EditTable, bundle: Bundle, texts: Sequence[tuple[str, str]], text_model: str, answer: np.ndarray,
    labels: Sequence[str], missing: dict[str, str],
) -> list[Figures]:  # fmt: skip
    """A row in S for each (attribute, what is said of it); why there are none goes into `missing`.

    `answer [K,channels]`: what styles do to the attributes `labels`; see `editability.in_space`.
    """
    if not texts:
        missing["edits by text"] = "no text was given (--text 'age=an old face')"
        return []
    try:
        model = load_text_model(text_model, torch.device("cpu"), bundle=bundle)
        vectors = [make_text_direction(bundle, model, said, name).vector[0] for name, said in texts]
    except (ModelError, UsageError) as error:
        missing["edits by text"] = f"{error} ({error.hint})"
        return []
    rows = []
    for (name, _), vector in zip(texts, vectors, strict=True):
        slope = float(vector @ answer[labels.index(name)])

        def make(vector: np.ndarray = vector, slope: float = slope) -> Direction:
            if slope <= 0:
                raise UsageError("the attribute does not rise along it", "")
            return Direction(as_move("s", vector, table.G), table.change / slope)

        rows.append(table.row(TEXT, "s", name, make))
    return rows
