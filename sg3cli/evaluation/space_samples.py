"""Codes of many images in Z, W, W+ and S, and what is read of the images.

Z, W and S are three views of the same images, those of seeds. In W+ each layer has a code of its own, so its images are
others. What is read is kept, codes follow from the seeds.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from sg3cli.evaluation.face_reading import FaceReading
from sg3cli.evaluation.report_run import ReportRun, Row
from sg3cli.latents.codes import Codes
from sg3cli.latents.rendering import draw, to_uint8
from sg3cli.latents.sampling import GenerateConfig, Sampler, latent
from sg3cli.latents.spaces import CHUNK, WPlus
from sg3cli.nets.generator import Generator

DRAWN_AS = {"z": "w", "w": "w", "w+": "w+", "s": "w"}  # whose images a space is judged by


@dataclass(frozen=True)
class Samples:
    """Codes `[N, d]` of each space, flat, and the labels `[N, K]` of their images."""

    codes: dict[str, np.ndarray]
    labels: dict[str, np.ndarray]


def read_samples(
    run: ReportRun, G: Generator, reading: FaceReading, count: int, truncation: float, label: int | None, batch: int
) -> Samples:
    """Draw `count` images of seeds and as many of W+, and read them."""
    samplers = {space: Sampler(G, GenerateConfig(truncation, label=label, space=space)) for space in ("w", "w+")}
    labels = {}
    for space, sampler in samplers.items():

        def make(first: int, sampler: Sampler = sampler) -> Iterator[Row]:
            return _labels(G, sampler, reading, range(first, count), batch)

        labels[space] = run.rows(f"readings-{space}", count, make, batch)["labels"]
    ws = samplers["w"].codes(range(count))
    codes = {
        "z": np.stack([latent(seed, G.config.z_dim) for seed in range(count)]).astype(np.float32),
        "w": ws[:, 0],
        "w+": samplers["w+"].points(range(count)).reshape(count, -1),
        "s": styles_of(G, ws),
    }
    return Samples(codes, {space: labels[DRAWN_AS[space]] for space in codes})


def _labels(G: Generator, sampler: Sampler, reading: FaceReading, seeds: range, batch: int) -> Iterator[Row]:
    for start in range(0, len(seeds), batch):
        codes = sampler.at(sampler.points(seeds[start : start + batch]))
        yield from ({"labels": row} for row in reading.read(list(images_of(G, codes))).labels)


def images_of(G: Generator, codes: Codes) -> np.ndarray:
    """Images `[n, R, R, 3]` uint8 of codes, all at once."""
    with torch.inference_mode():
        return to_uint8(draw(G, codes))


def styles_of(G: Generator, ws: np.ndarray) -> np.ndarray:
    """Styles `[n, channels]` of W+ codes `[n, num_ws, w_dim]`."""
    parts = [torch.from_numpy(ws[k : k + CHUNK]).to(G.mapping.w_avg) for k in range(0, len(ws), CHUNK)]
    with torch.inference_mode():
        return np.concatenate([WPlus(part).to_s(G).values.cpu().numpy() for part in parts])
