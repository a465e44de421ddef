"""How one person's edited face is pasted into its frames."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np

from sg3cli.compositing.face_mask import beyond_face, edge_mask, face_mask, landmarks_in_window, smoothstep
from sg3cli.compositing.face_parts import on_face, part_mask
from sg3cli.compositing.map_maker import Drawn, MapMaker
from sg3cli.compositing.occlusion import GRID, visible
from sg3cli.compositing.optical_flow import GRID as TRANSFER_GRID
from sg3cli.compositing.own_lines import LINE, RIM, OwnLines
from sg3cli.compositing.paste import paste
from sg3cli.compositing.skin import skin_mask
from sg3cli.compositing.transfer import Transfer
from sg3cli.compositing.user_mask import UserMask
from sg3cli.faces.alignment import Track
from sg3cli.geometry import expanded_quad, warp_quad
from sg3cli.nets.generator import Generator
from sg3cli.nets.synthesis import Sides
from sg3cli.pipeline.face_crops import FaceEdits, replaces_masks
from sg3cli.pipeline.occlusion_maps import VisibleMaps
from sg3cli.settings import RenderConfig, parse_sides
from sg3cli.video import Frame
from sg3cli.video.image_sequence import fingerprint

if TYPE_CHECKING:
    from sg3cli.pipeline.transfer_maps import SteadyTransfers


SOFT = 0.02  # of the crop: what is moved beside something that stays is stretched over so much
MARGIN = 0.02  # of the crop: along hair nothing ages
# Shares of the face's height beyond its outline:
OUTLINE = 0.1  # within which motion passes from the face's own to that of its surroundings
CLOSE = 0.4  # of the margins of skin, where it is the face's own lines that count: folds end beside the mouth
FOLLOWS = (0.3, 0.8)  # as far as this everything follows; from here on nothing does


def pixel_sides(config: RenderConfig, resolution: int) -> Sides:
    """By how many pixels the view of `resolution` is expanded to the left, right, top and bottom."""
    left, right, top, bottom = (round(share * resolution) for share in parse_sides(config.expand))
    return left, right, top, bottom


def mask_digest(config: RenderConfig) -> str | None:
    """What a user's mask contributes to the content key."""
    if config.mask is None:
        return None
    return fingerprint(Path(config.mask))[1]


@dataclass(frozen=True)
class CompositingInputs:
    """What pasting needs of the whole clip; without, each frame is judged on its own."""

    maps: VisibleMaps | None = None
    mask: UserMask | None = None
    seam: Generator | None = None  # draws the edited face in its place: tuned at the seam, or adapted
    maker: MapMaker | None = None  # how the edit of a single frame goes over to it; None: as a difference
    transfers: SteadyTransfers | None = None  # the same over the whole clip, steadied

    def close(self) -> None:
        """Let the files go that are read beside the render."""
        if self.transfers is not None:
            self.transfers.close()


NO_INPUTS = CompositingInputs()


