"""A head that turns: the source's pixels go where a solid head takes them.

    X' = (X - b) A + a        A, b, a: by the points of the face mesh that no expression moves, before and after

Dense flow between two drawings of a turned head makes waves of hair, which a drawing of 128 pixels only hints at, and
what it draws of ears, neck and wall is somebody else's. The mesh says how far the head turned. Around the mesh lies a
head: rings about the outline of the face, wider and farther back, move with it, and less the farther out they are.
What else the drawings tell counts on the face, and around it as far as they are right about the source there.
"""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np

from sg3cli.compositing.channels import mean
from sg3cli.compositing.face_mask import smoothstep
from sg3cli.compositing.mouth_motion import SPREAD, Points, spread
from sg3cli.compositing.optical_flow import GRID, Shape, at_grid
from sg3cli.faces.drawn_mesh import OVAL, STILL, still_pose

TURNS = (3.0, 6.0)  # degrees: less is none, or a mesh that trembles; from here on it counts in full
ASIDE = (33.0, 43.0)  # degrees that a face looks aside: up to here its mesh is right; in profile it is not
NOSE, EYES = 4, (33, 263)  # its tip; the outer corners
# Rings: how much wider than the outline, how far behind it (in distances of the eyes' outer corners), and the share of
# the head's motion that is theirs. Beyond the widest nothing moves.
RINGS = (
    (1.12, 0.25, 1.0),
    (1.25, 0.5, 1.0),
    (1.45, 0.65, 1.0),
    (1.7, 0.65, 0.7),
    (2.0, 0.65, 0.3),
    (2.4, 0.65, 0.0),
    (3.0, 0.65, 0.0),
)
AWAY = (0.05, 0.3)  # sine of the angle by which one side of a head is turned away: it is seen; its outline alone is
CENTRE = 0.45  # of a head, behind the middle of the outline, in distances of the eyes
HIDDEN = 0.1  # sine of the angle from which on what is turned away is not seen
NEW = (0.1, 0.4)  # share of points nearby that were hidden: from here on something is new; in full
WIDE = 7.0  # pixels of the grid over which the motion of one point around the face holds
OFF = (3.5, 6.0)  # mean levels by which a drawing is off around the face: it is right, and it tells nothing
# Pixels of the grid inside the outline where what a drawing tells ends, by light and by flow, and over how many. At an
# outline that moved far, flow finds the wall.
INSET, FLOW, SOFT = 2, 7, 3.0


class Turn(NamedTuple):
    """How a head turned: a share 0..1; where points that are seen before and after went, `[n, 2]` each, in pixels; the
    mesh of its face after; and what of that is seen then, `[m, 2]`, with 1 where it was hidden, `[m]`."""

    share: float
    before: np.ndarray
    after: np.ndarray
    face: np.ndarray
    shown: np.ndarray
    new: np.ndarray

    def motion(self, shape: Shape) -> np.ndarray:
        """`[h, w, 2]` float32: what lies at x came from x + motion, in units of `GRID` pixels of a grid of `shape`."""
        moved = self.before - self.after
        on_face, around = (spread(moved, self.after, shape, over) for over in (SPREAD, WIDE))
        near = cv2.GaussianBlur(inside(self.face, shape), (0, 0), WIDE / 2)[..., None]
        result: np.ndarray = self.share * (around + near * (on_face - around)) / GRID
        return result

    def exposed(self, shape: Shape) -> np.ndarray:
        """0..1 `[h, w]` float32: where the face shows what the head hid before."""
        new = smoothstep((spread(self.new[:, None], self.shown, shape)[..., 0] - NEW[0]) / (NEW[1] - NEW[0]))
        result: np.ndarray = (self.share * inside(self.face, shape) * new).astype(np.float32)
        return result


def turn_share(points: Points | None) -> float:
    """0..1: how far a head counts as turned between two meshes `[468, 3]`; 0 where none tells, or in profile."""
    if points is None:
        return 0.0
    angle = degrees(still_pose(*points))
    aside = np.degrees(np.arccos(np.clip(frame_of(points[0])[1][2], -1, 1)))
    shares = [(angle - TURNS[0]) / (TURNS[1] - TURNS[0]), (ASIDE[1] - aside) / (ASIDE[1] - ASIDE[0])]
    return float(smoothstep(np.array(shares)).prod())


