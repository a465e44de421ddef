"""Options that commands share. The stages' flags are made from the table of settings, where their defaults stand."""

from __future__ import annotations

import functools
import inspect
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import typer

from sg3cli import places
from sg3cli.cli import setting_sources
from sg3cli.cli.setting_sources import Values
from sg3cli.console import Console
from sg3cli.errors import UsageError
from sg3cli.settings import CONFIGS, PRESETS, Setting, table
from sg3cli.weights.loaded_nets import LoadedNets

PRESET_HELP = {
    "draft": "Quick: the untuned generator; seconds instead of minutes, less alike.",
    "quality": "Slow: many more steps of tuning.",
}


@dataclass
class Session:
    """What every command is given: where to speak, and the flags that were set."""

    console: Console
    flags: Values = field(default_factory=dict)
    own: tuple[str, ...] = ()
    project: Path | None = None
    pull: bool = False
    device: str = "auto"
    debug: bool = False
    nets: LoadedNets = field(default_factory=LoadedNets)


def flag_names(stage: str, name: str, own: tuple[str, ...]) -> list[str]:
    """The names of a setting's flag on a command that is about its `own` stages.

    `--smooth-centre`; a name that several stages have needs its stage's (`--finetune-steps`), and is short as well
    where one own stage alone has it. The commands of several own stages take both forms of every name.
    """
    dashed = name.replace("_", "-")
    having = [other for other in CONFIGS if name in table(CONFIGS[other])]
    mine = [other for other in own if other in having]
    short = mine == [stage] or (not mine and len(having) == 1)
    qualified = len(having) > 1 or set(own) == set(CONFIGS)
    return [*([f"--{dashed}"] if short else []), *([f"--{stage}-{dashed}"] if qualified else [])]


def command(
    app: typer.Typer,
    own: tuple[str, ...] = (),
    before: tuple[str, ...] = (),
    show: tuple[str, ...] | None = None,
    presets: tuple[str, ...] = (),
    example: str | None = None,
    name: str | None = None,
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Register a command whose first parameter is a `Session`.

    It gets the flags of its `own` stages and of those `before` it, which may run on the way (these are accepted but
    not listed in its help, nor are own ones that `show` leaves out), and the options that all commands have. `presets`
    are those that it takes; `example` ends its help; `name` is what it is called, if not as the function.
    """

    def register(function: Callable[..., None]) -> Callable[..., None]:
        parameters = list(inspect.signature(function, eval_str=True).parameters.values())[1:]
        taken = {parameter.name for parameter in parameters}  # a command's own option goes before a stage's
        stage_flags = _stage_flags(own, before, show, taken)
        shared = _shared_options(bool(own or before), presets)

        @functools.wraps(function)
        def run(**values: Any) -> None:
            flags: Values = {}
            for key, (names, _) in stage_flags.items():
                stage, _, name = key.partition("__")
                if (value := values.pop(key)) is not None:
                    flags.setdefault(stage, {})[name] = setting_sources.check(stage, name, value, names[0])
            common = {name: values.pop(name) for name in shared}
            function(_session(_with_preset(flags, presets, common), own, common), **values)

        everything = {**{key: option for key, (_, option) in stage_flags.items()}, **shared}
        extra = [
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)
            for name, (annotation, default) in everything.items()
        ]
        given = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in parameters]
        run.__signature__ = inspect.Signature([*given, *extra])  # type: ignore[attr-defined]
        run.__annotations__ = {p.name: p.annotation for p in [*given, *extra]}
        epilog = None if example is None else f"Example: {example}"
        app.command(name or function.__name__.rstrip("_").replace("_", "-"), epilog=epilog)(run)
        return function

    return register


Flag = tuple[list[str], tuple[Any, Any]]  # its names, and (annotation, default)


def _stage_flags(
    own: tuple[str, ...], before: tuple[str, ...], show: tuple[str, ...] | None, taken: set[str]
) -> dict[str, Flag]:
    """`stage__setting` -> its flag, for all settings of the stages that a command runs."""
    flags = {}
    for stage in (*own, *before):
        for name, setting in table(CONFIGS[stage]).items():
            if stage in before and name in taken:
                continue
            names = flag_names(stage, name, own)
            hidden = stage in before or (show is not None and name not in show)
            flags[f"{stage}__{name}"] = (names, _stage_option(setting, names, hidden))
    return flags


def _with_preset(flags: Values, presets: tuple[str, ...], common: dict[str, Any]) -> Values:
    """The flags over the values of the preset that was asked for."""
    asked = [name for name in presets if common.pop(name)]
    if len(asked) > 1:
        raise UsageError(" and ".join(f"--{name}" for name in asked) + " exclude each other", "choose one of them")
    merged: Values = {stage: dict(values) for name in asked for stage, values in PRESETS[name].items()}
    for stage, values in flags.items():
        merged.setdefault(stage, {}).update(values)
    return merged


def _session(flags: Values, own: tuple[str, ...], common: dict[str, Any]) -> Session:
    console = Console(quiet=common["quiet"], as_json=common["as_json"])
    if places.is_temporary():
        kept = f"what is fetched or compiled is kept in {places.temporary_cache()}"
        console.notice(f"no home that can be written is known here: {kept} (HOME or XDG_CACHE_HOME say where else)")
    project, pull, device = common.get("project_option"), common.get("pull", False), common.get("device", "auto")
    return Session(console, flags, own, project, pull, device, debug=common["debug"] or debugging([]))


def _stage_option(setting: Setting, names: list[str], hidden: bool) -> tuple[Any, Any]:
    """(annotation, default) of one setting; None means that the flag was not given."""
    default = setting.default
    option = typer.Option(
        *names,
        help=setting.option.help + (f" [default: {default}]" if default is not None else ""),
        metavar="|".join(setting.choices) or None,
        show_default=False,
        hidden=hidden,
    )
    return Annotated[setting.kind | None, option], None


def _shared_options(stage_command: bool, presets: tuple[str, ...]) -> dict[str, tuple[Any, Any]]:
    """Options of every command; those that run stages can also choose a project, a device and to pull models."""
    flag = functools.partial(typer.Option, show_default=False)
    options: dict[str, tuple[Any, Any]] = {}
    if stage_command:
        project = flag("--project", metavar="PATH", help="The project's folder, if not STEM.sg3 in this one.")
        device = typer.Option("--device", metavar="auto|cpu|cuda", envvar="SG3_DEVICE", help="Where to compute.")
        pull = flag("--pull", envvar="SG3_PULL", help="Download models that are missing.")
        options["project_option"] = (Annotated[Path | None, project], None)
        options["device"] = (Annotated[str, device], "auto")
        options["pull"] = (Annotated[bool, pull], False)
    for name in presets:
        older = ("--no-finetune",) if name == "draft" else ()
        options[name] = (Annotated[bool, flag(f"--{name}", *older, help=PRESET_HELP[name])], False)
    options["as_json"] = (Annotated[bool, flag("--json", help="Print one JSON object on stdout.")], False)
    options["quiet"] = (Annotated[bool, flag("--quiet", "-q", help="Say nothing but errors.")], False)
    options["debug"] = (Annotated[bool, flag("--debug", help="Show the traceback of an error.")], False)
    return options


def debugging(argv: list[str]) -> bool:
    """Whether tracebacks are wanted (asked of the raw arguments, because parsing them may be what failed)."""
    return "--debug" in argv or os.environ.get("SG3_DEBUG", "") not in ("", "0")
