"""A face mesh that says what it was told."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sg3cli.faces.drawn_mesh import DrawnMesh


class ToldMesh(DrawnMesh):
    """The plain drawing and the source have the mesh `points[0] [468, 3]`, the edited drawing has `points[1]`."""

    def __init__(self, points: tuple[np.ndarray, np.ndarray]) -> None:
        self.points = points

    def alike(self, images: Sequence[np.ndarray], side: float) -> list[np.ndarray | None]:
        before, after = self.points
        return [before, before, after]
