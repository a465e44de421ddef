"""BlazeFace short-range face detector (Bazarevsky et al. 2019, arXiv:1907.05047), run by cv2.dnn.

The network sees 128x128 pixels and finds faces down to about an eighth of the image's longer side; smaller ones are
looked for in overlapping tiles of the frame.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from sg3cli.levels import to_signed

SIDE = 128
MIN_SCORE = 0.5
MIN_TILE_SCORE = 0.65  # tiles show many more things that are no face
MIN_TILE = 320  # pixels: faces of 40 pixels are an eighth of that
MISFIT = 1.25  # the finest tiles may be so many times larger before a level of their own is added
OVERLAP_IOU = 0.3  # boxes that overlap more are the same face
KEY_POINTS = 6  # right eye, left eye, nose, mouth, right ear, left ear


@dataclass(frozen=True)
class Detection:
    """A face as BlazeFace sees it, in frame pixels."""

    box: np.ndarray  # [4] float64, x0 y0 x1 y1
    points: np.ndarray  # [6, 2] float64
    score: float


class BlazeFace:
    """The detector network and its decoding."""

    def __init__(self, model: Path) -> None:
        # The default engine of OpenCV 5 prunes the second output.
        self.net = cv2.dnn.readNetFromTFLite(str(model), cv2.dnn.ENGINE_CLASSIC)
        self.anchors = anchors()

    def whole(self, rgb: np.ndarray) -> list[Detection]:
        """Faces that are large in the frame `[H, W, 3] uint8`, best first."""
        return suppress(self._detect_at(rgb, 0, 0, MIN_SCORE))

    def tiled(self, rgb: np.ndarray, levels: int | None = None) -> list[Detection]:
        """Faces of any size, best first: the whole frame, then tiles of 1/2, 1/4 ... of its longer side.

        `levels` limits how fine the tiles get; without it the search stops at the first level that finds a face.
        """
        found = self._detect_at(rgb, 0, 0, MIN_SCORE)
        for level, tiles in enumerate(tile_levels(*rgb.shape[:2])):
            if (levels is None and found) or (levels is not None and level >= levels):
                break
            for x, y, side in tiles:
                found += self._detect_at(rgb[y : y + side, x : x + side], x, y, MIN_TILE_SCORE)
        return suppress(found)

    def turned(self, rgb: np.ndarray) -> list[Detection]:
        """Faces that are large in the frame and upside down or on their side: those of the turn that shows one best."""
        found = []
        for turns in (1, 2, 3):
            image = np.ascontiguousarray(np.rot90(rgb, turns))
            seen = [d for d in self.whole(image) if d.score >= MIN_TILE_SCORE]
            found.append([turned_back(d, turns, rgb.shape[1], rgb.shape[0]) for d in seen])
        return max(found, key=lambda faces: max((face.score for face in faces), default=0.0))

    def _detect_at(self, rgb: np.ndarray, x: int, y: int, min_score: float) -> list[Detection]:
        """Raw detections in an image whose top left corner lies at (x, y) of the frame."""
        height, width = rgb.shape[:2]
        scale = SIDE / max(height, width)
        canvas, (left, top) = letterbox(rgb, scale)
        self.net.setInput(canvas)
        regressors, logits = self.net.forward(["regressors", "classificators"])
        scores = 1 / (1 + np.exp(-np.clip(logits.reshape(-1).astype(np.float64), -80, 80)))
        keep = np.flatnonzero(scores >= min_score)
        raw = regressors.reshape(-1, 16)[keep].astype(np.float64)
        centre = self.anchors[keep] * SIDE
        points = (raw[:, 4:].reshape(-1, KEY_POINTS, 2) + centre[:, None] - (left, top)) / scale + (x, y)
        centre = (centre + raw[:, 0:2] - (left, top)) / scale + (x, y)
        half = raw[:, 2:4] / 2 / scale
        boxes = np.concatenate([centre - half, centre + half], axis=1)
        return [Detection(b, p, float(s)) for b, p, s in zip(boxes, points, scores[keep], strict=True)]


def turned_back(detection: Detection, turns: int, width: int, height: int) -> Detection:
    """What was found in a frame (of this size) turned left by 90 degrees `turns` times, where it is in the frame."""

    def back(points: np.ndarray) -> np.ndarray:
        x, y = points[:, 0], points[:, 1]
        return np.stack(((width - y, x), (width - x, height - y), (y, height - x))[turns - 1], axis=1)

    corners = back(detection.box.reshape(2, 2))
    box = np.concatenate([corners.min(0), corners.max(0)])
    return Detection(box, back(detection.points), detection.score)


def anchors() -> np.ndarray:
    """Anchor centres `[896, 2]` in 0..1: a 16x16 grid with two each, then an 8x8 grid with six each."""
    grids = []
    for cells, each in ((16, 2), (8, 6)):
        line = (np.arange(cells) + 0.5) / cells
        grid = np.stack(np.meshgrid(line, line), axis=-1).reshape(-1, 2)
        grids.append(np.repeat(grid, each, axis=0))
    return np.concatenate(grids)


def letterbox(rgb: np.ndarray, scale: float) -> tuple[np.ndarray, tuple[int, int]]:
    """The image scaled and centred on a black 128x128 canvas, as network input `[1, 3, 128, 128]`; its offset."""
    height, width = (max(1, round(n * scale)) for n in rgb.shape[:2])
    small = cv2.resize(rgb, (width, height), interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
    left, top = (SIDE - width) // 2, (SIDE - height) // 2
    canvas = np.zeros((SIDE, SIDE, 3), np.float32)
    canvas[top : top + height, left : left + width] = small
    return to_signed(canvas).transpose(2, 0, 1)[None], (left, top)


def tile_levels(height: int, width: int) -> Iterator[list[tuple[int, int, int]]]:
    """Lists of square tiles (x, y, side), each level about half as large as the one before and overlapping by half."""
    sides = [max(1, max(height, width) // 2)]
    while sides[-1] // 2 >= MIN_TILE:
        sides.append(sides[-1] // 2)
    if sides[-1] > MISFIT * MIN_TILE:  # 1920 pixels: 960, 480, and 320, or faces below 60 pixels would be missed
        sides.append(MIN_TILE)
    for side in sides:
        xs, ys = (_starts(length, side) for length in (width, height))
        yield [(x, y, side) for y in ys for x in xs]


def _starts(length: int, side: int) -> list[int]:
    """Where tiles of `side` start along `length`, at most half a tile apart, the last one flush with the end."""
    if length <= side:
        return [0]
    count = -(-2 * (length - side) // side) + 1
    return [round(k * (length - side) / (count - 1)) for k in range(count)]


def suppress(found: list[Detection]) -> list[Detection]:
    """Weighted non-maximum suppression: overlapping detections are averaged by score, the best score stays."""
    rest, kept = sorted(found, key=lambda d: -d.score), []
    while rest:
        best = rest[0]
        same = [d for d in rest if iou(best.box, d.box) > OVERLAP_IOU]
        rest = [d for d in rest if iou(best.box, d.box) <= OVERLAP_IOU]
        weights = np.array([d.score for d in same])
        weights /= weights.sum()
        box = np.tensordot(weights, [d.box for d in same], 1)
        points = np.tensordot(weights, [d.points for d in same], 1)
        kept.append(Detection(box, points, best.score))
    return kept


def iou(a: np.ndarray, b: np.ndarray) -> float:
    """Intersection over union of two boxes `[4]` (x0 y0 x1 y1)."""
    size = np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2])
    common = float(np.prod(np.maximum(size, 0)))
    union = float(np.prod(a[2:] - a[:2]) + np.prod(b[2:] - b[:2])) - common
    return common / union if union > 0 else 0.0
