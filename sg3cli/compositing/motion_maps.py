"""What an edit does to a face, told from its two drawings alone: motion, light, and what is new.

Each place takes what explains it best. Where the drawing moved, the source moves with it, as flow sees it, around the
mouth the face mesh, and where a head turns as a solid thing does (`compositing.turning`); what then differs widely is
light and colour, which the source takes as a factor; what differs finely is added; and where edges are left over that
neither explains, something is new there and the drawing itself is shown. Where the drawing loses its finest structure,
the source loses what is finer still.
"""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np

from sg3cli.compositing.channels import mean
from sg3cli.compositing.mouth_motion import Points, with_mouth
from sg3cli.compositing.optical_flow import GRID, Shape, at_grid, motion_between
from sg3cli.compositing.transfer import Transfer, read_moved
from sg3cli.compositing.turning import FLOW, INSET, told, turn_between
from sg3cli.compositing.wide_blur import wide_blur

DARK = 4.0  # levels added before a ratio
LIGHT = 2.5  # pixels of the grid: a change wider than this is light
WIDE = 12.0  # pixels: a change wider than this is light before anything is looked for that moved
LARGEST = 0.9  # logarithm of the largest factor
PATCH = 2.0  # pixels over which one place is judged
GAINED = 1.0  # level by which motion must explain more than standing still to count in full
BULK = (0.2, 0.4)  # of what is left over all around, what motion must explain to count, and to count in full
REGION = 6.0  # pixels all around
NOISE = 2.0  # levels that two drawings of one thing may differ by
FOLDED = (0.1, 0.4)  # area that is left of a pixel: from here down nothing moves; below this less
FINEST = 1.5  # pixels: the finest structure that a drawing has
SOFTER = (0.15, 0.45)  # share of its structure that a drawing may lose to softness alone; that counts in full
LOST = 0.7  # of the source's fine structure at most
NOVEL = (10.0, 28.0)  # levels of edges left over: from here on something new; in full


def motion_maps(
    plain: np.ndarray,
    edited: np.ndarray,
    shape: Shape = (GRID, GRID),
    points: Points | None = None,
    source: np.ndarray | None = None,
) -> Transfer:
    """The maps of `shape` from the drawings `[N, M, 3]` uint8 of one window, and the face mesh of both in pixels of the
    grid; they change nothing where these agree. `source [H, W, 3]`: what the window shows of the frame, levels."""
    p, q = (at_grid(image, shape).astype(np.float32) for image in (plain, edited))
    if points is None or (turn := turn_between(points)) is None:
        return maps_of(p, q, motion_seen(p, q, points))
    lit_on, flow = (told(turn, source, p, points, inset) for inset in (INSET, FLOW))
    maps = maps_of(p, q, motion_seen(p, q, points, turn.motion(shape), flow)).lit_on(lit_on)
    return replace(maps, new=np.maximum(maps.new, turn.exposed(shape)[..., None]))


def motion_seen(
    plain: np.ndarray,
    edited: np.ndarray,
    points: Points | None = None,
    begun: np.ndarray | None = None,
    counts: np.ndarray | None = None,
) -> np.ndarray:
    """Motion `[h, w, 2]` between drawings `[h, w, 3]`, as flow sees it, and around the mouth the face mesh.

    `begun [h, w, 2]`: what moves whatever flow says; `counts [h, w]`: how far it is asked beyond that.
    """
    shape = (plain.shape[0], plain.shape[1])
    begun = np.zeros((*shape, 2), np.float32) if begun is None else smooth_where_folded(begun)
    motion = _partly(begun, further_motion(plain, edited, begun), counts)
    if points is not None:
        motion = _partly(motion, further_motion(plain, edited, with_mouth(motion, points)), counts)
        motion = begun + unfolded(motion)[..., None] * (motion - begun)
    return motion


def smooth_where_folded(motion: np.ndarray) -> np.ndarray:
    """`motion [h, w, 2]` as that of its surroundings where it would fold the picture."""
    result: np.ndarray = motion + (1 - unfolded(motion)[..., None]) * (_around(motion, REGION) - motion)
    return result


def _partly(motion: np.ndarray, further: np.ndarray, share: np.ndarray | None) -> np.ndarray:
    return further if share is None else motion + share[..., None] * (further - motion)


def maps_of(p: np.ndarray, q: np.ndarray, motion: np.ndarray) -> Transfer:
    """What drawings `[h, w, 3]` tell beside their `motion [h, w, 2]`."""
    shape = (p.shape[0], p.shape[1])
    moved = read_moved(p, motion, GRID).clip(0, 255)
    gain = light(moved, q)
    new = novelty(q - (1 + gain) * moved)[..., None]
    return Transfer(
        motion=motion,
        follows=np.zeros((*shape, 2), np.float32),
        gain=gain,
        added=np.ones((*shape, 1), np.float32),
        new=new,
        residual=np.zeros((*shape, 3), np.float32),
        texture=lost_texture((1 + gain) * moved, q)[..., None],
        side=GRID,
    )


