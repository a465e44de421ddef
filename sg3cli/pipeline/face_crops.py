"""One face of a clip: its codes with and without its edits, the generator's crops of them, its presence over time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from sg3cli.compositing.face_mask import smooth_landmarks
from sg3cli.faces.alignment import Track, shot_slices
from sg3cli.latents.codes import CodeRows, Codes
from sg3cli.latents.edits import Edit, apply_edits
from sg3cli.latents.rendering import render_crops
from sg3cli.nets.generator import Generator
from sg3cli.nets.synthesis import NO_MARGIN, Sides
from sg3cli.video import Frame


def with_smooth_landmarks(track: Track) -> Track:
    """The track with the landmarks that the mask follows: smoothed, so that its edge does not jitter."""
    landmarks = track.landmarks.copy()
    for shot in shot_slices(track.shots):
        landmarks[shot] = smooth_landmarks(track.landmarks[shot], track.times[shot])
    return replace(track, landmarks=landmarks)


@dataclass(frozen=True)
class FaceEdits:
    """One face of the clip and what is done to it: where it is, its codes, its own edits.

    `number` is that of `sg3 faces`; `order` counts the faces that the project edits, and names their files.
    """

    track: Track
    codes: CodeRows  # of T frames, smoothed: the pivots
    edits: list[Edit]  # their directions have been read
    number: int = 0
    order: int = 0

    def edited_codes(self, index: np.ndarray) -> Codes:
        """Codes of the frames `index [n]`, moved by the edits."""
        return apply_edits(self.codes.take(index), self.track.times[index], self.edits)

    def crops(self, frames: list[Frame], G: Generator, edited: bool, sides: Sides = NO_MARGIN) -> Iterator[np.ndarray]:
        """The face of each frame as seen through its window, `[N, N, 3]` uint8; `sides`: pixels more on each side."""
        if not frames:
            return iter(())
        index = np.array([frame.index for frame in frames])
        codes = self.edited_codes(index) if edited else self.codes.take(index)
        return render_crops(G, codes, self.track.transforms[index], len(index), sides)
