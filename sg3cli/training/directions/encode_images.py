"""Codes of aligned images in files, by the encoder of a model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch

from sg3cli.drawing.images import read_image
from sg3cli.errors import InputError
from sg3cli.levels import to_signed
from sg3cli.nets.encoder import Encoder
from sg3cli.nets.generator import Generator
from sg3cli.nets.restyle import average_image, restyle_codes


def encode_files(
    files: Sequence[Path], G: Generator, encoder: Encoder, batch: int, steps: int = 3
) -> Iterator[np.ndarray]:
    """Yield a code [num_ws, w_dim] float32 for each image. Raises InputError for one that is not square."""
    size = encoder.config.input_size
    average = average_image(G, size)
    for start in range(0, len(files), batch):
        x = np.stack([read_aligned(path, size) for path in files[start : start + batch]])
        with torch.inference_mode():
            yield from restyle_codes(encoder, G, torch.from_numpy(x).to(average), steps, average).cpu().numpy()


def read_aligned(path: Path, size: int) -> np.ndarray:
    """[3, size, size] float32 in [-1, 1]. Raises InputError for a picture that is not square."""
    import cv2

    rgb = read_image(path)
    if rgb.shape[0] != rgb.shape[1]:
        raise InputError(
            f"{path} is {rgb.shape[1]}x{rgb.shape[0]}, no aligned face", "sg3 train prepare aligns pictures"
        )
    small = cv2.resize(rgb, (size, size), interpolation=cv2.INTER_AREA if len(rgb) > size else cv2.INTER_LINEAR)
    return to_signed(small.transpose(2, 0, 1))
