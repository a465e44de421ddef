"""One face of a clip: its codes with and without its edits, the generator's crops of them, its presence over time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from sg3cli.compositing.face_mask import smooth_landmarks
from sg3cli.compositing.forehead import character
from sg3cli.compositing.hue import images_in_the_hue_of
from sg3cli.compositing.shade import images_in_the_shade_of
from sg3cli.faces.alignment import ABSENT, Track, shot_slices
from sg3cli.latents.codes import CodeRows, Codes, between
from sg3cli.latents.edits import Edit, apply_edits
from sg3cli.latents.rendering import render_crops
from sg3cli.nets.generator import Generator
from sg3cli.nets.synthesis import NO_MARGIN, Sides
from sg3cli.settings import FACE_PARTS, RenderConfig, parse_parts
from sg3cli.video import Frame


def with_smooth_landmarks(track: Track) -> Track:
    """The track with the landmarks that the mask follows: smoothed, so that its edge does not jitter."""
    landmarks = track.landmarks.copy()
    for shot in shot_slices(track.shots):
        landmarks[shot] = smooth_landmarks(track.landmarks[shot], track.times[shot])
    return replace(track, landmarks=landmarks)


def replaces_masks(config: RenderConfig) -> bool:
    """Whether the user's mask stands in the place of all other masks."""
    return config.mask is not None and config.mask_mode == "replace"


SOME = 24  # frames whose codes say whose face it is
SMOOTHEST = 0.7  # of its structure that skin may lose: none left is wax


@dataclass(frozen=True)
class FaceEdits:
    """One face of the clip and what is done to it: where it is, its codes, its own edits.

    `number` is that of `sg3 faces`; `order` counts the faces that the project edits, and names their files. `shares
    [T]`: how much of its edits each frame has; None: all, and what is to be seen of them is left to who pastes.
    """

    track: Track
    codes: CodeRows  # of T frames, smoothed: the pivots
    edits: list[Edit]  # their directions have been read
    number: int = 0
    order: int = 0
    restyled: bool = False  # the edited face is drawn by an adapted generator: its colours are meant
    shares: np.ndarray | None = None

    def edited_codes(self, index: np.ndarray) -> Codes:
        """Codes of the frames `index [n]`, moved by the edits."""
        plain = self.codes.take(index)
        edited = apply_edits(plain, self.track.times[index], self.edits)
        return edited if self.shares is None else between(plain, edited, self.shares[index])

    def character(self) -> np.ndarray:
        """Whose face it is, by the mean of its codes: `[FIELDS]` of `compositing.forehead`."""
        shown = np.flatnonzero(self.track.status != ABSENT)
        some = shown[np.linspace(0, len(shown) - 1, min(len(shown), SOME)).round().astype(int)]
        rows = self.codes.take(some).ws.mean(axis=1)
        return character(rows[np.isfinite(rows).all(axis=1)].sum(axis=0))

    def skin(self) -> np.ndarray:
        """[T] float32: the share by which its skin shows more of its own structure, of all edits together."""
        times = self.track.times
        more = np.sum([edit.skin * edit.strength_at(times) for edit in self.edits], axis=0, initial=0.0)
        more = np.maximum(more + np.zeros(len(times)), -SMOOTHEST)
        return (more if self.shares is None else more * self.shares).astype(np.float32)

    def crops(self, frames: list[Frame], G: Generator, edited: bool, sides: Sides = NO_MARGIN) -> Iterator[np.ndarray]:
        """The face of each frame as seen through its window, `[N, N, 3]` uint8; `sides`: pixels more on each side."""
        if not frames:
            return iter(())
        index = np.array([frame.index for frame in frames])
        codes = self.edited_codes(index) if edited else self.codes.take(index)
        return render_crops(G, codes, self.track.transforms[index], len(index), sides)

    def pairs(
        self, frames: list[Frame], G: Generator, edited_by: Generator, config: RenderConfig, sides: Sides = NO_MARGIN
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """The face of each frame without and with its edits `[N, N, 3]` uint8, the latter in the hue and shade that are
        asked for."""
        plain_and_edited = self.crops(frames, G, False, sides), self.crops(frames, edited_by, True, sides)
        drawn: Iterator[tuple[np.ndarray, np.ndarray]] = zip(*plain_and_edited, strict=True)
        side = G.img_resolution
        if self.keeps("hue", config.hue):
            drawn = ((plain, images_in_the_hue_of(plain, edited, side)) for plain, edited in drawn)
        if self.keeps("shade", config.shade):
            drawn = ((plain, images_in_the_shade_of(plain, edited, side)) for plain, edited in drawn)
        return drawn

    def parts(self, config: RenderConfig) -> frozenset[str]:
        """The parts of the face that stay the source's: those that are named, else those that no edit is about.

        Unasked there are none beside a mask of the user's own that stands for all others, nor in a face that is drawn.
        """
        if (named := parse_parts(config.keep_parts)) is not None:
            return named
        if replaces_masks(config) or config.transfer == "draw" or not config.detail or config.stitch == "none":
            return frozenset()
        return frozenset(part for part in FACE_PARTS if self.keeps(part, "auto"))

    def keeps(self, aspect: str, asked: str) -> bool:
        """Whether the hue, the shade or a part of the unedited face stays; `asked`: auto, free or not."""
        if asked != "auto":
            return asked != "free"
        meant = [aspect in edit.keeps for edit in self.edits if not edit.is_zero]
        return bool(meant) and all(meant) and not self.restyled
