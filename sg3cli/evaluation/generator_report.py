"""How good a generator is: near to real pictures, even in its spaces, and moved as it is told to.

FID, KID, precision and recall against a set of pictures that the user names; PPL in Z, W, W+ and S; EQ-T and EQ-R.
What cannot be computed is None in the figures, and `not_computed` says why.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch

from sg3cli.console import Console
from sg3cli.drawing.bar_chart import WIDTH, Bars, draw
from sg3cli.drawing.images import grid
from sg3cli.drawing.labelled_grid import resized
from sg3cli.evaluation.image_features import ImageFeatures, open_features
from sg3cli.evaluation.latent_paths import Paths, path_length
from sg3cli.evaluation.report_run import Figures, Make, ReportRun, Row
from sg3cli.latents.sampling import GenerateConfig, Sampler
from sg3cli.latents.spaces import SPACES
from sg3cli.metrics.equivariance import decibels, shift_errors, turn_errors
from sg3cli.metrics.frechet import frechet_from
from sg3cli.metrics.kernel_distance import kernel_distance
from sg3cli.metrics.path_length import EPSILON
from sg3cli.metrics.perceptual import PerceptualLoss, make_perceptual
from sg3cli.metrics.precision_recall import NEIGHBOURS, precision_recall
from sg3cli.nets.generator import Generator
from sg3cli.training.data.images import Images, open_images
from sg3cli.weights.bundle import Bundle

AGAINST = ("fid", "kid", "kid_std", "precision", "recall")  # figures that need real pictures
SHOWN, SIDE = 10, 126  # pictures of each kind under the bars, and their pixels


@dataclass(frozen=True)
class GeneratorReportConfig:
    """How much of everything is drawn."""

    images: int = 10_000  # of the generator; of the real ones as many are taken in a quick run, else all
    pairs: int = 1_000  # paths of PPL in each space
    motions: int = 1_000  # shifts, and turns
    truncation: float = 1.0
    label: int | None = None  # class of a conditional model
    features: str = "auto"
    quick: bool = False
    batch: int = 16


QUICK = {"images": 336, "pairs": 8, "motions": 8, "quick": True}


def generator_report(
    bundle: Bundle,
    against: Path | None,
    config: GeneratorReportConfig,
    out: Path,
    console: Console,
    device: torch.device,
) -> Figures:
    """Measure the generator of a bundle and write the report to `out` and beside it; see `ReportRun`."""
    G, perceptual = bundle.generator().to(device), make_perceptual("auto").to(device)
    features = open_features(config.features, device)
    run = ReportRun(
        out, "generator", console, model=bundle.digest, config=config, features=features.name,
        distance=perceptual.name, against=str(against and against.resolve()),
    )  # fmt: skip
    real = None if against is None else open_images(against, G.img_resolution, console.notice)
    figures: Figures = {
        "model": bundle.name, "generator": bundle.digest, "against": None if against is None else str(against),
        "config": asdict(config), "features": features.name, "distance": perceptual.name, "not_computed": {},
    }  # fmt: skip
    figures |= quality(run, G, real, features, config, figures["not_computed"])
    figures["ppl"] = {space: path_length(run, paths_of(G, perceptual, space, config), config.pairs) for space in SPACES}
    figures |= equivariance(run, G, config)
    return run.write(figures, picture(figures, G, real, config))


def paths_of(G: Generator, perceptual: PerceptualLoss, space: str, config: GeneratorReportConfig) -> Paths:
    """Paths of one space, as the report draws them."""
    return Paths(G, perceptual, space, config.truncation, config.label)


def quality(
    run: ReportRun, G: Generator, real: Images | None, features: ImageFeatures, config: GeneratorReportConfig,
    missing: dict[str, str],
) -> Figures:  # fmt: skip
    """FID, KID, precision and recall; why any of them is None goes into `missing`."""
    figures: Figures = dict.fromkeys(AGAINST) | {"real_images": 0}
    if real is None:
        return figures | _missing(missing, AGAINST, "no pictures to compare with were named (--against FOLDER)")
    count = min(len(real), config.images) if config.quick else len(real)
    figures["real_images"] = count
    sides = []
    for name, number, make in (("real", count, _real_features(real, features, count, config.batch)),
                               ("drawn", config.images, _drawn_features(G, features, config))):  # fmt: skip
        sides.append(run.rows(name, number, make, config.batch)["features"])
    width = sides[0].shape[1]
    figures["fid"] = frechet_from(sides[0], sides[1], width + 1)
    if figures["fid"] is None:
        least = min(map(len, sides))
        missing["fid"] = f"{least} pictures on a side cannot tell the covariance of {width} features; {width + 1} can"
    if min(map(len, sides)) <= NEIGHBOURS:
        return figures | _missing(missing, AGAINST[1:], f"{min(map(len, sides))} pictures on a side are too few")
    figures["kid"], figures["kid_std"] = kernel_distance(sides[0], sides[1])
    figures["precision"], figures["recall"] = precision_recall(sides[0], sides[1])
    return figures


def _missing(missing: dict[str, str], names: tuple[str, ...], why: str) -> Figures:
    missing.update(dict.fromkeys(names, why))
    return dict.fromkeys(names)


def _real_features(real: Images, features: ImageFeatures, count: int, batch: int) -> Make:
    def make(first: int) -> Iterator[Row]:
        for start in range(first, count, batch):
            images = np.stack([real.image(k) for k in range(start, min(start + batch, count))])
            yield from ({"features": row} for row in features(images))

    return make


def _drawn_features(G: Generator, features: ImageFeatures, config: GeneratorReportConfig) -> Make:
    sampler = sampler_of(G, config)

    def make(first: int) -> Iterator[Row]:
        for start in range(first, config.images, config.batch):
            seeds = range(start, min(start + config.batch, config.images))
            yield from ({"features": row} for row in features(np.stack(list(sampler.images(seeds)))))

    return make


def sampler_of(G: Generator, config: GeneratorReportConfig) -> Sampler:
    """Draws the pictures of seeds."""
    return Sampler(G, GenerateConfig(config.truncation, label=config.label, batch=config.batch))


def equivariance(run: ReportRun, G: Generator, config: GeneratorReportConfig) -> Figures:
    """EQ-T and EQ-R in dB, over the codes of the first seeds."""
    ws = torch.from_numpy(sampler_of(G, config).codes(range(config.motions))).to(G.mapping.w_avg)

    def shifts(first: int) -> Iterator[Row]:
        return ({"error": error} for error in shift_errors(G, ws, first=first))

    def turns(first: int) -> Iterator[Row]:
        return ({"error": error} for error in turn_errors(G, ws, first=first))

    both = (("eq_t", shifts), ("eq_r", turns))
    return {name: decibels(run.rows(name, config.motions, make)["error"].tolist()) for name, make in both}


# ---- the report for people -----------------------------------------------------------------------------------------


def picture(figures: Figures, G: Generator, real: Images | None, config: GeneratorReportConfig) -> np.ndarray:
    """The figures as bars, and pictures of both kinds under them."""
    against = "no pictures were named to compare with"
    if real is not None:
        against = f"{config.images} drawn against {figures['real_images']} real pictures"
    subtitle = f"{against}; features: {figures['features']}; PPL: {figures['distance']}, steps of {EPSILON:g}"
    panels = [
        Bars("FID: lower is better", ["FID"], {"": [figures["fid"]]}, 2),
        Bars("KID: lower is better", ["KID"], {"": [figures["kid"]]}, 4),
        Bars("precision: looks real; recall: is drawn", ["precision", "recall"],
             {"": [figures["precision"], figures["recall"]]}),
        Bars("PPL: lower is more even", [space.upper() for space in SPACES],
             {"": [figures["ppl"][space] for space in SPACES]}, 2),
        Bars("equivariance in dB: higher is better", ["EQ-T", "EQ-R"], {"": [figures["eq_t"], figures["eq_r"]]}, 1),
    ]  # fmt: skip
    below = [strip(list(sampler_of(G, config).images(range(SHOWN))))]
    if real is not None:
        below.append(strip([real.image(k) for k in range(min(SHOWN, len(real)))]))
    return draw(f"{figures['model']}: the generator", subtitle, panels, below)


def strip(images: list[np.ndarray]) -> np.ndarray:
    """Images side by side, `[SIDE, at most WIDTH, 3]`."""
    tiles = [resized(image, SIDE) for image in images[: WIDTH // SIDE]]
    return grid(tiles, len(tiles), len(tiles), SIDE)


def report_lines(figures: Figures) -> Iterator[str]:
    """The figures as a table."""
    missing = figures["not_computed"]
    config = figures["config"]

    def row(name: str, words: str | None, key: str) -> str:
        return f"{name:<16}{f'not computed: {missing[key]}' if words is None else words}"

    def number(key: str, digits: int) -> str | None:
        return None if figures[key] is None else f"{figures[key]:.{digits}f}"

    yield row("features", figures["features"], "")
    yield row("pictures", f"{config['images']} drawn, {figures['real_images']} real", "")
    yield row("FID", number("fid", 3), "fid")
    kid = number("kid", 5)
    draws = "one draw of all" if figures["kid_std"] is None else f"+- {figures['kid_std']:.5f} over the draws"
    yield row("KID", None if kid is None else f"{kid} ({draws})", "kid")
    yield row("precision", number("precision", 3), "precision")
    yield row("recall", number("recall", 3), "recall")
    for space, value in figures["ppl"].items():
        yield row(f"PPL in {space.upper()}", f"{value:.3f} ({figures['distance']}, {config['pairs']} paths)", "")
    for key, name in (("eq_t", "EQ-T"), ("eq_r", "EQ-R")):
        yield row(name, f"{figures[key]:.1f} dB ({config['motions']} motions)", "")
