"""Back into the frame: a paste that leaves every pixel outside the mask as it was.

The face is seen through a window `[4, 2]` (corners TL, BL, BR, TR in frame pixels): a square, or a rectangle where the
field of view is expanded. All coordinates are continuous: the centre of pixel (row i, column j) is at
(j + 0.5, i + 0.5).
"""

from __future__ import annotations

import cv2
import numpy as np

from sg3cli.compositing.channels import scaled
from sg3cli.compositing.skin import with_structure
from sg3cli.compositing.transfer import Transfer, applied, extent, moved_frame, pixels_of
from sg3cli.geometry import quad_matrix

# What counts as a change of shape, for which the source's fine detail is in the wrong place:
SHAPE_FINE = 1 / 40  # share of the crop: changes wider than this are shading or colour, not edges that moved
SHAPE_LEVELS = 20.0  # levels (of 255) of moved edges at which about a third of the detail is left

MOST_ZOOM = 6  # samples of an enlarged crop for one of its pixels: between so many, straight lines are near enough

# The membrane of the gradient blend:
RIM = 0.9  # opacity at which the colours around are taken: near the face's outline, where there is skin
COARSEST = 8  # pixels of the smaller side at which it is not made coarser
SWEEPS = 5000  # relaxations of a level times the pixels of its smaller side
LEAST_SWEEPS, MOST_SWEEPS = 8, 200
DAMPING = 0.8  # of the relaxation: without it, checkerboards stay