@dataclass(frozen=True)
class FacePaster:
    """How one person is pasted: through which windows, and what of the face may change."""

    track: Track  # with smooth landmarks
    config: RenderConfig
    resolution: int  # the generator's
    inputs: CompositingInputs = NO_INPUTS
    parts: frozenset[str] = frozenset()  # of the face, which stay the source's
    skin: np.ndarray | None = None  # [T]: the share by which skin shows more of its own structure, by the edits
    person: np.ndarray | None = None  # whose face it is, for lines that are new (`compositing.forehead`)
    shaded: bool = False  # the edit's light and shade end with the face
    hue: bool = False  # skin keeps its own, whatever is drawn

    @property
    def sides(self) -> Sides:
        """Pixels by which the crops are larger than the generator's square."""
        return pixel_sides(self.config, self.resolution)

    def window(self, index: int) -> np.ndarray:
        """What the crop of a frame shows, `[4, 2]`: the track's window and what it is expanded by."""
        left, right, top, bottom = (side / self.resolution for side in self.sides)
        return expanded_quad(self.track.windows[index], (left, right, top, bottom))

    def shape(self, size: int) -> tuple[int, int]:
        """(height, width) of the crop where the generator's square counts `size` pixels."""
        left, right, top, bottom = (side * size / self.resolution for side in self.sides)
        return round(size + top + bottom), round(size + left + right)

    def opacity(self, index: int) -> np.ndarray:
        """The crop's opacity `[H, W]` float32 from the landmarks (or its edge alone: `replace`)."""
        size, feather = self.shape(self.resolution), self.config.feather
        if self.config.stitch == "none":
            return np.ones(size, np.float32)
        if replaces_masks(self.config):
            return edge_mask(size, feather)
        return face_mask(landmarks_in_window(self.track.landmarks[index], self.window(index), size), size, feather)

    @property
    def protects(self) -> bool:
        """Whether hair or what stands before the face is looked for."""
        return self.config.protect != "none" and self.config.stitch != "none" and not replaces_masks(self.config)

    @property
    def wants_plain(self) -> bool:
        """Whether pasting needs the generator's face without the edit."""
        if self.config.view == "face" or self.config.stitch == "none":
            return False
        searches = self.protects and self.config.protect != "hair" and self.inputs.maps is None
        return (self.config.detail > 0 and self.config.transfer != "draw") or searches

    @property
    def transfers(self) -> bool:
        """Whether the source's own pixels follow the edit, rather than taking what the drawings differ by."""
        return self.wants_plain and self.config.detail > 0 and self.config.transfer not in ("paste", "draw")

    def drawn(self, maker: MapMaker, frame: Frame, plain: np.ndarray, edited: np.ndarray) -> Drawn:
        """One frame's drawings, laid onto it, and how the edit goes over, not steadied."""
        shape, window = self.shape(TRANSFER_GRID), self.window(frame.index)
        lines = self.own_lines(frame.index, shape)
        return maker.make(frame.rgb, window, plain, edited, shape, lines, mouth="mouth" not in self.parts)

    def own_lines(self, index: int, shape: tuple[int, int]) -> OwnLines | None:
        """Lines that the face keeps as it ages or grows young, on a grid of `shape`; None where it does neither."""
        if self.skin is None or self.skin[index] == 0:
            return None
        skin = skin_mask(landmarks_in_window(self.track.landmarks[index], self.window(index), shape), shape, CLOSE)
        return OwnLines(skin, LINE if self.skin[index] > 0 else RIM, self.person, self.hue)

    def visible(self, frame: Frame, plain: np.ndarray | None) -> np.ndarray | None:
        """What of the crop may change: from the maps that were made before, else from this frame alone."""
        if not self.protects:
            return None
        maps = self.inputs.maps
        seen = self.visible_map(frame, plain) if maps is None else maps.at(frame.index)
        if self.skin is None or self.skin[frame.index] == 0:
            return seen
        return away_from_hair(seen)  # strands are lines, and years change lines

    def visible_map(self, frame: Frame, plain: np.ndarray | None) -> np.ndarray:
        """What of the crop may change in one frame, not smoothed: `[h, w]` float32."""
        shape, window = self.shape(GRID), self.window(frame.index)
        source = warp_quad(frame.rgb, window, shape)
        small = None
        if plain is not None and self.config.protect in ("all", "occlusion"):
            small = cv2.resize(plain.astype(np.float32), shape[::-1], interpolation=cv2.INTER_AREA)
        landmarks = landmarks_in_window(self.track.landmarks[frame.index], window, shape)
        return visible(source, small, landmarks, hair=self.config.protect in ("all", "hair"))

    def paste(
        self,
        frame: Frame,
        crop: np.ndarray,
        plain: np.ndarray | None,
        presence: float | np.ndarray,
        transfer: Transfer | None = None,
    ) -> np.ndarray:
        """The frame `[H, W, 3]` uint8 with the crop in its window; pixels outside the window keep their bits, and so do
        those outside the mask that no motion of `transfer` reaches.

        `presence` is an opacity, or one for each pixel of the crop `[h, w]`.
        """
        config, mask = self.config, self.inputs.mask
        seen, shown = self.visible(frame, plain), presence
        presence = self.changing(frame.index, shown)
        if transfer is not None:
            transfer = self.within(frame.index, transfer, seen, (presence, shown))
        return paste(
            frame.rgb,
            crop,
            self.window(frame.index),
            self.opacity(frame.index) * np.asarray(presence, np.float32),
            match_ring=config.match,
            plain=plain,
            detail=0.0 if config.transfer == "draw" else config.detail,
            visible=seen,
            user_mask=None if mask is None else mask.at(frame.index),
            blend=config.blend if config.stitch != "none" else "alpha",
            transfer=transfer,
        )

    def changing(self, index: int, presence: float | np.ndarray) -> float | np.ndarray:
        """`presence` `[h, w]` without the parts of the face that stay the source's; as it is where there are none."""
        if not self.parts:
            return presence
        size = self.shape(self.resolution)
        if isinstance(presence, np.ndarray) and presence.ndim == 2:
            size = (presence.shape[0], presence.shape[1])
        landmarks = landmarks_in_window(self.track.landmarks[index], self.window(index), size)
        result: np.ndarray = np.asarray(presence, np.float32) * (1 - part_mask(landmarks, self.parts, size))
        return result

    def within(
        self, index: int, transfer: Transfer, seen: np.ndarray | None, presences: Sequence[float | np.ndarray]
    ) -> Transfer:
        """The transfer with what may move: the face but for what stands before it, hair, ears and collar near it so
        that an outline that moves leaves no second one, and nothing at the window's edge. `presences`: without the
        parts that stay, and with them, for what follows an edit there as well."""
        shape = transfer.motion.shape[:2]
        landmarks = landmarks_in_window(self.track.landmarks[index], self.window(index), shape)
        beyond = beyond_face(landmarks, shape)
        face = smoothstep(1 - beyond / OUTLINE).astype(np.float32)
        near = smoothstep((FOLLOWS[1] - beyond) / (FOLLOWS[1] - FOLLOWS[0])).astype(np.float32)
        near = near * edge_mask(shape, self.config.feather)
        if seen is not None:
            soft = cv2.GaussianBlur(_resized(seen.astype(np.float32), shape), (0, 0), SOFT * min(shape))
            near = near * (1 - face * (1 - soft))
        share, following = (near * _resized(np.asarray(values, np.float32), shape) for values in presences)
        if self.shaded:
            transfer = transfer.lit_on(on_face(landmarks, shape))
        return replace(transfer.within(face, share, following), skin=self.skin_map(index, shape, face * share))

    def skin_map(self, index: int, shape: tuple[int, int], share: np.ndarray) -> np.ndarray | None:
        """By how much the structure of skin changes `[h, w]`; None where it does not."""
        amount = 0.0 if self.skin is None else self.config.skin * self.skin[index]
        if amount == 0:
            return None
        mask = skin_mask(landmarks_in_window(self.track.landmarks[index], self.window(index), shape), shape)
        return amount * mask * share


def away_from_hair(seen: np.ndarray) -> np.ndarray:
    """What may change `[h, w]` without a margin along what may not."""
    side = round(MARGIN * min(seen.shape)) * 2 + 1
    less = cv2.GaussianBlur(cv2.erode(seen, np.ones((side, side), np.uint8)), (0, 0), side / 4)
    result: np.ndarray = np.minimum(less, seen)
    return result


def _resized(values: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    if values.ndim == 0:
        return np.full(shape, values, np.float32)
    result: np.ndarray = cv2.resize(values, shape[::-1], interpolation=cv2.INTER_LINEAR)
    return result


def paster_of(
    face: FaceEdits, config: RenderConfig, resolution: int, inputs: CompositingInputs = NO_INPUTS
) -> FacePaster:
    """How the edits of one person go over to the frames, by what they mean to change."""
    skin = face.skin()
    return FacePaster(
        face.track,
        config,
        resolution,
        inputs,
        face.parts(config),
        skin,
        face.character() if skin.any() else None,
        face.keeps("shade", config.shade) or face.keeps("outside", "auto"),
        face.keeps("hue", config.hue),
    )
