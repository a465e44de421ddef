"""The detectors of faces by name.

`make_detector` gives an object whose `update` is called once per frame, in order.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sg3cli.errors import UsageError
from sg3cli.faces.face import Detector

if TYPE_CHECKING:
    pass

KINDS = ("mesh", "fan")


def make_detector(kind: str = "mesh", allow_pull: bool = False) -> Detector:
    """The detector called `kind`: `mesh` (BlazeFace + face mesh, fast) or `fan` (the reference's 68 points, slow).

    Raises `ModelError` when its weights are not on this machine and may not be pulled, `UsageError` for other kinds.
    """
    if kind == "mesh":
        from sg3cli.faces.mesh_detector import MeshDetector

        return MeshDetector.load(allow_pull)
    if kind == "fan":
        from sg3cli.faces.fan_detector import FanDetector

        return FanDetector.load(allow_pull)
    raise UsageError(f"no landmark model is called '{kind}'", f"--landmarks {'|'.join(KINDS)}")
