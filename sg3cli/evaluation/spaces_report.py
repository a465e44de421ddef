"""How the spaces Z, W, W+ and S of a generator compare: disentanglement, evenness, and what edits in them cost.

DCI, MIG and separability between the coordinates of a space and what a network reads of the images; PPL and the length
of whole paths; edits at equal change of an attribute. What cannot be computed is None, and `not_computed` says why.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sg3cli.console import Console
from sg3cli.errors import UsageError
from sg3cli.evaluation.edit_table import EditTable, text_rows
from sg3cli.evaluation.editability import EDITED, FAMILIES, answers, in_space, make_direction
from sg3cli.evaluation.face_reading import FaceReading, load_reading, open_reading
from sg3cli.evaluation.latent_paths import Paths, path_length, whole_length
from sg3cli.evaluation.report_run import Figures, ReportRun
from sg3cli.evaluation.space_samples import Samples, images_of, read_samples
from sg3cli.evaluation.spaces_picture import picture
from sg3cli.latents.codes import Codes
from sg3cli.latents.sampling import GenerateConfig, Sampler
from sg3cli.latents.spaces import SPACES, statistics
from sg3cli.latents.text_model import AUTO
from sg3cli.metrics import disentanglement as dis
from sg3cli.metrics.linear_models import missing as models_missing
from sg3cli.metrics.perceptual import make_perceptual
from sg3cli.nets.generator import Generator
from sg3cli.weights.bundle import Bundle

SCORES = ("disentanglement", "completeness", "informativeness", "mig", "separability", "accuracy")
LEAST_SPREAD = 0.1  # of an attribute in the images, in its deviations over people: below it says nothing of a space
EDITED_FROM = 1_000_000  # the first seed of the faces that edits are made on and measured on: no sample is among them
PROBED_FROM = 2_000_000  # that of the faces whose gradients say what coordinates do


@dataclass(frozen=True)
class SpacesReportConfig:
    """How much of everything is drawn and measured."""

    samples: int = 4_000  # images that are read, and as many of W+
    pairs: int = 500  # paths of PPL in each space
    paths: int = 100  # paths that are measured whole
    pieces: int = 8  # of each of them
    faces: int = 32  # that edits are measured on
    probes: int = 16  # faces whose gradients say what coordinates do
    change: float = 1.0  # of the attribute, in deviations over people, at which edits are compared
    edited: int = 11  # attributes at most that edits are made of, unless some are named
    attributes: tuple[str, ...] = ()
    texts: tuple[tuple[str, str], ...] = ()  # (attribute, what is said of it), for edits by text
    text_model: str = AUTO
    truncation: float = 1.0
    label: int | None = None  # class of a conditional model
    batch: int = 16


QUICK = {"samples": 128, "pairs": 6, "paths": 3, "pieces": 6, "faces": 4, "probes": 3, "edited": 3}


def spaces_report(
    bundle: Bundle, reader: Path | None, judge: Path | None, backbone: Path | None, config: SpacesReportConfig,
    out: Path, console: Console, device: torch.device,
) -> Figures:  # fmt: skip
    """Measure the spaces of a bundle's generator and write the report to `out` and beside it; see `ReportRun`."""
    G, perceptual = bundle.generator().to(device), make_perceptual("auto").to(device)
    reading = open_reading(bundle, console) if reader is None else load_reading(reader, backbone)
    judging = reading if judge is None else load_reading(judge, backbone)
    if reading is not None and judging is not None:
        check_attributes([*config.attributes, *(name for name, _ in config.texts)], reading, judging)
    run = ReportRun(
        out, "spaces", console, model=bundle.digest, config=config, distance=perceptual.name,
        reader=[str(reader), str(judge), None if reading is None else reading.labels],
    )  # fmt: skip
    figures: Figures = {
        "model": bundle.name, "generator": bundle.digest, "config": asdict(config), "distance": perceptual.name,
        "reader": reading and reading.name, "judge": judging and judging.name, "not_computed": {},
    }  # fmt: skip
    paths = {s: Paths(G, perceptual, s, config.truncation, config.label) for s in SPACES}
    figures["spaces"] = {
        space: {
            "ppl": path_length(run, paths[space], config.pairs),
            "length": whole_length(run, paths[space], config.paths, config.pieces),
            **dict.fromkeys(SCORES),
        }
        for space in SPACES
    }
    if reading is None or judging is None:
        why = f"{bundle.name} has no network that reads faces (--reader FILE)"
        figures["not_computed"] = dict.fromkeys((*SCORES, "edits"), why)
        return run.write(figures | {"edits": [], "attributes": []}, picture(figures | {"edits": []}))
    samples = read_samples(run, G, reading, config.samples, config.truncation, config.label, config.batch)
    figures |= scores(samples, reading, figures)
    figures["edits"] = edits(run, bundle, G, reading, judging, samples, figures, config)
    return run.write(figures, picture(figures))