def turn_between(points: Points | None) -> Turn | None:
    """How the head turned between two meshes `[468, 3]` in pixels; None where it did not, or no mesh tells."""
    if points is None or (share := turn_share(points)) == 0:
        return None
    before, after = points
    middle, there, pose = before[STILL].mean(axis=0), after[STILL].mean(axis=0), still_pose(before, after)
    around, shares = head_around(before, pose)
    every = np.concatenate([before, around])
    moved = (every - middle) @ pose + there - every
    moved[: len(before)] = after - before
    moved[OVAL] = ((before - middle) @ pose + there - before)[OVAL]  # an outline's points slide along it
    moved[len(before) :] *= shares[:, None]
    before_hidden, after_hidden = hidden(every, before), hidden(every + moved, after)
    seen, shown = ~(before_hidden | after_hidden), ~after_hidden[: len(before)]
    new = before_hidden[: len(before)][shown].astype(np.float32)
    return Turn(share, every[seen, :2], (every + moved)[seen, :2], after, after[shown, :2], new)


def hidden(points: np.ndarray, face: np.ndarray) -> np.ndarray:
    """Which of `points [n, 3]`, the mesh `face [468, 3]` and those around it, the face itself hides: `[n]` bool."""
    outline = face[OVAL, :2].astype(np.float32)
    behind = [cv2.pointPolygonTest(outline, (float(x), float(y)), False) > 0 for x, y in points[len(face) :, :2]]
    middle, back, unit = frame_of(face)
    outward = points[: len(face)] - (middle + CENTRE * unit * back)
    away = outward[:, 2] / np.linalg.norm(outward, axis=1)
    return np.concatenate([away > HIDDEN, np.array(behind, bool)])


def frame_of(face: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
    """Of the mesh `face [468, 3]`: the middle of its outline, the way straight back through the head, both `[3]`, and
    the distance of the eyes' outer corners."""
    outline = face[OVAL]
    middle = outline.mean(axis=0)
    back = np.linalg.svd(outline - middle, full_matrices=False)[2][2]
    unit = float(np.linalg.norm(face[EYES[0]] - face[EYES[1]]))
    return middle, back * np.sign((middle - face[NOSE]) @ back), unit


def degrees(pose: np.ndarray) -> float:
    """The angle by which a rotation that is scaled, `pose [3, 3]`, turns."""
    rotation = pose / np.cbrt(np.linalg.det(pose))
    return float(np.degrees(np.arccos(np.clip((np.trace(rotation) - 1) / 2, -1, 1))))


def head_around(face: np.ndarray, pose: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Points `[n, 3]` of the head around the mesh `face [468, 3]` that turns by `pose [3, 3]`, and the share `[n]` of
    its motion that is theirs. On the side that is turned away, now or then, the outline is all that is seen of it."""
    outline = face[OVAL]
    outline = np.concatenate([outline, (outline + np.roll(outline, -1, axis=0)) / 2])
    middle, back, unit = frame_of(face)
    behind = np.outer((outline - middle) @ back, back)
    across = outline - middle - behind
    outward = across / np.linalg.norm(across, axis=1, keepdims=True)
    away = np.maximum(outward[:, 2], (outward @ (pose / np.cbrt(np.linalg.det(pose))))[:, 2])
    seen = 1 - smoothstep((away - AWAY[0]) / (AWAY[1] - AWAY[0]))
    points = [middle + behind + wide * across + far * unit * np.outer(seen, back) for wide, far, _ in RINGS]
    return np.concatenate(points), np.repeat([share for _, _, share in RINGS], len(outline))


def told(turn: Turn, source: np.ndarray | None, plain: np.ndarray, points: Points, inset: int = INSET) -> np.ndarray:
    """0..1 `[h, w]` float32: how far drawings count beside the head's motion: on the face, `inset` pixels inside its
    outline; and elsewhere as far as `plain [h, w, 3]` is right about what the `source [H, W, 3]` has around the face
    (levels), the more the less the head turned."""
    shape = (plain.shape[0], plain.shape[1])
    on_face, near = (inside(mesh, shape) for mesh in (points[1], points[0]))
    right = 0.0
    if source is not None and not near.all():
        off = mean(np.abs(at_grid(source, shape).astype(np.float32) - plain))[near == 0]
        right = float(smoothstep(np.array((OFF[1] - off.mean()) / (OFF[1] - OFF[0]))))
    within = cv2.GaussianBlur(cv2.erode(on_face, np.ones((2 * inset + 1,) * 2, np.uint8)), (0, 0), SOFT)
    around: np.ndarray = within + (1 - within) * np.float32(1 - turn.share * (1 - right))
    return around


def inside(mesh: np.ndarray, shape: Shape) -> np.ndarray:
    """0 or 1 `[h, w]` float32: the face whose mesh lies at `mesh [468, 2 or 3]` in pixels."""
    outline = np.rint(mesh[OVAL, :2]).astype(np.int32)
    result: np.ndarray = cv2.fillPoly(np.zeros(shape, np.float32), [outline], (1.0,))
    return result
