"""The place an output goes: checked before work begins, written beside it, renamed at the end."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from sg3cli.console import CLOSED
from sg3cli.errors import InputError, UsageError
from sg3cli.files import NO_ROOM, create, remove, sweep, temporary_name
from sg3cli.video.image_sequence import NUMBER, is_pattern, matching, output_name

FORMATS = {".mp4": "mp4", ".m4v": "mp4", ".mov": "mov", ".mkv": "matroska", ".webm": "webm"}
IMAGES = "image2"  # FFmpeg's name for a file per frame
PART = ".part"  # end of a temporary file's name
FORMATS |= dict.fromkeys((".png", ".jpg", ".jpeg", ".tif", ".tiff"), IMAGES)


class Output:
    """A file that appears under its name whole or not at all, or standard output (`-`).

    `target` is what FFmpeg writes to: the path of a temporary file in the same folder, or a file object. A name that
    ends as images do is one image, or many if it has a place for a number (`frames/%04d.png`); `frames/` is
    short for that. Images are written into a temporary folder and moved at the end.
    """

    def __init__(self, out: str | Path, source: Path, container: str | None) -> None:
        self.piped = str(out) == "-"
        self.notices: list[str] = []
        self.format = format_of(out, container)
        self.target: str | _Stdout
        if self.piped:
            self.name, self._final, self._temp = "standard output", None, None
            self.target = _stdout()
        else:
            # Through a link the file it points to is replaced, not the link.
            self.name = output_name(str(out))
            self._final = Path(self.name).resolve()
            self._folder = self._final.parent
            if self.format == IMAGES and not self._folder.exists():
                self._folder = self._folder.parent  # the images' own folder is made at the end
            self._check(source)
            if Path(self.name).is_symlink():
                self.notices.append(f"{self.name} is a link: {self._final}, to which it points, is written")
            beside = self._folder / self._final.name
            sweep(beside, PART)
            self._temp = temporary_name(beside, PART)
            self.target = str(self._temp)
            if self.format == IMAGES:
                self.target = str(self._temp / self._final.name)
                if not self.single:  # FFmpeg counts in the whole path
                    self.target = f"{str(self._temp).replace('%', '%%')}/{self._final.name}"

    @property
    def single(self) -> bool:
        """Whether only one image fits."""
        return self.format == IMAGES and not is_pattern(self.name)

    @property
    def image(self) -> str | None:
        """The suffix of the files, if each frame becomes one."""
        return Path(self.name).suffix.lower() if self.format == IMAGES else None

    @property
    def finished(self) -> Path | None:
        """The file, or the pattern of the images, that is whole and waits for its name; None on standard output."""
        if self._temp is None or self._final is None:
            return None
        return self._temp / self._final.name if self.format == IMAGES else self._temp

    def prepare(self) -> None:
        """Make the temporary file, or folder of images, where nothing is; raises `OSError`."""
        if self._temp is None:
            return
        if self.format == IMAGES:
            self._temp.mkdir()
        else:
            create(self._temp)

    def rewrite(self, write: Callable[[Path, Path], None]) -> None:
        """Put what `write(finished, fresh)` makes of the finished file in its place.

        `fresh` is an empty file whose name is one of those that are swept when a killed run has left them.
        """
        assert self.finished is not None and self._final is not None
        fresh = temporary_name(self._folder / self._final.name, PART)
        try:
            create(fresh)
            write(self.finished, fresh)
            os.replace(fresh, self.finished)
        finally:
            fresh.unlink(missing_ok=True)

    def _check(self, source: Path) -> None:
        final = self._final
        assert final is not None
        if final.is_dir():
            raise InputError(
                f"cannot write {self.name}: it is a folder",
                f"give a file name, or {self.name}/ to fill it with pictures",
            )
        if not self._folder.is_dir():
            raise InputError(f"cannot write {self.name}: folder {final.parent} does not exist", "make the folder first")
        if final.exists() and not final.is_file():
            raise InputError(f"cannot write {self.name}: it is not a regular file", "give a file name, or - for a pipe")
        if final.exists() and source.exists() and final.samefile(source):
            raise InputError(f"output and input are the same file, {self.name}", "choose another output name")
        if not os.access(self._folder, os.W_OK) or (final.exists() and not os.access(final, os.W_OK)):
            raise InputError(f"cannot write {self.name}: permission denied", "choose a place you may write to")

    def commit(self) -> None:
        """Make the finished file durable and give it its name."""
        if self._temp is None or self._final is None:
            assert isinstance(self.target, _Stdout)
            self.target.flush()
            return
        if self.format == IMAGES:
            self._commit_images(self._temp, self._final)
        else:
            _sync(self._temp)
            os.replace(self._temp, self._final)
        with suppress(OSError):  # not every file system lets a folder be synced
            folder = os.open(self._final.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)

    @staticmethod
    def _commit_images(temp: Path, final: Path) -> None:
        """Move the images into place; those of an earlier, longer video of the same name go."""
        final.parent.mkdir(exist_ok=True)
        made = sorted(temp.iterdir())
        for image in made:
            _sync(image)
        earlier = {path.name for path in (matching(final) if is_pattern(final) else [])}
        for image in made:
            os.replace(image, final.with_name(image.name))
        for name in earlier - {image.name for image in made}:
            final.with_name(name).unlink(missing_ok=True)
        temp.rmdir()

    def discard(self) -> None:
        """Remove the temporary file; a pipe gets nothing more, so that a part is not taken for the whole."""
        if self._temp is not None:
            remove(self._temp)
        elif isinstance(self.target, _Stdout):
            self.target.closed = True

    def failure(self, error: Exception) -> InputError:
        """What a failed write means to the user."""
        code = getattr(error, "errno", None)
        kept = "" if self.piped else "; an earlier file of that name is untouched"
        if code in NO_ROOM:
            return InputError(f"no room left while writing {self.name}", f"free some space and run again{kept}")
        why = getattr(error, "strerror", None) or str(error)
        return InputError(f"cannot write {self.name}: {why}", f"check the place it goes to{kept}")


class _Stdout:
    """Standard output for a muxer: writing only, so that FFmpeg does not try to seek in a pipe."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self.closed = False  # PyAV writes no trailer to a closed file

    def write(self, data: bytes) -> int:
        self._stream.write(data)
        return len(data)

    def flush(self) -> None:
        self._stream.flush()


def _stdout() -> _Stdout:
    if "stdout" in CLOSED:
        raise UsageError("`-` writes a video to standard output, which is closed", "leave it open, or name a file")
    if sys.stdout.isatty():
        raise UsageError("`-` writes a video to standard output, which is a terminal", "pipe it on, or name a file")
    return _Stdout(sys.stdout.buffer)


def format_of(out: str | Path, container: str | None) -> str:
    """FFmpeg's name of an output's format; raises `UsageError` when nothing says it."""
    if container:
        return FORMATS.get(f".{container.lstrip('.')}", container)
    if str(out) == "-":
        return "matroska"
    suffix = Path(output_name(str(out))).suffix.lower()
    if len(NUMBER.findall(Path(out).name)) > 1:
        raise UsageError(f"{out} has more than one place for a number", "one is enough, as in %04d.png")
    if suffix not in FORMATS:
        known = " ".join(sorted(FORMATS))
        raise UsageError(f"{out}: no video format goes by the suffix {suffix or '(none)'!r}", f"use one of {known}")
    return FORMATS[suffix]


def _sync(path: Path) -> None:
    with path.open("rb+") as file:
        os.fsync(file.fileno())
