"""The errors a user can meet. Each is two lines: what happened, and what to do about it.

The exit code is part of the class, so that a shell script can tell bad usage from bad input from a missing model.
Anything that is not an `Sg3Error` is a bug of ours and ends with code 1.
"""

from __future__ import annotations

from typing import Any

CONTROLS = {code: repr(chr(code))[1:-1] for code in (*range(32), 127)}  # a name may hold them; they are shown escaped


class Sg3Error(Exception):
    """An expected failure: `str(e)` says what, `hint` what to do, `code` is the exit status.

    `facts` go into the object of `--json` beside the error (what a batch did finish).
    """

    code = 1

    def __init__(self, what: str, hint: str = "") -> None:
        super().__init__(what.translate(CONTROLS))
        self.hint = hint.translate(CONTROLS)
        self.facts: dict[str, Any] = {}


class UsageError(Sg3Error):
    """The command line or a parameter is wrong (unknown direction, strength `nan`, not a project)."""

    code = 2


class InputError(Sg3Error):
    """The footage or an output place cannot be used (unreadable, no face, not writable, disk full)."""

    code = 3


class ModelError(Sg3Error):
    """A model is missing, has the wrong digest, or does not belong to the codes."""

    code = 4


class DeviceError(Sg3Error):
    """The device is absent or out of memory."""

    code = 5


class BatchError(Sg3Error):
    """Some inputs of a batch failed; the others are done."""

    code = 6
