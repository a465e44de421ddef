"""Lines on a forehead, uneven as a person's are.

The network learned them from renders, where everybody has the same ones: as many, as deep, from temple to temple. On a
smooth forehead they looked put on. Real ones are broken, one is deep and the next is not, and nobody's are another's:

    A' = area + (LINES + d(x)) fine(x + v(x))        A: what a network adds; area, fine: its wide and its narrow part

d and v, how much deeper a line is at x and what it is bent by, are smooth fields that a person's code chooses: the same
in all frames, and nearly the same in another clip of the person.
"""

from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np

from sg3cli.compositing.channels import total

AREA = 4.0  # pixels over which it is judged whether lines are added or taken
FINE = 6.0  # pixels: what is narrower is a line
FOREHEAD = (0.33, 0.40)  # of the window's height: all forehead above, none of it below
WHOLE = 1.1  # what takes away nine tenths of a line counts as taking it
LINES = 0.3  # share of new lines that is shown there by and large: on smooth skin more look painted
DEEPER, DEEPEST = 0.35, 0.7  # deviation of that share in a person, and its limit
BENT = 2.5  # pixels of 256 by which they are bent, as a deviation
FIELDS = 12  # that are mixed
ALONG, ACROSS = 22.0, 4.5  # pixels of 256: over which a line's depth changes
WIDE, HIGH = 26.0, 14.0  # over which its course does
APART = 9.0  # radians between the codes of people who are as unlike as codes can be, over about 5


def character(code: np.ndarray) -> np.ndarray:
    """`[FIELDS]`: how much of each field is mixed in for who has the `code [w_dim]`; alike for codes that are."""
    rng = np.random.default_rng(1)
    towards, phase = rng.standard_normal((len(code), FIELDS)), rng.uniform(0, 2 * np.pi, FIELDS)
    unit = code.astype(np.float64) / max(float(np.linalg.norm(code)), 1e-6)
    result: np.ndarray = np.sqrt(2 / FIELDS) * np.cos(phase + APART * unit @ towards)
    return result.astype(np.float32)


def on_forehead(added: np.ndarray, base: np.ndarray, person: np.ndarray | None = None) -> np.ndarray:
    """What is `added [H, W, 3]` (levels) to a picture `base`, fainter where it puts lines on a forehead, and uneven as
    those of a `person` are (`character`); None: even.

    What takes lines away that are there, as for somebody younger, counts in full.
    """
    whole, rows = added, int(np.ceil(FOREHEAD[1] * len(added) + 6 * AREA))
    added, base = added[:rows], base[:rows].astype(np.float32)
    own = base - cv2.GaussianBlur(base, (0, 0), 2 * AREA)
    both, square = (cv2.GaussianBlur(total(added * other), (0, 0), AREA) for other in (own, added))
    taken = np.clip(-WHOLE * both / (square + 1.0), 0, 1)
    height = (np.arange(len(added), dtype=np.float32) + 0.5) / len(whole)
    forehead = np.clip((FOREHEAD[1] - height) / (FOREHEAD[1] - FOREHEAD[0]), 0, 1)[:, None]
    shown = LINES * added if person is None else uneven(added, forehead, person)
    result = whole.copy()
    result[:rows] += (forehead * (1 - taken))[..., None] * (shown - added)
    return result


def uneven(added: np.ndarray, where: np.ndarray, person: np.ndarray) -> np.ndarray:
    """What is `added [H, W, 3]` with its lines as a `person` has them; bent no further than `where [H, 1]` is 1."""
    area = cv2.GaussianBlur(added, (0, 0), FINE)
    depth, course = mixed(person.tobytes(), added.shape[:2])
    y, x = np.indices(added.shape[:2], np.float32)
    fine = cv2.remap(added - area, x, y + where * course, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    result: np.ndarray = area + np.clip(LINES + DEEPER * depth, 0, DEEPEST)[..., None] * fine
    return result


@lru_cache(maxsize=4)
def mixed(person: bytes, shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Depth `[H, W]` (deviation 1 or so) and course (pixels) of the fields that a `person [FIELDS]` float32 mixes."""
    share, scale = np.frombuffer(person, np.float32), shape[1] / 256
    depth, course = (
        np.tensordot(share, fields(shape, seed, (scale * a, scale * b)), 1)
        for seed, a, b in ((2, ALONG, ACROSS), (3, WIDE, HIGH))
    )
    return depth, BENT * scale * course


def fields(shape: tuple[int, int], seed: int, over: tuple[float, float]) -> np.ndarray:
    """`[FIELDS, H, W]` float32 of deviation 1, smooth `over` so many pixels from left to right and up and down."""
    rng = np.random.default_rng(seed)
    noise = rng.standard_normal((FIELDS, *shape)).astype(np.float32)
    smooth = np.stack([cv2.GaussianBlur(field, (0, 0), over[0], sigmaY=over[1]) for field in noise])
    result: np.ndarray = smooth / smooth.std(axis=(1, 2), keepdims=True)
    return result
