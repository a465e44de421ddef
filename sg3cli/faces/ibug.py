"""From the 468-point face mesh to the 68 points of the iBUG convention."""

from __future__ import annotations

import numpy as np

# Mesh vertices in iBUG order (image left to right for a frontal face); the jaw line is the mesh's outline.
JAW = (127, 234, 93, 132, 58, 172, 136, 149, 152, 378, 365, 397, 288, 361, 323, 454, 356)
BROWS = (70, 63, 105, 66, 107, 336, 296, 334, 293, 300)
NOSE = (168, 197, 5, 4, 98, 97, 2, 326, 327)
EYES = (33, 160, 158, 133, 153, 144, 362, 385, 387, 263, 373, 380)
OUTER_LIPS = (61, 40, 37, 0, 267, 270, 291, 321, 314, 17, 84, 91)
INNER_LIPS = (78, 81, 13, 311, 308, 402, 14, 178)
VERTICES = np.array(JAW + BROWS + NOSE + EYES + OUTER_LIPS + INNER_LIPS)


def landmarks_of_mesh(mesh: np.ndarray) -> np.ndarray:
    """The 68 landmarks `[68, 2]` float32 of a mesh `[468, 3]`, in its unit."""
    return mesh[VERTICES, :2].astype(np.float32)
