"""Where a setting comes from: flag > `SG3_*` environment > `sg3.toml` here > the user's config > default.

A stage that another command runs on the way keeps the parameters it was last run with, unless a flag says otherwise:
`sg3 render` does not undo what `sg3 invert --steps 5` was asked to do.
"""

from __future__ import annotations

import math
import os
import tomllib
from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, get_type_hints

from sg3cli.config import (
    PRECISIONS,
    AlignConfig,
    EncodeConfig,
    FinetuneConfig,
    InputConfig,
    InvertConfig,
    RenderConfig,
    parse_sides,
)
from sg3cli.errors import UsageError
from sg3cli.project import Project
from sg3cli.time_ranges import parse_ranges
from sg3cli.video.image_sequence import parse_rate

CONFIGS: dict[str, type] = {
    "input": InputConfig,
    "align": AlignConfig,
    "invert": InvertConfig,
    "finetune": FinetuneConfig,
    "render": RenderConfig,
    "encode": EncodeConfig,
}
CHOICES: dict[tuple[str, str], tuple[str, ...]] = {
    ("align", "landmarks"): ("mesh", "fan"),
    ("align", "rule"): ("ffhq", "eyes"),
    ("align", "on_no_face"): ("pass", "hold", "fail"),
    ("align", "crop"): ("fixed", "smooth", "hybrid"),
    ("finetune", "loss"): ("auto", "lpips", "structural"),
    ("render", "view"): ("frame", "face", "compare"),
    ("render", "labels"): ("on", "off"),
    ("render", "stitch"): ("none", "paste", "tune"),
    ("render", "protect"): ("all", "hair", "occlusion", "none"),
    ("render", "mask_mode"): ("multiply", "replace"),
    ("render", "blend"): ("alpha", "gradient"),
    ("render", "precision"): PRECISIONS,
}
POSITIVE = {("invert", "steps"), ("invert", "batch"), ("finetune", "batch"), ("finetune", "save_every")}
POSITIVE |= {("render", "batch"), ("finetune", "lr"), ("finetune", "patience")}
SHARES = {("render", "detail"), ("render", "match")}

SWITCHES = {"true": True, "1": True, "yes": True, "on": True, "false": False, "0": False, "no": False, "off": False}

Values = dict[str, dict[str, Any]]  # stage -> field -> value


def field_type(stage: str, name: str) -> type:
    """`bool`, `str`, `int` or `float` (an optional field counts as what it holds)."""
    hint = get_type_hints(CONFIGS[stage])[name]
    return next(kind for kind in (bool, str, int, float) if hint in (kind, kind | None))


def ambient(folder: Path, environ: Mapping[str, str]) -> Values:
    """Settings that surround a command: environment over `sg3.toml` in `folder` over the user's file."""
    merged: Values = {stage: {} for stage in CONFIGS}
    for path in (user_config(environ), folder / "sg3.toml"):
        if path.is_file():
            _merge(merged, _read_toml(path))
    _merge(merged, _read_environment(environ))
    return merged


def resolve(flags: Values, around: Values, recorded: Values, own: tuple[str, ...]) -> dict[str, Any]:
    """One config per stage. `own` are the stages the command is about; the others keep what is `recorded`."""
    out = {}
    recorded_tuning = recorded.get("finetune", {})
    for stage, config in CONFIGS.items():
        known = {} if stage in own else recorded.get(stage, {})
        names = {field.name for field in fields(config)}
        kept = {name: value for name, value in known.items() if name in names}
        base = kept or around.get(stage, {})
        if stage == "render" and "finetune" not in own and "smooth" not in base and "smooth" in recorded_tuning:
            base = {**base, "smooth": recorded_tuning["smooth"]}  # the pivots were smoothed so
        out[stage] = replace(config(), **{**base, **flags.get(stage, {})})
    return out


def of_project(project: Project, flags: Values | None = None, own: tuple[str, ...] = ()) -> dict[str, Any]:
    """The configs of all stages for a command on a project: flags and surroundings over what its stages recorded."""
    recorded = {stage: project.record(stage).get("params", {}) for stage in CONFIGS}
    return resolve(flags or {}, from_here(), recorded, own)


