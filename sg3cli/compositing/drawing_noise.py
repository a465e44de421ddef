"""What of a drawn change is the drawing's own noise: the finest of it, where it does not show the source's finest.

A model that draws other pores and lashes than a face has changes them with every edit, at random: brought over, that is
dirt. One that is sharp and right about the source is believed to the pixel.
"""

from __future__ import annotations

import cv2
import numpy as np

from sg3cli.compositing.channels import total
from sg3cli.compositing.face_mask import smoothstep
from sg3cli.compositing.optical_flow import at_grid
from sg3cli.compositing.transfer import Transfer, read_moved, sized
from sg3cli.compositing.wide_blur import wide_blur

FINEST = 0.8  # pixels of the grid: what is finer is judged
REGION = 10.0  # pixels over which a drawing is judged
LEVEL = 1.0  # squared levels of structure, over the three colours, that are none
RIGHT = (0.65, 0.95)  # share of a drawing's finest structure that the source has there: from here on it counts; in full


def without_noise(source: np.ndarray, plain: np.ndarray, edited: np.ndarray, maps: Transfer) -> np.ndarray:
    """The drawing `edited [N, M, 3]` (levels), float32, without the finest of what it changes where `plain`, the one
    without the edit, is not right about the finest of `source [H, W, 3]` (levels), seen through the same window.

    `maps`: what motion and light explain, and is no noise.
    """
    shape, size = (maps.motion.shape[0], maps.motion.shape[1]), (plain.shape[0], plain.shape[1])
    own, drawn = (_finest(at_grid(image, shape).astype(np.float32), FINEST) for image in (source, plain))
    share = right(own, drawn)[..., None]
    explained = (1 + sized(maps.gain, size)) * read_moved(plain, maps.motion, maps.side)
    noise = _finest(edited.astype(np.float32) - explained, FINEST * size[0] / shape[0])
    result: np.ndarray = edited - (1 - sized(share, size)) * noise
    return result


def right(own: np.ndarray, drawn: np.ndarray) -> np.ndarray:
    """0..1 `[h, w]`: how far a drawing is believed whose finest structure is `drawn`, where the source has its `own`
    `[h, w, 3]`: by the factor for the drawn one that comes nearest to the other, in least squares over a region."""
    both, square = (wide_blur(total(drawn * image), REGION) for image in (own, drawn))
    return smoothstep(((both + LEVEL) / (square + LEVEL) - RIGHT[0]) / (RIGHT[1] - RIGHT[0])).astype(np.float32)


def _finest(image: np.ndarray, sigma: float) -> np.ndarray:
    result: np.ndarray = image - cv2.GaussianBlur(image, (0, 0), sigma)
    return result
