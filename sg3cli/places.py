"""Where things of the user live, also where there is no home (a container's unknown user) or it is read-only."""

from __future__ import annotations

import functools
import os
import stat
import tempfile
from pathlib import Path


def expand(path: str | os.PathLike[str]) -> Path:
    """A path with `~` as the home; as it stands where no such home is known."""
    return Path(os.path.expanduser(path))


def home() -> Path | None:
    """The user's home; None where none is known."""
    found = Path(os.path.expanduser("~"))
    return found if found.is_absolute() else None


def user_cache() -> Path:
    """Folder of what can be fetched or made again: the user's, or a temporary one where none can be made."""
    known = _of_platform("cache")
    return temporary_cache() if known is None or is_temporary() else known


def user_config() -> Path | None:
    """Folder of the user's settings; None where no home is known."""
    return _of_platform("config")


def _of_platform(kind: str) -> Path | None:
    if home() is None and not os.environ.get(f"XDG_{kind.upper()}_HOME"):
        return None
    import platformdirs

    find = platformdirs.user_cache_path if kind == "cache" else platformdirs.user_config_path
    return find("sg3", appauthor=False)


def is_writable(folder: Path) -> bool:
    """Whether files can be made in a folder, or in the one in which it would be made."""
    there = next((part for part in (folder, *folder.parents) if part.exists()), None)
    return there is not None and there.is_dir() and os.access(there, os.W_OK | os.X_OK)


@functools.cache
def temporary_cache() -> Path:
    """A folder of this user's own among the temporary files: the same each time, unless somebody else has taken it."""
    path = Path(tempfile.gettempdir()) / f"sg3-{os.getuid()}"
    try:
        path.mkdir(mode=0o700, exist_ok=True)
        found = path.lstat()
        if stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and not found.st_mode & 0o022:
            return path
    except OSError:
        pass
    return Path(tempfile.mkdtemp(prefix="sg3-"))


def lend_home() -> None:
    """Tell the libraries that ask for a home by themselves where to keep things, where there is none."""
    if is_temporary():
        for name, folder in (("TORCH_HOME", "torch"), ("MPLCONFIGDIR", "matplotlib")):
            os.environ.setdefault(name, str(temporary_cache() / folder))


def is_temporary() -> bool:
    """Whether the cache is a temporary one."""
    known = _of_platform("cache")
    return known is None or not (known.is_dir() or is_writable(known))
