"""Where a setting comes from: flag > `SG3_*` environment > `sg3.toml` here > the user's config > default.

A stage that another command runs on the way keeps the parameters it was last run with, unless a flag says otherwise:
`sg3 render` does not undo what `sg3 invert --steps 5` was asked to do.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sg3cli import places
from sg3cli.errors import UsageError
from sg3cli.project import Project
from sg3cli.settings import CONFIGS, Settings, table

Values = dict[str, dict[str, Any]]  # stage -> field -> value


def ambient(folder: Path | None, environ: Mapping[str, str]) -> Values:
    """Settings that surround a command: environment over `sg3.toml` in `folder` over the user's file."""
    merged: Values = {stage: {} for stage in CONFIGS}
    for path in (user_config(environ), None if folder is None else folder / "sg3.toml"):
        if path is not None and path.is_file():
            _merge(merged, _read_toml(path))
    _merge(merged, _read_environment(environ))
    return merged


def resolve(flags: Values, around: Values, recorded: Values, own: tuple[str, ...]) -> Settings:
    """The settings of a command. `own` are the stages it is about; the others keep what is `recorded`."""
    values: Values = {}
    recorded_tuning = recorded.get("finetune", {})
    for stage, config in CONFIGS.items():
        known = {} if stage in own else recorded.get(stage, {})
        kept = {name: value for name, value in known.items() if name in table(config)}
        base = kept or around.get(stage, {})
        if stage == "render" and "finetune" not in own and "smooth" not in base and "smooth" in recorded_tuning:
            base = {**base, "smooth": recorded_tuning["smooth"]}  # the pivots were smoothed so
        values[stage] = {**base, **flags.get(stage, {})}
    return Settings().having(**values)


def of_project(project: Project, flags: Values | None = None, own: tuple[str, ...] = ()) -> Settings:
    """The settings of a command on a project: flags and surroundings over what its stages recorded."""
    recorded = {stage: dict(project.record(stage).params) for stage in CONFIGS}
    return resolve(flags or {}, from_here(), recorded, own)


def user_config(environ: Mapping[str, str]) -> Path | None:
    """The user's own settings (`$SG3_CONFIG` moves the file); None where no home is known."""
    if named := environ.get("SG3_CONFIG"):
        return Path(named)
    folder = places.user_config()
    return None if folder is None else folder / "config.toml"


def check(stage: str, name: str, value: Any, origin: str) -> Any:
    """A value from outside in its setting's type; raises `UsageError` that names where it came from."""
    value = table(CONFIGS[stage])[name].check(value, origin)
    if stage == "credentials" and not (name == "sign" and value in ("off", "self")):
        if not Path(value).is_file():
            raise UsageError(f"{origin}: there is no file {value}", "give a PEM file, or for --sign: self, or off")
        return str(Path(value).resolve())
    if (stage, name) == ("render", "mask"):
        if not Path(value).exists():
            raise UsageError(f"{origin}: there is no {value}", "give a video, a picture, or a folder of pictures")
        return str(Path(value).resolve())  # the project may be used from elsewhere
    return value


def _read_toml(path: Path) -> Values:
    try:
        tables = tomllib.loads(path.read_text(encoding="utf8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"cannot read {path}: {error}", "correct the file or remove it") from error
    found: Values = {}
    for stage, entries in tables.items():
        if stage not in CONFIGS or not isinstance(entries, dict):
            raise UsageError(f"{path} has an unknown entry '{stage}'", f"tables are: {', '.join(CONFIGS)}")
        names = list(table(CONFIGS[stage]))
        for key, value in entries.items():
            name = key.replace("-", "_")
            if name not in names:
                raise UsageError(f"{path} has an unknown setting {stage}.{key}", f"known: {', '.join(names)}")
            found.setdefault(stage, {})[name] = check(stage, name, value, f"{stage}.{key} in {path}")
    return found


def _read_environment(environ: Mapping[str, str]) -> Values:
    found: Values = {}
    for stage, config in CONFIGS.items():
        for name in table(config):
            variable = env_name(stage, name)
            if variable in environ:
                found.setdefault(stage, {})[name] = check(stage, name, environ[variable], variable)
    return found


def env_name(stage: str, name: str) -> str:
    """`SG3_INVERT_STEPS`."""
    return f"SG3_{stage}_{name}".upper()


def _merge(into: Values, values: Values) -> None:
    for stage, entries in values.items():
        into.setdefault(stage, {}).update(entries)


def from_here() -> Values:
    """`ambient` of this process, whose folder may be gone."""
    try:
        here = Path.cwd()
    except OSError:
        here = None
    return ambient(here, os.environ)


def model_name(given: str | None) -> str:
    """The model of a command that works on no project: its flag, else that of environment and `sg3.toml`."""
    flags: Values = {} if given is None else {"invert": {"model": given}}
    return resolve(flags, from_here(), {}, ("invert",)).invert.model
