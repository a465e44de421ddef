"""What inversion is judged on: faces upright as the encoder sees them, and the same faces unaligned."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sg3cli.console import Console
from sg3cli.errors import InputError
from sg3cli.faces.alignment import ABSENT
from sg3cli.faces.crops import aligned_crops, window_crops
from sg3cli.geometry import analytic_transform, params_to_quad, quad_matrix, warp_quad
from sg3cli.latents.inversion import spread
from sg3cli.levels import to_signed
from sg3cli.project import Project
from sg3cli.training.data.images import listed, read_image
from sg3cli.video import VideoReader

LIES = ("aligned", "unaligned")
TURN, SHIFT = 20.0, 0.08  # of an unaligned square: degrees and sides at most, to either side


@dataclass(frozen=True)
class Subject:
    """One face at the generator's size, [N,N,3] in [-1,1], `aligned` and `unaligned`.

    `transform` [3,3] lets the generator draw what it draws aligned as it is seen unaligned (`Synthesis.forward`);
    `face` [4,2] is the aligned square in pixels of the unaligned picture.
    """

    name: str
    aligned: np.ndarray
    unaligned: np.ndarray
    transform: np.ndarray
    face: np.ndarray

    def upright(self, unaligned: np.ndarray) -> np.ndarray:
        """A picture [N,N,3] uint8 that lies as `unaligned` does, brought upright, float in [-1,1]."""
        return to_signed(warp_quad(unaligned, self.face, len(unaligned)))


def of_pictures(path: Path, count: int, size: int, console: Console) -> list[Subject]:
    """At most `count` pictures of upright faces, spread over a folder, zip or data set; each is also turned and shifted
    by chance, always alike. Raises `InputError` for pictures that are not square and where there are none."""
    names, read = listed(path)
    subjects: list[Subject] = []
    for k in spread(np.arange(len(names)), count):
        rgb = read_image(read, int(k))
        if isinstance(rgb, str):
            console.notice(f"{names[k]} is left out: {rgb}")
        elif rgb.shape[0] != rgb.shape[1]:
            what = f"{names[k]} in {path} is {rgb.shape[1]}x{rgb.shape[0]}, no aligned face"
            raise InputError(what, "sg3 train prepare aligns pictures; of a video name its project")
        else:
            subjects.append(_moved(names[k], rgb, size, int(k)))
    if not subjects:
        raise InputError(f"{path} holds no pictures of faces", "give a folder of aligned, square pictures")
    return subjects


def _moved(name: str, rgb: np.ndarray, size: int, seed: int) -> Subject:
    """A picture as it is, and seen through a square that is turned and shifted by the chance of its number."""
    side, rng = len(rgb), np.random.default_rng(seed)
    turn, across, down = rng.uniform(-1, 1, 3) * (np.radians(TURN), SHIFT, SHIFT)
    upright = np.array([side / 2, side / 2, 0.0, np.log(side / 2)])
    moved = upright + np.array([across * side, down * side, turn, 0.0])
    return _seen(name, rgb, params_to_quad(upright), params_to_quad(moved), size)


def _seen(name: str, rgb: np.ndarray, quad: np.ndarray, window: np.ndarray, size: int) -> Subject:
    """A picture through its aligned square, and through the square that the unaligned picture is."""
    aligned, unaligned = (to_signed(warp_quad(rgb, square, size)) for square in (quad, window))
    transform = np.linalg.inv(analytic_transform(quad, window))
    return Subject(name, aligned, unaligned, transform, face_in(quad, window, size))


def face_in(quad: np.ndarray, window: np.ndarray, size: int) -> np.ndarray:
    """Corners [4,2] of `quad` in pixels of what is seen through `window`; both lie in the same frame."""
    corners = np.column_stack([quad, np.ones(4)])
    return np.asarray((np.linalg.inv(quad_matrix(window, size)) @ corners.T).T[:, :2])


def of_project(project: Project, count: int, size: int) -> list[Subject]:
    """At most `count` frames of a project's face, spread over it: aligned, and as its window sees them.

    Raises `InputError` when the project has not been aligned.
    """
    if project.status("align") != "done":
        raise InputError(f"{project.path} has not been aligned yet", "sg3 align INPUT")
    track, subjects = project.track(), []
    for number in spread(np.flatnonzero(track.status != ABSENT), count):
        with VideoReader(project.source(), **project.reading) as reader:
            frames = [next(reader.frames(int(number)))]
        (aligned,), (window,) = (_there(crops(frames, track, size)) for crops in (aligned_crops, window_crops))
        face = face_in(track.quads[number], track.windows[number], size)
        subjects.append(Subject(f"frame {number}", aligned, window, track.transforms[number], face))
    return subjects


def _there(crops: Iterable[np.ndarray | None]) -> list[np.ndarray]:
    return [crop for crop in crops if crop is not None]