def warp_alpha(alpha: np.ndarray, window: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Opacity `[N, N]` of the crop as opacity `[H, W]` of the frame of `shape`, 0 outside the window."""
    result = np.zeros(shape, dtype=np.float32)
    box = _bounding_box(window, shape)
    if box is not None:
        result[box] = _warp(alpha, window, box)
    return result


def kept_detail(edited: np.ndarray, plain: np.ndarray) -> np.ndarray:
    """Share `[N, N]` float32, 0..1, of the source's fine detail that still fits the edited crop.

    `edited`, `plain` `[N, N, 3]` are the generator's face with and without the edit. Where the two differ by edges
    (a mouth that opens) detail would show as a ghost of the source; where they differ by nothing, or by shading and
    colour only, it belongs to the face.
    """
    change = (edited.astype(np.float32) - plain.astype(np.float32)).mean(axis=2)
    sigma = SHAPE_FINE * len(change)
    edges = change - cv2.GaussianBlur(change, (0, 0), sigma)
    energy = cv2.GaussianBlur(edges * edges, (0, 0), sigma)
    result: np.ndarray = np.exp(-energy / SHAPE_LEVELS**2)
    return result


def paste(
    frame: np.ndarray,
    crop: np.ndarray,
    window: np.ndarray,
    alpha: np.ndarray,
    match_ring: float = 0.0,
    plain: np.ndarray | None = None,
    detail: float = 1.0,
    visible: np.ndarray | None = None,
    user_mask: np.ndarray | None = None,
    blend: str = "alpha",
    transfer: Transfer | None = None,
) -> np.ndarray:
    """Blend `crop [N, M, 3]` (levels 0..255) over `frame [H, W, 3]` uint8 through `window [4, 2]`.

    `alpha [N, M]` is the crop's opacity, `visible [n, m]` what of it may change (seen through the same window),
    `user_mask [H, W]` what may change of the frame. A pixel where their product is 0 keeps its bits. `match_ring` first
    shifts the crop's colours by that share of their mean difference from the frame on the soft edge; `blend` "gradient"
    takes the difference all around the mask and spreads it over the inside.

    With `plain [N, M, 3]`, the generator's face without the edit, what the generator could not draw of the frame
    (skin, teeth, single hairs, a hand before the face) is put back: `crop + detail * kept * (frame - plain)`. An edit
    that changes nothing then gives the frame itself.

    With `transfer` as well, the frame's own pixels follow the edit (`compositing.transfer`): inside the mask in all of
    it, around it in its motion alone.
    """
    result = frame.copy()
    box = _bounding_box(window, frame.shape[:2])
    if box is None:
        return result
    seam = _warp(alpha, window, box)
    mixed = frame[box].astype(np.float32)
    if plain is not None and transfer is not None and detail > 0:
        mixed = moved_frame(frame, window, box, transfer, lambda values: _image(values, window, box))
    if (part := extent(seam > 0)) is not None:
        inner = _inside(box, part)
        below, seam = mixed[part], seam[part]
        image = _over(below, crop, window, inner, plain, detail, transfer)
        if match_ring:
            image += match_ring * _ring_difference(below, image, seam[..., None])
        seen = np.float32(1) if visible is None else _warp(visible, window, inner)
        if blend == "gradient":  # hair and hands at the edge do not say what colour the face should have
            image += membrane(below - image, (seam > RIM) | (seen < 0.5))
        mixed[part] = below + scaled(image - below, seam * seen)
    if user_mask is not None:
        mixed = frame[box] + user_mask[box][..., None] * (mixed - frame[box])
    result[box] = np.rint(np.clip(mixed, 0, 255)).astype(np.uint8)
    return result


def _over(
    below: np.ndarray,
    crop: np.ndarray,
    window: np.ndarray,
    box: tuple[slice, slice],
    plain: np.ndarray | None,
    detail: float,
    transfer: Transfer | None,
) -> np.ndarray:
    """The crop at the frame's pixels in `box`, float32, with what it does not draw of those `below [h, w, 3]`, which
    moved if there is a `transfer`; the rest as `paste` has it."""

    def warp(values: np.ndarray) -> np.ndarray:
        return _image(values, window, box)

    if plain is None or detail == 0:
        return warp(crop)
    if transfer is None:
        lost, base = 1 - detail * kept_detail(crop, plain), warp(plain)
        result: np.ndarray = below + (warp(crop) - base) + scaled(base - below, warp(lost))
        return result
    result = applied(below, plain, crop, transfer, warp)
    if detail != 1:
        result = detail * result + (1 - detail) * warp(crop)
    if transfer.skin is None:
        return result
    return with_structure(result, warp(transfer.skin), pixels_of(window, transfer.skin.shape))


def membrane(values: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """`values [H, W, C]` with those at `inside [H, W]` bool replaced by the smoothest continuation of the others.

    The solution of Laplace's equation with the values around as its border (Perez et al. 2003, equation 4), by
    multigrid from coarse to fine; free at the array's own border, 0 where nothing is given.
    """
    known = ~inside[..., None]
    if not known.any():
        return np.zeros_like(values)
    height, width = inside.shape
    given = np.where(known, values, 0)
    if min(height, width) <= COARSEST:
        start = np.broadcast_to(given.sum(axis=(0, 1)) / known.sum(), values.shape)
    else:
        half = (-(-width // 2), -(-height // 2))
        share = cv2.resize(known[..., 0].astype(np.float32), half, interpolation=cv2.INTER_AREA)[..., None]
        coarse = cv2.resize(given.astype(np.float32), half, interpolation=cv2.INTER_AREA) / np.maximum(share, 1e-6)
        start = cv2.resize(membrane(coarse, share[..., 0] < 1e-3), (width, height), interpolation=cv2.INTER_LINEAR)
    result = np.where(known, values, start).astype(np.float32)
    around = np.array([[0, 1, 0], [1, 0, 1], [0, 1, 0]], np.float32) / 4
    for _ in range(int(np.clip(SWEEPS / min(height, width), LEAST_SWEEPS, MOST_SWEEPS))):
        mean = cv2.filter2D(result, -1, around, borderType=cv2.BORDER_REPLICATE)
        result = np.where(known, values, result + DAMPING * (mean - result)).astype(np.float32)
    return result


def _ring_difference(below: np.ndarray, image: np.ndarray, opacity: np.ndarray) -> np.ndarray:
    """Mean colour difference `[3]` where the opacity `[h, w, 1]` is between 0 and 1."""
    weight = opacity * (1 - opacity)
    result: np.ndarray = (weight * (below - image)).sum(axis=(0, 1)) / max(float(weight.sum()), 1e-6)
    return result


def _bounding_box(window: np.ndarray, shape: tuple[int, ...]) -> tuple[slice, slice] | None:
    """Rows and columns of the frame that the window touches, and one more around; None when it lies outside."""
    low = (np.floor(window.min(axis=0)) - 1).clip(min=0).astype(int)
    high = np.minimum(np.ceil(window.max(axis=0)).astype(int) + 1, [shape[1], shape[0]])
    if (high <= low).any():
        return None
    return slice(low[1], high[1]), slice(low[0], high[0])


def _inside(box: tuple[slice, slice], part: tuple[slice, slice]) -> tuple[slice, slice]:
    """Rows and columns of the frame for a `part` of those in `box`."""
    rows, columns = (slice(own.start + of.start, own.start + of.stop) for own, of in zip(box, part, strict=True))
    return rows, columns


def _image(crop: np.ndarray, window: np.ndarray, box: tuple[slice, slice]) -> np.ndarray:
    """The crop at the frame's pixels in `box`, float32; beyond its edge it goes on as it is there."""
    return _warp(_prepared(crop, window), window, box, cv2.BORDER_REPLICATE)


def _prepared(crop: np.ndarray, window: np.ndarray) -> np.ndarray:
    """The crop in float32, fit to be read linearly: blurred where the frame has fewer pixels than the crop,
    enlarged by cubic interpolation to about two samples per frame pixel where it has more, or as many as matter.
    """
    height, width = crop.shape[:2]
    scale = float(np.linalg.norm(window[3] - window[0])) / width  # frame pixels per crop pixel
    image = crop.astype(np.float32)
    if scale < 1:
        sigma = 0.5 * float(np.sqrt(scale**-2 - 1))
        image = cv2.GaussianBlur(image, (0, 0), max(sigma, 0.01), borderType=cv2.BORDER_REPLICATE)
    zoom = int(np.clip(np.ceil(2 * scale), 2, MOST_ZOOM)) if scale > 1 else 1
    if zoom > 1:
        image = cv2.resize(image, (zoom * width, zoom * height), interpolation=cv2.INTER_CUBIC)
    return image


def _warp(
    image: np.ndarray, window: np.ndarray, box: tuple[slice, slice], border: int = cv2.BORDER_CONSTANT
) -> np.ndarray:
    """Read `[N, M]` or `[N, M, 3]` seen through `window` at the frame's pixels in `box`; 0 outside by default."""
    rows, columns = box
    to_frame = quad_matrix(window, image.shape[:2])
    to_box = np.array([[1, 0, -columns.start], [0, 1, -rows.start], [0, 0, 1]]) @ to_frame
    half = np.array([[1, 0, 0.5], [0, 1, 0.5], [0, 0, 1]])  # cv2 puts pixel centres at whole numbers
    to_image = np.linalg.inv(half) @ np.linalg.inv(to_box) @ half
    extent = (columns.stop - columns.start, rows.stop - rows.start)
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    result: np.ndarray = cv2.warpAffine(image, to_image[:2], extent, flags=flags, borderMode=border)
    return result
