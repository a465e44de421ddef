"""One pass over a source and an edited video: what is read off each pair of frames. Images are not kept.

Faces are looked for in every frame; networks and motion look at every `every`-th frame and the one before it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import cv2
import numpy as np
import torch

from sg3cli.compositing.face_mask import face_mask, landmarks_in_window
from sg3cli.compositing.paste import warp_alpha
from sg3cli.evaluation.face_reading import FaceReading
from sg3cli.evaluation.paired_frames import FaceFollower, Pair
from sg3cli.faces.alignment import Track
from sg3cli.faces.identity_embedding import Embedder
from sg3cli.geometry import ffhq_quad, warp_quad
from sg3cli.levels import to_signed
from sg3cli.metrics.frechet import FaceFeatures
from sg3cli.metrics.perceptual import PerceptualLoss
from sg3cli.metrics.sharpness import frame_flow, sharpness, unrest
from sg3cli.metrics.temporal import seam_error
from sg3cli.metrics.warping import visible, warping_error
from sg3cli.video.shot_detection import thumbnail

SMALLEST, LARGEST = 96, 256  # pixels of a side of the crops that are compared
READ = 128  # pixels of a side of what the face networks read
FEATHER = 0.1  # of the crop: where the seam of a paste is looked for
CODED = 8  # levels: more is not what an encoder does to a pixel
STILL = 0.1  # of the source's change: a frame that changes less is frozen
MOVES = 0.5  # levels: a source that changes less stands still itself


@dataclass(frozen=True)
class Judges:
    """The networks that judge. `reading` or `embedder` tells who a face is; `reading` alone has labels."""

    perceptual: PerceptualLoss
    features: FaceFeatures
    reading: FaceReading | None
    embedder: Embedder
    identity: str  # name of the one that says who it is: of the reading, or of the embedder
    by_reading: bool = False  # whether it is the reading


@dataclass
class Seen:
    """What was read, as rows. Pairs are (source, edited)."""

    times: list[float] = field(default_factory=list)  # of every frame
    thumbs: list[np.ndarray] = field(default_factory=list)  # [9, 16, 3] of the source, every frame
    landmarks: list[tuple[np.ndarray, np.ndarray]] = field(default_factory=list)  # [68, 2] each, nan where unseen
    judged: list[int] = field(default_factory=list)  # frames that show the face
    read: list[int] = field(default_factory=list)  # those whose edited face was found as well
    distance: list[float] = field(default_factory=list)
    sharp: list[tuple[float, float]] = field(default_factory=list)
    seam: list[float] = field(default_factory=list)
    outside: list[tuple[float, int, float]] = field(default_factory=list)  # mean, largest, share beyond CODED
    features: list[np.ndarray] = field(default_factory=list)  # [2, K]
    identity: list[np.ndarray] = field(default_factory=list)  # [2, E], at `read`
    labels: list[np.ndarray] = field(default_factory=list)  # [K] edited minus source, at `read`
    steps: list[tuple[int, Step]] = field(default_factory=list)  # by their second frame


@dataclass(frozen=True)
class Step:
    """From one frame to the next. Pairs are (source, edited)."""

    distance: tuple[float, float]  # perceptual
    change: tuple[float, float]  # mean, levels
    warping: tuple[float, float]
    unrest: tuple[float, float]  # levels

    @property
    def frozen(self) -> bool:
        """Whether the edited video stands still while the source moves."""
        return self.change[0] > MOVES and self.change[1] < STILL * self.change[0]


class VideoPass:
    """Takes pairs of frames in order."""

    def __init__(self, judges: Judges, follower: FaceFollower, every: int = 1, track: Track | None = None) -> None:
        self.seen = Seen()
        self._judges, self._follower, self._every, self._track = judges, follower, every, track
        self._before: Pair | None = None
        self._side = 0

    def over(self, pairs: Iterable[Pair]) -> Seen:
        """All of them."""
        for pair in pairs:
            self.take(pair)
        return self.seen

    def take(self, pair: Pair) -> None:
        """The next pair."""
        index = len(self.seen.times)
        known = self._track.landmarks[index] if self._track is not None and index < len(self._track) else None
        source, edited = self._follower.update(pair, known)
        nowhere = np.full((68, 2), np.nan)
        self.seen.times.append(pair.source.time)
        self.seen.thumbs.append(thumbnail(pair.source.rgb))
        self.seen.landmarks.append(
            (nowhere if source is None else source.astype(float), nowhere if edited is None else edited.astype(float))
        )
        if source is not None and index % self._every == 0:
            quad = ffhq_quad(source)
            self._side = self._side or int(np.clip(round(np.linalg.norm(quad[3] - quad[0])), SMALLEST, LARGEST))
            window = self._track.windows[index] if self._track is not None and known is not None else quad
            self._judge(index, pair, quad, window, source)
            if edited is not None:
                self._read(index, pair, source, edited)
        self._before = pair

    def _crops(self, pair: Pair, quad: np.ndarray) -> list[np.ndarray]:
        """Source and edited face through the source's square, `[N, N, 3]` uint8."""
        crops = [warp_quad(frame.rgb, quad, self._side) for frame in (pair.source, pair.edited)]
        return [crop.round().clip(0, 255).astype(np.uint8) for crop in crops]

    def _judge(self, index: int, pair: Pair, quad: np.ndarray, window: np.ndarray, source: np.ndarray) -> None:
        seen = self.seen
        crops = self._crops(pair, quad)
        points = landmarks_in_window(source, quad, self._side)
        mask = face_mask(points, self._side, 0.02)
        seen.judged.append(index)
        seen.sharp.append((sharpness(crops[0], mask), sharpness(crops[1], mask)))
        seen.seam.append(seam_error(crops[0], crops[1], face_mask(points, self._side, FEATHER)))
        seen.outside.append(outside(pair, window))
        small = [cv2.resize(crop, (READ, READ), interpolation=cv2.INTER_AREA) for crop in crops]
        seen.features.append(self._judges.features([signed([crop]) for crop in small]))  # one by one: equal for equal
        compared = [(crops[0], crops[1])]
        if self._before is not None:
            before = self._crops(self._before, quad)
            compared += list(zip(before, crops, strict=True))
        with torch.inference_mode():
            firsts, seconds = (signed(list(images)) for images in zip(*compared, strict=True))
            distances = [float(value) for value in self._judges.perceptual(firsts, seconds)]
        seen.distance.append(distances[0])
        if self._before is not None:
            seen.steps.append((index, step(before, crops, mask, (distances[1], distances[2]))))

    def _read(self, index: int, pair: Pair, source: np.ndarray, edited: np.ndarray) -> None:
        """Who the faces are, each in its own square, and what the network reads of them."""
        judges, seen = self._judges, self.seen
        seen.read.append(index)
        both = ((pair.source.rgb, source), (pair.edited.rgb, edited))
        readings = None
        if judges.reading is not None:
            crops = [warp_quad(rgb, ffhq_quad(points), READ) for rgb, points in both]
            levels = [crop.round().clip(0, 255).astype(np.uint8) for crop in crops]
            readings = [judges.reading.read([crop]) for crop in levels]  # one by one: equal for equal images
            seen.labels.append(readings[1].labels[0] - readings[0].labels[0])
        if readings is not None and judges.by_reading:
            seen.identity.append(np.array([each.embedding[0] for each in readings]))
        else:
            seen.identity.append(np.array([judges.embedder.vector(rgb, points) for rgb, points in both], np.float64))


