"""How the edit of a face goes over to its frames, steadied over time: drawn a little ahead of the render.

Maps and drawings of single frames tremble with the source's noise. Each frame gets the local straight-line fit of
those around it, within its shot, without lag; what is added to the frame is a difference of drawings, and theirs was
most of the trembling. A reader of its own runs ahead of the render by as much as that needs, so that a few
frames are in memory; drawings are made in whole batches from the clip's first frame on, so that a run that is resumed,
or renders a part, has the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np

from sg3cli.compositing.map_maker import Drawn, MapMaker
from sg3cli.compositing.occlusion import stretches
from sg3cli.faces.alignment import ABSENT
from sg3cli.smoothing import REACH, line_weights
from sg3cli.video import Frame, VideoReader

if TYPE_CHECKING:
    from sg3cli.nets.generator import Generator
    from sg3cli.pipeline.face_crops import FaceEdits
    from sg3cli.pipeline.face_paster import FacePaster

SMOOTHING = 0.06  # seconds over which maps and drawings are steadied
FAR = 50  # frames that are decoded rather than sought past


@dataclass
class SteadyTransfers:
    """`at(frame)` for frames in ascending order; going back, or far ahead, starts anew there."""

    source: Callable[[], VideoReader]
    face: FaceEdits
    paster: FacePaster
    G: Generator
    seam: Generator | None  # draws the edited face in its place
    maker: MapMaker
    _made: dict[int, Drawn] = field(default_factory=dict)
    _frames: Iterator[Frame] | None = None
    _reader: VideoReader | None = None
    _next: int = 0

    def __post_init__(self) -> None:
        track = self.face.track
        self.numbers = stretches(track.status != ABSENT, track.shots)

    def at(self, index: int) -> Drawn:
        """Steadied drawings and maps of a frame that shows the face."""
        times = self.face.track.times
        reach = REACH * SMOOTHING + 1e-6
        begin, end = np.searchsorted(times, [times[index] - reach, times[index] + reach])
        near = begin + np.flatnonzero(self.numbers[begin:end] == self.numbers[index])
        self._advance(int(near[0]), int(near[-1]))
        weights, around = line_weights(times[near], times[index], SMOOTHING), [self._made[int(k)] for k in near]
        plain, edited = (_mixed(weights, images) for images in zip(*((d.plain, d.edited) for d in around), strict=True))
        return Drawn(plain, edited, self._made[index].transfer.mixed(weights, [d.transfer for d in around]))

    def close(self) -> None:
        """Let the file go."""
        if self._reader is not None:
            self._reader.close()
        self._reader = self._frames = None

    def _advance(self, first: int, last: int) -> None:
        """Make what is needed of frames `first` to `last`, and forget what lies before them."""
        batch = self.paster.config.batch
        if not self._frames or first < min(self._made, default=self._next) or first > self._next + FAR:
            self.close()
            self._reader = self.source()
            self._next = first // batch * batch
            self._frames, self._made = self._reader.frames(self._next), {}
        for index in [k for k in self._made if k < first]:
            del self._made[index]
        while self._next <= last:
            assert self._frames is not None
            part = list(islice(self._frames, batch))
            self._next += batch
            if self._next > first:
                self._made.update(self._draw(part))

    def _draw(self, frames: list[Frame]) -> Iterator[tuple[int, Drawn]]:
        shown = [frame for frame in frames if self.face.track.status[frame.index] != ABSENT]
        drawn = self.face.pairs(shown, self.G, self.seam or self.G, self.paster.config, self.paster.sides)
        for frame, (p, q) in zip(shown, drawn, strict=True):
            yield frame.index, self.paster.drawn(self.maker, frame, p, q)


def _mixed(weights: np.ndarray, images: Sequence[np.ndarray]) -> np.ndarray:
    """The sum of `images [N, M, 3]`, each weighted by one of `weights [T]`, float32; equal sums for equal images."""
    total = np.zeros(images[0].shape, np.float32)
    for weight, image in zip(weights.astype(np.float32), images, strict=True):
        total += weight * image
    return total
