"""One face of a clip: its codes with and without its edits, the generator's crops of them, its presence over time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from sg3cli.compositing.face_mask import landmarks_in_window, smooth_landmarks
from sg3cli.compositing.face_parts import OUTSIDE, with_parts
from sg3cli.compositing.forehead import character
from sg3cli.compositing.hue import images_in_the_hue_of
from sg3cli.compositing.shade import images_in_the_shade_of
from sg3cli.faces.alignment import ABSENT, Track, shot_slices
from sg3cli.geometry import expanded_quad
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

    def edited_codes(self, index: np.ndarray, edits: Sequence[Edit] | None = None) -> Codes:
        """Codes of the frames `index [n]`, moved by the `edits`; None: by all of the face's."""
        plain = self.codes.take(index)
        edited = apply_edits(plain, self.track.times[index], self.edits if edits is None else edits)
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

    def crops(
        self, frames: list[Frame], G: Generator, edits: Sequence[Edit], sides: Sides = NO_MARGIN
    ) -> Iterator[np.ndarray]:
        """The face of each frame with some `edits` as seen through its window, `[N, N, 3]` uint8; `sides`: pixels more
        on each side."""
        if not frames:
            return iter(())
        index = np.array([frame.index for frame in frames])
        codes = self.edited_codes(index, edits) if edits else self.codes.take(index)
        return render_crops(G, codes, self.track.transforms[index], len(index), sides)

    def pairs(
        self, frames: list[Frame], G: Generator, edited_by: Generator, config: RenderConfig, sides: Sides = NO_MARGIN
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """The face of each frame without and with its edits `[N, N, 3]` uint8. What some edits keep is in the latter as
        the others alone leave it: hue and shade, if they are asked for, and parts of the face."""
        like = {"hue": self.rest("hue", config.hue), "shade": self.rest("shade", config.shade)}
        taken = self.taken(config)
        some = sorted({edits for edits in (*like.values(), *taken) if edits})
        wanted = [tuple(range(len(self.edits))), *some]
        edited_crops = (self.crops(frames, edited_by, [self.edits[k] for k in edits], sides) for edits in wanted)
        for frame, plain, edited, *others in zip(frames, self.crops(frames, G, (), sides), *edited_crops, strict=True):
            left = {(): plain, **dict(zip(some, others, strict=True))}
            for edits, parts in taken.items():
                edited = with_parts(edited, left[edits], plain, self.landmarks(frame.index, plain, sides), parts)
            if like["hue"] is not None:
                edited = images_in_the_hue_of(left[like["hue"]], edited, G.img_resolution)
            if like["shade"] is not None:
                edited = images_in_the_shade_of(left[like["shade"]], edited, G.img_resolution)
            yield plain, edited

    def landmarks(self, index: int, crop: np.ndarray, sides: Sides) -> np.ndarray:
        """`[68, 2]` of a frame, in pixels of its `crop [N, M, 3]`, which is expanded by so many pixels on its sides."""
        square = crop.shape[0] - sum(sides[2:])
        window = expanded_quad(self.track.windows[index], tuple(side / square for side in sides))
        return landmarks_in_window(self.track.landmarks[index], window, (crop.shape[0], crop.shape[1]))

    def parts(self, config: RenderConfig) -> frozenset[str]:
        """The parts of the face that stay the source's: those that are named, else those that no edit is about.

        Unasked there are none beside a mask of the user's own that stands for all others, nor in a face that is drawn.
        """
        if (named := parse_parts(config.keep_parts)) is not None:
            return named
        if not self.has_parts(config):
            return frozenset()
        return frozenset(part for part in FACE_PARTS if self.keeps(part, "auto"))

    def has_parts(self, config: RenderConfig) -> bool:
        """Whether parts of the face stay as they are unasked."""
        drawn = config.transfer == "draw" or not config.detail or config.stitch == "none"
        return parse_parts(config.keep_parts) is None and not drawn and not replaces_masks(config)

    def taken(self, config: RenderConfig) -> dict[tuple[int, ...], list[str]]:
        """Parts of the face that some edits keep, by those that do not (their places among the edits)."""
        found: dict[tuple[int, ...], list[str]] = {}
        for part in (*FACE_PARTS, OUTSIDE) if self.has_parts(config) else ():
            if rest := self.rest(part, "auto"):
                found.setdefault(rest, []).append(part)
        return found

    def keeps(self, aspect: str, asked: str) -> bool:
        """Whether the hue, the shade or a part of the unedited face stays; `asked`: auto, free or not."""
        return self.rest(aspect, asked) == ()

    def rest(self, aspect: str, asked: str) -> tuple[int, ...] | None:
        """Which edits (their places) change an aspect that others keep; none where all keep it; None where none does,
        or where it is free. `asked` as in `keeps`."""
        if asked != "auto":
            return None if asked == "free" else ()
        meant = [k for k, edit in enumerate(self.edits) if not edit.is_zero]
        rest = tuple(k for k in meant if aspect not in self.edits[k].keeps)
        return None if rest == tuple(meant) or self.restyled else rest