def user_config(environ: Mapping[str, str]) -> Path:
    """The user's own settings (`$SG3_CONFIG` moves the file)."""
    if named := environ.get("SG3_CONFIG"):
        return Path(named)
    from platformdirs import user_config_path

    return user_config_path("sg3", appauthor=False) / "config.toml"


def check(stage: str, name: str, value: Any, origin: str) -> Any:
    """The value in its field's type; raises `UsageError` that names where it came from."""
    kind = field_type(stage, name)
    try:
        if kind is bool:
            value = SWITCHES[str(value).lower()]
        value = kind(value) if kind is not int or not isinstance(value, float) else int(str(value))
    except (TypeError, ValueError, KeyError):
        raise UsageError(f"{origin} is {value!r}", f"it must be {_describe(kind)}") from None
    if (stage, name) == ("input", "rate"):
        parse_rate(value)
    if kind is not str and (not math.isfinite(value) or value < 0):
        raise UsageError(f"{origin} is {value}", "it must be a number, zero or more")
    if (stage, name) in POSITIVE and value <= 0:
        raise UsageError(f"{origin} is {value}", "it must be more than zero")
    if (stage, name) in SHARES and value > 1:
        raise UsageError(f"{origin} is {value}", "it is a share: 0 to 1")
    choices = CHOICES.get((stage, name))
    if choices and value not in choices:
        raise UsageError(f"{origin} is {value!r}", f"choose one of: {', '.join(choices)}")
    if (stage, name) == ("render", "smooth"):
        _check_smooth(value, origin)
    if (stage, name) == ("render", "expand"):
        _check_sides(value, origin)
    if (stage, name) == ("render", "mask"):
        if not Path(value).exists():
            raise UsageError(f"{origin}: there is no {value}", "give a video, a picture, or a folder of pictures")
        return str(Path(value).resolve())  # the project may be used from elsewhere
    if (stage, name) == ("render", "range"):
        parse_ranges(value)
    return value


def _check_sides(value: str, origin: str) -> None:
    """`left=0.15,top=0.1`."""
    try:
        parse_sides(value)
    except ValueError as error:
        raise UsageError(f"{origin}: {error}", "for example --expand left=0.15,top=0.1") from None


def _check_smooth(value: str, origin: str) -> None:
    """`paper`, `none` or `gauss:SECONDS`."""
    head, _, sigma = value.partition(":")
    if value in ("paper", "none"):
        return
    try:
        if head == "gauss" and 0 < float(sigma) < math.inf:
            return
    except ValueError:
        pass
    raise UsageError(f"{origin} is {value!r}", "choose paper, none or gauss:SECONDS, for example gauss:0.1")


def _describe(kind: type) -> str:
    return {bool: "true or false", str: "text", int: "a whole number", float: "a number"}[kind]


def _read_toml(path: Path) -> Values:
    try:
        tables = tomllib.loads(path.read_text(encoding="utf8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"cannot read {path}: {error}", "correct the file or remove it") from error
    found: Values = {}
    for stage, table in tables.items():
        if stage not in CONFIGS or not isinstance(table, dict):
            raise UsageError(f"{path} has an unknown entry '{stage}'", f"tables are: {', '.join(CONFIGS)}")
        names = [field.name for field in fields(CONFIGS[stage])]
        for key, value in table.items():
            name = key.replace("-", "_")
            if name not in names:
                raise UsageError(f"{path} has an unknown setting {stage}.{key}", f"known: {', '.join(names)}")
            found.setdefault(stage, {})[name] = check(stage, name, value, f"{stage}.{key} in {path}")
    return found


def _read_environment(environ: Mapping[str, str]) -> Values:
    found: Values = {}
    for stage, config in CONFIGS.items():
        for field in fields(config):
            variable = env_name(stage, field.name)
            if variable in environ:
                value = check(stage, field.name, environ[variable], variable)
                found.setdefault(stage, {})[field.name] = value
    return found


def env_name(stage: str, name: str) -> str:
    """`SG3_INVERT_STEPS`."""
    return f"SG3_{stage}_{name}".upper()


def _merge(into: Values, values: Values) -> None:
    for stage, table in values.items():
        into.setdefault(stage, {}).update(table)


def from_here() -> Values:
    """`ambient` of this process."""
    return ambient(Path.cwd(), os.environ)