def further_motion(plain: np.ndarray, edited: np.ndarray, motion: np.ndarray) -> np.ndarray:
    """`motion [h, w, 2]` with what flow finds beyond it between drawings `[h, w, 3]`, where that explains more."""
    shape = motion.shape[:2]
    begun = read_moved(plain, motion, GRID).clip(0, 255)
    rest = motion_between(np.rint(lit(begun, edited)).astype(np.uint8), edited.astype(np.uint8), shape)
    whole = rest + read_moved(motion, rest, GRID, cv2.INTER_LINEAR)
    share = explained(begun, edited, read_moved(plain, whole, GRID).clip(0, 255)) * unfolded(rest)
    result: np.ndarray = motion + share[..., None] * (whole - motion)
    return result


def explained(plain: np.ndarray, edited: np.ndarray, moved: np.ndarray) -> np.ndarray:
    """0..1 `[n, n]`: how far the motion that leads to `moved` tells more of the edit than light alone does.

    Much more, and most of all there is: a beard or a rim that comes is a little like what lies beside it, and pulling
    that along explains some of it. What does move, moves with all that is around.
    """
    left = [mean(np.abs(edited - lit(image, edited))) for image in (plain, moved)]
    still, after = (_around(error) for error in left)
    share = np.clip((still - after - NOISE / 4) / GAINED, 0, 1)
    still, after = (_around(error, REGION) for error in left)
    share *= np.clip((1 - after / (still + 1e-3) - BULK[0]) / (BULK[1] - BULK[0]), 0, 1)
    return _around(cv2.dilate(share, np.ones((5, 5), np.uint8)), 2 * PATCH)


def unfolded(motion: np.ndarray) -> np.ndarray:
    """0..1 `[n, n]`: 0 where `motion [n, n, 2]` (in shares of the side) folds the picture or draws it out to a thread,
    which would tear it."""
    place = motion * np.float32(GRID)
    (dxx, dxy), (dyx, dyy) = (np.gradient(place[..., k], axis=(1, 0)) for k in (0, 1))
    area = (1 + dxx) * (1 + dyy) - dxy * dyx  # of a pixel, where it is read
    whole = np.clip((area - FOLDED[0]) / (FOLDED[1] - FOLDED[0]), 0, 1).astype(np.float32)
    return _around(cv2.erode(whole, np.ones((3, 3), np.uint8)))


def lit(image: np.ndarray, like: np.ndarray) -> np.ndarray:
    """`image [n, n, 3]` in the light of another, by and large."""
    result: np.ndarray = ((1 + light(image, like, WIDE)) * image).clip(0, 255)
    return result


def light(moved: np.ndarray, edited: np.ndarray, width: float = LIGHT) -> np.ndarray:
    """The factor less 1 `[n, n, 3]` by which light and colour change over an area."""
    wide = [np.log(wide_blur(image, width) + DARK) for image in (edited, moved)]
    result: np.ndarray = np.expm1(np.clip(wide[0] - wide[1], -LARGEST, LARGEST))
    return result


def novelty(left: np.ndarray) -> np.ndarray:
    """0..1 `[n, n]`: where edges `[n, n, 3]` (levels) are left over after motion and light."""
    edges = _fine(left)
    energy = np.sqrt(_around(mean(edges * edges)))
    share = np.clip((energy - NOVEL[0]) / (NOVEL[1] - NOVEL[0]), 0, 1)
    return _around(share)


def lost_texture(moved: np.ndarray, edited: np.ndarray) -> np.ndarray:
    """-1..0 `[n, n]`: the share of its finest structure that a drawing loses, and the source with it.

    What the drawing gains in structure is added with it; a source cannot make up what it does not have.
    """
    before, after = (cv2.GaussianBlur(mean(_finest(i) ** 2), (0, 0), 2 * PATCH) for i in (moved, edited))
    share: np.ndarray = np.sqrt((after + NOISE**2) / (before + NOISE**2)) - 1
    sure = np.clip((-share - SOFTER[0]) / (SOFTER[1] - SOFTER[0]), 0, 1)
    result: np.ndarray = (sure * share).clip(-LOST, 0)
    return result


def _finest(image: np.ndarray) -> np.ndarray:
    result: np.ndarray = image - cv2.GaussianBlur(image, (0, 0), FINEST)
    return result


def _fine(image: np.ndarray) -> np.ndarray:
    result: np.ndarray = image - cv2.GaussianBlur(image, (0, 0), 2 * LIGHT)
    return result


def _around(values: np.ndarray, sigma: float = PATCH) -> np.ndarray:
    result: np.ndarray = cv2.GaussianBlur(values, (0, 0), sigma)
    return result
