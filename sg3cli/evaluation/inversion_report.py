"""How well pictures are inverted, and at what cost: encoder, ReStyle, likeness, optimisation, refinement, PTI.

Every method finds a code for the upright face. It is drawn upright against the aligned picture, and through the
transform against the unaligned one; pivotal tuning, which learns the picture itself, is done for each. Seconds and
memory are those of one picture by itself.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sg3cli.console import Console
from sg3cli.errors import ModelError
from sg3cli.evaluation.face_reading import FaceReading, load_reading, open_reading
from sg3cli.evaluation.inversion_picture import picture
from sg3cli.evaluation.inversion_subjects import LIES, Subject, of_pictures, of_project
from sg3cli.evaluation.report_run import Figures, ReportRun, Row
from sg3cli.latents.codes import Codes
from sg3cli.latents.likeness import Likeness
from sg3cli.latents.pivotal_tuning import PivotalTuner, Targets
from sg3cli.latents.refinement import RefineConfig, Refiner
from sg3cli.latents.rendering import render_crops
from sg3cli.levels import to_signed, to_uint8
from sg3cli.manifest import MANIFEST
from sg3cli.metrics.perceptual import PerceptualLoss, make_perceptual
from sg3cli.metrics.reconstruction import reconstruction_report
from sg3cli.nets.encoder import Encoder
from sg3cli.nets.generator import Generator
from sg3cli.nets.memory import forget_peak, peak_bytes
from sg3cli.nets.restyle import restyle_codes
from sg3cli.project import Project
from sg3cli.settings import FinetuneConfig
from sg3cli.weights.bundle import Bundle


@dataclass(frozen=True)
class InversionReportConfig:
    """How many pictures, and how many steps each method takes."""

    pictures: int = 32
    restyle: int = 5  # passes of the encoder at most
    likeness: int = 40
    optimise: int = 500
    refine: int = 100
    tune: int = 350


Invert = Callable[[Subject, np.ndarray | None, str], tuple[Generator, Codes]]
QUICK = {"pictures": 2, "restyle": 3, "likeness": 10, "optimise": 24, "refine": 10, "tune": 10}


@dataclass(frozen=True)
class Method:
    """`invert(subject, start, lie)` gives a generator and codes.

    `start` is the code [num_ws,w_dim] that `after`, another method, found. `tunes`: it is done once for the aligned
    picture and once for the unaligned one. `together` [n,num_ws,w_dim] codes of all pictures at once, from theirs, in
    the place of `invert`.
    """

    name: str
    invert: Invert | None
    after: str | None = None
    tunes: bool = False
    together: Callable[[Sequence[Subject], np.ndarray], np.ndarray] | None = None


def inversion_report(
    bundle: Bundle, target: Path, reader: Path | None, backbone: Path | None, config: InversionReportConfig, out: Path,
    console: Console, device: torch.device,
) -> Figures:  # fmt: skip
    """Invert the pictures, or frames of a project, in every way, and write the report to `out`; see `ReportRun`."""
    G, perceptual = bundle.generator().to(device), make_perceptual("auto").to(device)
    reading = open_reading(bundle, console) if reader is None else load_reading(reader, backbone)
    is_project = (target / MANIFEST).is_file()
    size = G.img_resolution
    subjects = (
        of_project(Project.open(target), config.pictures, size) if is_project
        else of_pictures(target, config.pictures, size, console)
    )  # fmt: skip
    run = ReportRun(
        out, "inversion", console, model=bundle.digest, encoder=bundle.encoder_digest if bundle.has_encoder else None,
        config=config, distance=perceptual.name, target=str(target.resolve()), names=[s.name for s in subjects],
    )  # fmt: skip
    missing: dict[str, str] = {}
    methods = methods_of(bundle, G, perceptual, config, is_project, missing)
    if reading is None:
        missing["identity"] = f"{bundle.name} has no network that reads faces (--reader FILE)"
    rows: dict[str, dict[str, np.ndarray]] = {}
    for _ in render_crops(G, G.mapping.w_avg.cpu().float().expand(1, G.num_ws, -1).numpy()):
        pass  # what is compiled or loaded at the first drawing is not the first method's
    for method in methods:
        rows[method.name] = inverted(run, G, method, subjects, rows)
    table: list[Figures] = []
    for name, found in rows.items():
        table.append({"method": name, **measured(found, subjects, perceptual, reading)})
    if any(row["aligned"]["memory_mb"] is None for row in table):
        missing["memory"] = "this system does not tell the peak of a part of a run"
    figures: Figures = {
        "model": bundle.name, "generator": bundle.digest, "pictures": [s.name for s in subjects],
        "target": str(target), "config": asdict(config), "distance": perceptual.name,
        "reader": reading and reading.name, "methods": table, "not_computed": missing,
    }  # fmt: skip
    return run.write(figures, picture(figures, subjects, rows))


# ---- the methods ---------------------------------------------------------------------------------------------------


def methods_of(
    bundle: Bundle, G: Generator, perceptual: PerceptualLoss, config: InversionReportConfig, one_person: bool,
    missing: dict[str, str],
) -> list[Method]:  # fmt: skip
    """Every way to invert that the model can go; why it cannot go the others goes into `missing`.

    Likeness corrects all pictures of `one_person` by one vector, as `sg3 invert` does, others each by its own.
    """
    by_optimisation = f"optimisation, {config.optimise} steps"
    optimised = Method(by_optimisation, lambda s, w, lie: (G, _refined(G, perceptual, config.optimise, s, None)))
    tuned = f"PTI, {config.tune} steps"
    try:
        encoder = bundle.encoder().to(G.mapping.w_avg.device)
    except ModelError as error:
        missing |= dict.fromkeys(("encoder", "ReStyle", "likeness", "encoder + refinement"), str(error))
        return [optimised, Method(tuned, _tuner(G, perceptual, config), by_optimisation, True)]
    passes = [
        Method("encoder, one pass" if k == 1 else f"ReStyle, {k} passes", _encoded(G, encoder, k))
        for k in range(1, config.restyle + 1)
    ]
    last = passes[-1].name
    refined = f"encoder + refinement, {config.refine} steps"
    likeness = _likeness(G, perceptual, config.likeness)
    name = f"likeness, {config.likeness} steps"
    return [
        *passes,
        Method(f"{name} for all", None, last, together=likeness) if one_person
        else Method(name, lambda s, w, lie: (G, Codes(likeness([s], np.array(w)[None]))), last),
        optimised,
        Method(refined, lambda s, w, lie: (G, _refined(G, perceptual, config.refine, s, w)), last),
        Method(tuned, _tuner(G, perceptual, config), last, True),
    ]  # fmt: skip


def _encoded(G: Generator, encoder: Encoder, passes: int) -> Invert:
    def invert(subject: Subject, start: np.ndarray | None, lie: str) -> tuple[Generator, Codes]:
        x = torch.from_numpy(subject.aligned).permute(2, 0, 1)[None].contiguous().to(G.mapping.w_avg.device)
        with torch.inference_mode():
            return G, Codes(restyle_codes(encoder, G, x, passes).cpu().numpy())

    return invert


def _likeness(
    G: Generator, perceptual: PerceptualLoss, steps: int
) -> Callable[[Sequence[Subject], np.ndarray], np.ndarray]:
    """Codes [n,num_ws,w_dim] of pictures of one person with the one correction that is found on all of them."""

    def corrected(subjects: Sequence[Subject], codes: np.ndarray) -> np.ndarray:
        finder = Likeness(G, perceptual, codes, np.stack([subject.aligned for subject in subjects]), steps)
        for _ in finder.run():
            pass
        return np.asarray(codes + finder.correction()[0])

    return corrected


def _refined(G: Generator, perceptual: PerceptualLoss, steps: int, subject: Subject, start: np.ndarray | None) -> Codes:
    """By descent in W+, from a code or from the mean one."""
    code = G.mapping.w_avg.cpu().float().expand(G.num_ws, -1).numpy() if start is None else start
    refiner = Refiner(G, RefineConfig(steps, space="w+"), perceptual)
    return refiner(code[None], subject.aligned[None], np.arange(1)).codes


def _tuner(G: Generator, perceptual: PerceptualLoss, config: InversionReportConfig) -> Invert:
    """Pivotal tuning as published: on the one picture, at the code that is there."""

    def invert(subject: Subject, start: np.ndarray | None, lie: str) -> tuple[Generator, Codes]:
        assert start is not None
        codes, transform = Codes(start[None]), np.eye(3) if lie == "aligned" else subject.transform
        target = subject.aligned if lie == "aligned" else subject.unaligned
        settings = replace(FinetuneConfig(), steps=config.tune, batch=1, keep=0.0)
        tuner = PivotalTuner(
            G, codes, transform[None], Targets(to_uint8(target)[None], np.arange(1)), settings, perceptual
        )
        for _ in tuner.run():
            pass
        return tuner.G, codes

    return invert


# ---- one method on all pictures ------------------------------------------------------------------------------------


def inverted(
    run: ReportRun, G: Generator, method: Method, subjects: Sequence[Subject], done: dict[str, dict[str, np.ndarray]]
) -> dict[str, np.ndarray]:
    """A row for each picture: the code `ws`, what is drawn of it, seconds and peak of memory (-1: not known)."""

    def make(first: int) -> Iterator[Row]:
        starts = None if method.after is None else done[method.after]["ws"]
        if method.together is not None and starts is not None:
            yield from _all(G, method.together, subjects, starts, first)
            return
        for number, subject in enumerate(subjects[first:], start=first):
            yield _one(G, method, subject, None if starts is None else starts[number])

    return run.rows(method.name.split(",")[0].replace(" ", "-") + f"-{_steps(method.name)}", len(subjects), make)


def _steps(name: str) -> str:
    return "".join(letter for letter in name if letter.isdigit()) or "1"


def _one(G: Generator, method: Method, subject: Subject, start: np.ndarray | None) -> dict[str, Any]:
    assert method.invert is not None
    row: dict[str, Any] = {}
    found: tuple[Generator, Codes] | None = None
    for lie in LIES:
        if found is None or method.tunes:
            known, began = forget_peak(G.mapping.w_avg.device), time.monotonic()
            found = method.invert(subject, start, lie)
            cost = _cost(G, lie, known, began)
        else:
            cost = {key.replace(LIES[0], lie): value for key, value in cost.items()}
        row |= cost | _drawn(*found, subject, lie)
    assert found is not None
    return row | {"ws": found[1].ws[0]}


def _all(
    G: Generator, together: Callable[[Sequence[Subject], np.ndarray], np.ndarray], subjects: Sequence[Subject],
    starts: np.ndarray, first: int,
) -> Iterator[dict[str, Any]]:  # fmt: skip
    """Rows from number `first` on of codes that were found together; each has its share of the seconds."""
    known, began = forget_peak(G.mapping.w_avg.device), time.monotonic()
    codes = together(subjects, starts)
    cost = [_cost(G, lie, known, began, len(subjects)) for lie in LIES]
    for subject, ws in zip(subjects[first:], codes[first:], strict=True):
        row: dict[str, Any] = {"ws": ws} | cost[0] | cost[1]
        for lie in LIES:
            row |= _drawn(G, Codes(ws[None]), subject, lie)
        yield row


def _cost(G: Generator, lie: str, known: bool, began: float, shared_by: int = 1) -> dict[str, float]:
    """Seconds since `began`, and the peak of memory where it is `known`."""
    memory = float(peak_bytes(G.mapping.w_avg.device)) if known else -1.0
    return {f"seconds-{lie}": (time.monotonic() - began) / shared_by, f"memory-{lie}": memory}


def _drawn(G: Generator, codes: Codes, subject: Subject, lie: str) -> dict[str, np.ndarray]:
    (image,) = render_crops(G, codes, None if lie == LIES[0] else subject.transform[None])
    return {lie: image}


def measured(
    rows: dict[str, np.ndarray], subjects: Sequence[Subject], perceptual: PerceptualLoss, reading: FaceReading | None
) -> dict[str, Figures]:
    """Means over the pictures, of aligned and of unaligned ones; what is not known is None."""
    found: dict[str, Figures] = {}
    for lie in LIES:
        targets = [subject.aligned if lie == "aligned" else subject.unaligned for subject in subjects]
        report = reconstruction_report(targets, list(rows[lie]), perceptual)
        memory = rows[f"memory-{lie}"]
        found[lie] = {
            "l2": float((4 / 10 ** (report.psnr / 10)).mean()), "features": float(report.perceptual.mean()),
            "ms_ssim": float(report.ms_ssim.mean()), "identity": _identity(rows[lie], subjects, lie, reading),
            "seconds": float(rows[f"seconds-{lie}"].mean()),
            "memory_mb": float(memory.max() / 1e6) if (memory >= 0).all() else None,
        }  # fmt: skip
    return found


def _identity(drawn: np.ndarray, subjects: Sequence[Subject], lie: str, reading: FaceReading | None) -> float | None:
    """Mean cosine between picture and drawing, both upright."""
    if reading is None:
        return None
    if lie == "aligned":
        pairs = [(subject.aligned, to_signed(image)) for subject, image in zip(subjects, drawn, strict=True)]
    else:
        pairs = [
            (subject.upright(to_uint8(subject.unaligned)), subject.upright(image))
            for subject, image in zip(subjects, drawn, strict=True)
        ]
    before, after = (reading.read([pair[k] for pair in pairs]).embedding for k in (0, 1))
    return float((before * after).sum(axis=1).mean())
