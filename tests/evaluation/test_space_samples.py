"""Codes and labels of one row belong to one image, in each of the spaces."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from tiny import tiny_generator

from sg3cli.console import Console
from sg3cli.evaluation.face_reading import FaceReading
from sg3cli.evaluation.report_run import ReportRun
from sg3cli.evaluation.space_samples import images_of, read_samples
from sg3cli.latents.codes import Codes
from sg3cli.latents.spaces import S, Z
from sg3cli.levels import to_signed


def means(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return x.mean((2, 3)), x.mean((2, 3))


def test_codes_of_every_space_draw_the_image_whose_labels_they_have(tmp_path: Path) -> None:
    G, reading = tiny_generator(), FaceReading("means", ("red", "green", "blue"), np.ones(3), means)
    run = ReportRun(tmp_path / "r.json", "spaces", Console(quiet=True))
    found = read_samples(run, G, reading, 6, 1.0, None, 4)
    shapes = {"z": 32, "w": 32, "w+": 32 * G.num_ws, "s": sum(G.config.style_sizes.values())}
    assert {space: codes.shape for space, codes in found.codes.items()} == {s: (6, n) for s, n in shapes.items()}
    plus = found.codes["w+"].reshape(6, G.num_ws, -1)
    with torch.inference_mode():
        from_z = Z(torch.from_numpy(found.codes["z"])).to_w_plus(G).values.numpy()
        from_s = S(torch.from_numpy(found.codes["s"])).images(G).clamp(-1, 1).numpy().mean((2, 3))
    for space, ws in (("z", from_z), ("w", np.repeat(found.codes["w"][:, None], G.num_ws, 1)), ("w+", plus)):
        seen = to_signed(images_of(G, Codes(ws))).mean((1, 2))
        np.testing.assert_allclose(found.labels[space], seen, atol=2e-3)
    np.testing.assert_allclose(found.labels["s"], from_s, atol=2e-3)
    assert np.abs(found.labels["w+"] - found.labels["w"]).max() > 0.02  # other images
    assert np.ptp(plus, axis=1).min() > 0  # a code of its own for each layer
