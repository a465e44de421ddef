"""Where a project's faces may change: as opacities of single frames, and as outlines over time.

Nothing is computed for it but what follows from the track; maps of what stands before a face are shown where a render
has left them in the project.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from sg3cli.compositing.face_mask import enlarge, face_outline
from sg3cli.compositing.paste import warp_alpha
from sg3cli.compositing.user_mask import UserMask
from sg3cli.errors import InputError
from sg3cli.faces.alignment import ABSENT
from sg3cli.files import Chunks, read_arrays
from sg3cli.pipeline.face_crops import with_smooth_landmarks
from sg3cli.pipeline.face_paster import FacePaster
from sg3cli.pipeline.occlusion_maps import VisibleMaps
from sg3cli.pipeline.paste_inputs import VISIBLE
from sg3cli.project import Project, of_face
from sg3cli.settings import RenderConfig

MOST_SHAPES = 500  # outlines that a page carries


class Masks:
    """The masks of all faces that a locked project edits, as its last render had them."""

    def __init__(self, project: Project, config: RenderConfig, resolution: int) -> None:
        tracks = [with_smooth_landmarks(track) for track in project.tracks()]
        self._pasters = [FacePaster(track, config, resolution) for track in tracks]
        self._maps = [saved_maps(project, paster, order) for order, paster in enumerate(self._pasters)]
        self._width, height = int(project.stream["width"]), int(project.stream["height"])
        self._user = None
        if config.mask is not None:
            self._user = UserMask(Path(config.mask), self._width, height, len(tracks[0]))

    @property
    def words(self) -> str:
        """What they show."""
        parts = ["the face, with the feathered edge of the paste"]
        parts += ["but for hair and what stands before it"] if any(self._maps) else []
        parts += ["within the mask that was given"] if self._user is not None else []
        return ", ".join(parts)

    def at(self, index: int, shape: tuple[int, int]) -> np.ndarray:
        """Opacity `[H, W]` of the frame of `shape` (height, width)."""
        result = np.zeros(shape, np.float32)
        for paster, maps in zip(self._pasters, self._maps, strict=True):
            if paster.track.status[index] != ABSENT:
                alpha = paster.opacity(index)
                alpha = alpha if maps is None else alpha * enlarge(maps.at(index), alpha.shape)
                result = np.maximum(result, warp_alpha(alpha, paster.window(index), shape))
        return result if self._user is None else result * self._user.at(index)

    def close(self) -> None:
        """Give up what is open."""
        if self._user is not None:
            self._user.close()

    def shapes(self) -> list[dict[str, Any]]:
        """At times `t` in seconds the windows and outlines `[[x, y], ...]` of the faces, in shares of the frame's
        width: what a player lays over the video."""
        track = self._pasters[0].track
        frames = np.unique(np.linspace(0, len(track) - 1, min(MOST_SHAPES, len(track))).round().astype(int))
        rows = []
        for k in frames.tolist():
            seen = [paster for paster in self._pasters if paster.track.status[k] != ABSENT]
            windows = [_rounded(paster.window(k) / self._width) for paster in seen]
            faces = [
                _rounded(face_outline(paster.track.landmarks[k].astype(np.float64)) / self._width) for paster in seen
            ]
            rows.append({"t": round(float(track.times[k]), 4), "windows": windows, "faces": faces})
        return rows


def _rounded(points: np.ndarray) -> list[list[float]]:
    return [[round(float(x), 4), round(float(y), 4)] for x, y in points]


def saved_maps(project: Project, paster: FacePaster, order: int) -> VisibleMaps | None:
    """What the last render found to stand before a face; None where it did not look, or the maps are not whole."""
    folder = project.path / of_face(VISIBLE, order)
    first = next(iter(sorted(folder.glob("*.safetensors"))), None)
    if first is None or not paster.protects:
        return None
    try:
        chunks = Chunks(folder, str(read_arrays(first)[1]["key"]))
    except (InputError, KeyError):
        return None
    return VisibleMaps(chunks, paster.track) if chunks.rows == len(paster.track) else None
