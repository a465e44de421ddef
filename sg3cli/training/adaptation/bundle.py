"""The model folder of an adapted generator: what its parent had, its own generator, and its parent's for the codes."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sg3cli import __version__
from sg3cli.errors import UsageError
from sg3cli.files import atomic_path, write_json
from sg3cli.nets.checkpoint import save_generator
from sg3cli.nets.generator import Generator
from sg3cli.weights.bundle import FLOW, GENERATOR, PARENT, STYLE_STATISTICS, Bundle, noted_parts

DESCRIPTION = "model.json"
OWN = (GENERATOR, PARENT, DESCRIPTION)  # files that an adapted model does not take from its parent
INHERITED = ("schema", "resolution", "licence", "source", "credits")  # entries of its description that it does


def check_place(bundle: Bundle, out: Path) -> None:
    """Raise `UsageError` when `out` is a file, or a folder that holds something else than an adapted `bundle`."""
    if out.exists() and not out.is_dir():
        raise UsageError(f"{out} is a file", "--out is the folder of the new model")
    if not out.is_dir() or not any(out.iterdir()):
        return
    try:
        said = json.loads((out / DESCRIPTION).read_text(encoding="utf8"))["adapted_from"]["generator"]
    except (OSError, ValueError, KeyError, TypeError):
        said = None
    if said != bundle.origin.digest or out.resolve() == bundle.path.resolve():
        raise UsageError(f"{out} holds something else than {bundle.name} adapted", "give a new folder")


def write_adapted(bundle: Bundle, G: Generator, out: Path, made: Mapping[str, Any]) -> None:
    """Make `out` the model of `G`, which was adapted from `bundle` as `made` says.

    Its description names the parent and the digest of the parent's generator, so that codes, directions, flow and
    tuning of the parent are taken for its own. The description comes last: without it a folder is no model.
    """
    out.mkdir(parents=True, exist_ok=True)
    (out / DESCRIPTION).unlink(missing_ok=True)
    for name, source in inherited_files(bundle).items():
        copy(source, out / name)
    copy(bundle.path / bundle.origin.generator_file, out / PARENT)
    save_generator(out / GENERATOR, G, {"adapted": dict(made)})
    write_json(out / DESCRIPTION, {
        **{key: value for key, value in bundle.meta.items() if key in INHERITED},
        "name": out.name,
        "tool": __version__,
        "adapted_from": {"name": bundle.origin.name, "generator": bundle.origin.digest},
        "adapted": {"beside": bundle.name, "beside_generator": bundle.digest, **made},
        "parts": noted_parts(out),
    })  # fmt: skip


def inherited_files(bundle: Bundle) -> dict[str, Path]:
    """Encoder, directions, flow, readers and licence texts of the parent, by their name in the new folder."""
    folder = bundle.path
    files = [*folder.glob("*.safetensors"), *(folder / "directions").glob("*.safetensors"), *folder.glob("*.md")]
    found = {path.relative_to(folder).as_posix(): path for path in files}
    later = {name: bundle.companion(name) for name in (FLOW, STYLE_STATISTICS)}
    found |= {name: path for name, path in later.items() if path.is_file()}
    return {name: path for name, path in sorted(found.items()) if name not in OWN}


def copy(source: Path, target: Path) -> None:
    """A file as it is, whole or not at all."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(target) as temporary:
        shutil.copyfile(source, temporary)
