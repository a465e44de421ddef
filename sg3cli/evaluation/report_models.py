"""The models that had a part in a project and in judging it, with their licences and credits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from sg3cli.errors import ModelError
from sg3cli.evaluation.video_figures import APPEARANCE, Judged
from sg3cli.project import Project
from sg3cli.weights.bundle import load_model
from sg3cli.weights.registry import TABLE, Model

LOSSES = {"lite0": "perceptual", "lpips": "lpips-alex"}  # name of a perceptual distance -> its row in the table
UNKNOWN = "unknown"
OWN = "MIT, part of sg3"
WHO = {"reader": "that of its model", "attribute net": "that of its model", APPEARANCE: OWN}


@dataclass(frozen=True)
class ModelRow:
    """A model, what it was used for, and on what terms."""

    use: str
    name: str
    licence: str
    source: str
    digest: str
    credits: tuple[str, ...] = ()


def models_of(project: Project, judged: Judged | None) -> list[ModelRow]:
    """Those of the stages that have run, and of the figures."""
    rows = [*_landmarks(project), *_generator(project)]
    for stage in ("invert", "finetune"):
        loss = str(project.record(stage).params.get("loss", ""))
        if loss in LOSSES:
            rows.append(_of_table(TABLE[LOSSES[loss]], f"{stage}: perceptual distance"))
    if judged is not None:
        distance = str(judged.figures["distance"]["network"])
        if distance in LOSSES:
            rows.append(_of_table(TABLE[LOSSES[distance]], "figures: perceptual distance"))
        else:
            rows.append(ModelRow("figures: perceptual distance", distance, OWN, "", ""))
        who = str(judged.figures["identity"]["network"])
        rows.append(ModelRow("figures: who a face is", who, WHO.get(who, UNKNOWN), "", ""))
    return merged(rows)


def merged(rows: Sequence[ModelRow]) -> list[ModelRow]:
    """Each model once, with all its uses."""
    found: dict[tuple[str, str], ModelRow] = {}
    for row in rows:
        known = found.get((row.name, row.digest))
        found[row.name, row.digest] = row if known is None else replace(known, use=f"{known.use}; {row.use}")
    return list(found.values())


def _landmarks(project: Project) -> list[ModelRow]:
    files = project.record("align").models
    rows = []
    for model in TABLE.values():
        found = [files[file.name] for file in model.files if file.name in files]
        if found:
            rows.append(_of_table(model, "align: landmarks", found[0]))
    return rows


def _generator(project: Project) -> list[ModelRow]:
    record = project.record("invert")
    if not record:
        return []
    name, digest = str(record.models.get("name", UNKNOWN)), str(record.models.get("generator", ""))
    use = "invert, edit, render: generator and encoder"
    try:
        meta = load_model(str(record.params.get("model", name))).meta
    except ModelError:
        known = TABLE.get(name)
        return [_of_table(known, use, digest) if known else ModelRow(use, name, UNKNOWN, UNKNOWN, digest)]
    licence, source = (str(meta.get(key, UNKNOWN)) for key in ("licence", "source"))
    return [ModelRow(use, name, licence, source, digest, tuple(map(str, meta.get("credits", ()))))]


def _of_table(model: Model, use: str, digest: str = "") -> ModelRow:
    digest = digest or next((f"sha256:{file.sha256}" for file in model.files if file.sha256), "")
    return ModelRow(use, model.name, model.licence, model.source, digest, model.credits)