def step(before: list[np.ndarray], after: list[np.ndarray], mask: np.ndarray, distance: tuple[float, float]) -> Step:
    """Between crops (source, edited) of two frames through one square; the motion is the source's."""
    flow = frame_flow(before[0], after[0])
    clear = visible(flow, frame_flow(after[0], before[0]))
    rows = [
        (
            float(np.abs(b.astype(np.float32) - a).mean()),
            warping_error(a, b, flow, clear),
            unrest(a, b, flow, mask),
        )
        for a, b in zip(before, after, strict=True)
    ]
    change, warping, restless = zip(*rows, strict=True)
    return Step(distance, (change[0], change[1]), (warping[0], warping[1]), (restless[0], restless[1]))


def outside(pair: Pair, window: np.ndarray) -> tuple[float, int, float]:
    """Beyond `window [4, 2]`: mean and largest difference in levels, and the share of pixels that coding cannot have
    changed so much; zeros where it covers the frame."""
    source, edited = pair.source.rgb, pair.edited.rgb
    beyond = warp_alpha(np.ones((64, 64), np.float32), window, source.shape[:2]) == 0
    if not beyond.any():
        return 0.0, 0, 0.0
    apart = cv2.absdiff(source, edited)[beyond].max(axis=1)
    return float(apart.mean()), int(apart.max()), float((apart > CODED).mean())


def signed(images: list[np.ndarray]) -> torch.Tensor:
    """Crops `[N, N, 3]` uint8 -> `[n, 3, N, N]` in [-1, 1]."""
    return torch.from_numpy(to_signed(np.stack(images))).permute(0, 3, 1, 2).contiguous()