def scores(samples: Samples, reading: FaceReading, figures: Figures) -> Figures:
    """DCI, MIG and separability of each space, over the attributes that the images show."""
    varying = np.flatnonzero(samples.labels["w"].std(axis=0) >= LEAST_SPREAD * reading.spread)
    names = [reading.labels[k] for k in varying]
    for name in set(reading.labels) - set(names):
        figures["not_computed"][f"attribute {name}"] = "the images hardly differ in it"
    count = len(samples.labels["w"])
    bins, reason = dis.bins_for(count), models_missing()
    if not names:
        reason = "the images differ in no attribute that is read"
        figures["not_computed"]["mig"] = reason
    if reason is not None:
        figures["not_computed"] |= dict.fromkeys([name for name in SCORES if name != "mig"], reason)
    found: dict[str, dict[str, Any]] = {}
    for space in SPACES:
        codes, labels = samples.codes[space], samples.labels[space][:, varying]
        found[space] = dict(figures["spaces"][space])
        if names:
            found[space]["mig"] = dis.mutual_information_gap(codes, labels, bins)
        if reason is None:
            found[space] |= linear_scores(codes, labels, names)
    return {"spaces": found, "attributes": names, "mig_bins": f"{bins} of equal counts"}


def linear_scores(codes: np.ndarray, labels: np.ndarray, names: Sequence[str]) -> dict[str, Any]:
    """Those that need linear models."""
    dci, apart = dis.dci(codes, labels), dis.separability(codes, labels)
    return {
        "disentanglement": _known(dci.disentanglement), "completeness": _known(dci.completeness),
        "informativeness": dci.informativeness, "separability": apart.score, "accuracy": float(apart.accuracy.mean()),
        "explained": dict(zip(names, dci.explained.tolist(), strict=True)),
        "predicted": [name for name, there in zip(names, dci.predicted, strict=True) if there],
    }  # fmt: skip


def _known(value: float) -> float | None:
    return value if np.isfinite(value) else None


# ---- edits ---------------------------------------------------------------------------------------------------------


def edits(
    run: ReportRun, bundle: Bundle, G: Generator, reading: FaceReading, judge: FaceReading, samples: Samples,
    figures: Figures, config: SpacesReportConfig,
) -> list[Figures]:  # fmt: skip
    """A row for each family, space and attribute, and for each text; see `EditTable.row`."""
    sampler = Sampler(G, GenerateConfig(config.truncation, label=config.label))
    ws, probed = (
        sampler.codes(range(start, start + n))
        for start, n in ((EDITED_FROM, config.faces), (PROBED_FROM, config.probes))
    )
    gradients = run.rows("answers", config.probes, lambda first: answers(G, reading, probed, first))
    both = [name for name in figures["attributes"] if name in judge.labels]
    names = list(config.attributes) or both[: config.edited]
    before = judge.read([image for k in range(len(ws)) for image in images_of(G, Codes(ws[k : k + 1]))])
    table, rows = EditTable(run, G, judge, ws, before, config.change), []
    knowns = {space: statistics(G, space) for space in EDITED}
    for family in FAMILIES:
        for space, known in knowns.items():
            answer = in_space(space, gradients, G)
            for name in names:
                make = partial(
                    make_direction, family, space, reading.labels.index(name), samples, answer, known, G, config.change
                )
                rows.append(table.row(family, space, name, make))
    answer = in_space("s", gradients, G)
    missing = figures["not_computed"]
    return rows + text_rows(table, bundle, config.texts, config.text_model, answer, reading.labels, missing)


def check_attributes(names: Sequence[str], reading: FaceReading, judge: FaceReading) -> None:
    """Raise `UsageError` for an attribute that is not read by both networks."""
    for name in names:
        if name not in reading.labels or name not in judge.labels:
            known = ", ".join(label for label in reading.labels if label in judge.labels)
            raise UsageError(f"{name!r} is not read by both networks", f"they read: {known}")
