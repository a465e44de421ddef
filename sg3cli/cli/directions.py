"""`sg3 directions ...`: what a model can be edited along, and working with the files of directions."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from sg3cli.cli.flags import Session, command
from sg3cli.cli.setting_sources import model_name
from sg3cli.errors import UsageError
from sg3cli.latents.edits import make_edit
from sg3cli.latents.projection import condition
from sg3cli.pipeline.load_edits import check_edits
from sg3cli.settings import InvertConfig
from sg3cli.weights.bundle import Bundle, load_model
from sg3cli.weights.direction_file import Direction, find_direction, load_direction
from sg3cli.weights.direction_tools import combined, export_direction, write_direction
from sg3cli.weights.import_arrays import kind_of

app = typer.Typer(help="Directions that a model can be edited along.", rich_markup_mode=None)

Model = Annotated[
    str | None,
    typer.Option(
        "--model",
        metavar="NAME|FOLDER",
        help=f"Model: a name of `sg3 models list` or a folder [default: {InvertConfig.model}].",
    ),
]
Which = Annotated[str, typer.Argument(metavar="NAME|FILE", help="A direction of the model, or a file of one.")]
Out = Annotated[
    Path | None,
    typer.Option(
        "--out",
        metavar="FILE",
        help="The .safetensors to write, or a folder [default: NAME.safetensors here].",
    ),
]
Name = Annotated[str | None, typer.Option("--name", metavar="NAME", help="What the new direction is called.")]
Force = Annotated[bool, typer.Option("--force", help="Replace a file that is there.", show_default=False)]
Device = Annotated[
    str, typer.Option("--device", metavar="auto|cpu|cuda", envvar="SG3_DEVICE", help="Where to compute.")
]


def list_(session: Session, model: Model = None) -> None:
    """The directions of a model, with what is known of each."""
    bundle = load_model(model_name(model))
    rows: list[dict[str, Any]] = []
    session.console.heading(f"{'direction':<14} {'range':<8} strength 1 is")
    for name in bundle.direction_names():
        direction = load_direction(bundle.direction_path(name))
        rows.append({**facts_of(direction), "name": name, "path": str(bundle.direction_path(name))})
        held = "" if direction.range is None else f"{direction.range[0]:g}..{direction.range[1]:g}"
        session.console.data(f"{name:<14} {held:<8} {direction.does}".rstrip())
    session.console.result("directions list", model=bundle.name, directions=rows)


def facts_of(direction: Direction) -> dict[str, Any]:
    """What `--json` tells of a direction."""
    facts = {"name": direction.name, "does": direction.does, "range": direction.range, "space": direction.space}
    return {**facts, "generator": direction.generator, "rows": len(direction.vector), "meta": direction.meta}


def opened(name: str, bundle: Bundle) -> Direction:
    """A direction of the model or in a file, which must belong to it."""
    known = {each: bundle.direction_path(each) for each in bundle.direction_names()}
    direction = load_direction(find_direction(name, known))
    direction.check_fits(bundle.config, bundle.origin.digest)
    return direction


def written(session: Session, what: str, direction: Direction, out: Path | None, force: bool) -> None:
    """Write a direction, say where it lies and how it is used."""
    path = out or Path(f"{direction.name}.safetensors")
    if path.is_dir() or path.suffix == "":
        path = path / f"{direction.name}.safetensors"
    check_place(path, force)
    write_direction(path, direction)
    session.console.data(str(path))
    session.console.notice(f"{direction.name}: strength 1 is {direction.does or 'its vector'}; --edit {path}=1")
    session.console.result(f"directions {what}", path=str(path), **facts_of(direction))


def check_place(path: Path, force: bool) -> None:
    """Raise before any work when a file would be replaced."""
    if path.exists() and not force:
        raise UsageError(f"{path} is there already", "choose another --out or --name, or --force")


@command(app, example="sg3 directions show age -o age.png")
def show(
    session: Session,
    direction: Which,
    output: Annotated[
        str | None, typer.Option("--output", "-o", metavar="PNG", help="Picture to write [default: NAME.png].")
    ] = None,
    model: Model = None,
    seeds: Annotated[str, typer.Option("--seeds", metavar="LIST", help="The faces to draw.")] = "0-3",
    strengths: Annotated[str, typer.Option("--strengths", metavar="S,...", help="The columns.")] = "-2,-1,0,1,2",
    force: Force = False,
    device: Device = "auto",
) -> None:
    """Draw a direction on four faces, and under them what else moves with it; print what its file says."""
    from sg3cli.cli.generate import parse_seeds
    from sg3cli.cli.preview import parse_strengths
    from sg3cli.pipeline.device import choose_device
    from sg3cli.pipeline.direction_sheet import leak_lines, write_sheet

    bundle = load_model(model_name(model))
    is_channel = make_edit(direction, "1").channel is not None
    known = opened_channel(direction, bundle) if is_channel else opened_mapper(direction, bundle)
    known = known or opened(direction, bundle)
    out = Path(output or f"{known.name.replace(':', '-')}.png")
    if out.suffix.lower() != ".png":
        raise UsageError(f"{out} is not the name of a PNG file", "give -o NAME.png")
    check_place(out, force)
    numbers, columns = parse_seeds(seeds), parse_strengths(strengths)
    where = choose_device(device, session.console)
    write_sheet(out, bundle, direction, known, numbers, columns, where)
    lines = [f"{known.name}: strength 1 is {known.does or 'its vector'}", f"space {known.space.upper()}"]
    lines += [str(known.meta[key]) for key in ("made", "method") if known.meta.get(key)]
    for line in [*lines, *leak_lines(known)]:
        session.console.data(line)
    session.console.result("directions show", output=str(out), **facts_of(known))


def opened_channel(text: str, bundle: Bundle) -> Direction:
    """`L5:133` as a direction, or the error of an unknown one."""
    import numpy as np

    check_edits([make_edit(text, "1")], bundle)
    unit = f"one standard deviation of the style {text}"
    return Direction(text, np.zeros((1, 0), np.float32), None, {"space": "s", "unit": unit})  # its name says all


def opened_mapper(text: str, bundle: Bundle) -> Direction | None:
    """A latent mapper's file as a direction whose name says all; None for any other."""
    import numpy as np

    from sg3cli.weights.mapper_file import mapper_file

    found = mapper_file(Path(text))
    if found is None:
        return None
    check_edits([make_edit(text, "1")], bundle)
    meta = {**found.meta, "unit": found.does, "made": "a latent mapper: each code has a step of its own"}
    return Direction(found.name, np.zeros((1, 0), np.float32), found.generator, meta)


@command(app, name="import", example="sg3 directions import age_boundary.npy --name older")
def import_(
    session: Session,
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE",
            help="A direction (.npy, .pt, .pkl, .safetensors), StyleCLIP's s_stats, delta_i_c.npy or mapper.",
        ),
    ],
    model: Model = None,
    name: Name = None,
    unit: Annotated[
        str | None, typer.Option("--unit", metavar="TEXT", help="What strength 1 means, as you know it.")
    ] = None,
    scale: Annotated[float, typer.Option("--scale", metavar="X", help="Multiply the vector: the unit's length.")] = 1.0,
    out: Out = None,
    force: Force = False,
) -> None:
    """Take over a direction in another format, or StyleCLIP's tables; they are bound to the model from then on."""
    bundle = load_model(model_name(model))
    kind = kind_of(file)
    if kind == "mapper":
        return import_mapper(session, bundle, file, name, out, force)
    if kind != "direction":
        return import_table(session, bundle, file, kind)
    found = opened(str(file), bundle)
    meta = {**found.meta, **({"unit": unit} if unit else {})}
    meta.setdefault("made", f"imported from {file.name}")
    scaled = replace(
        found, name=name or found.name, vector=found.vector * scale, generator=bundle.origin.digest, meta=meta
    )
    written(session, "import", scaled, out, force)


def import_table(session: Session, bundle: Bundle, file: Path, kind: str) -> None:
    """StyleCLIP's statistics or its table of effects, beside the model."""
    from sg3cli.pipeline.text_edits import import_effects, import_statistics

    if kind == "statistics":
        path = import_statistics(bundle, file)
        said: list[str] = []
    else:
        path, said = import_effects(bundle, file)
    for notice in said:
        session.console.notice(f"import: {notice}")
    session.console.data(str(path))
    session.console.result("directions import", path=str(path), kind=kind, model=bundle.name)


def import_mapper(
    session: Session, bundle: Bundle, file: Path, name: str | None, out: Path | None, force: bool
) -> None:
    """A latent mapper of StyleCLIP's as a file of ours, which is an edit as a direction is."""
    from sg3cli.nets.checkpoint import save_mapper
    from sg3cli.weights.mapper_file import MapperFile, mapper_file, read_official_mapper

    called = name or file.stem
    path = out or Path(f"{called}.safetensors")
    if path.is_dir() or path.suffix == "":
        path = path / f"{called}.safetensors"
    check_place(path, force)
    net, said = read_official_mapper(file)
    aim = f"the step towards {said['text']!r}" if "text" in said else ""
    MapperFile(file, file.name, net.config.num_ws, net.config.w_dim, None, {}).check_fits(bundle.config)
    meta = {"name": called, "generator": bundle.origin.digest, "made": f"imported from {file.name}", "aim": aim, **said}
    save_mapper(path, net, meta)
    found = mapper_file(path)
    assert found is not None
    session.console.data(str(path))
    session.console.notice(f"{called}: strength 1 is {found.does}; --edit {path}=1")
    session.console.result("directions import", path=str(path), kind="mapper", model=bundle.name)


@command(app, example="sg3 directions export age -o age_boundary.npy")
def export(
    session: Session,
    direction: Which,
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FILE", help=".npy (an InterFaceGAN boundary) or .safetensors.")
    ],
    model: Model = None,
    force: Force = False,
) -> None:
    """Write a direction for other tools; an .npy keeps its vector alone."""
    check_place(output, force)
    found = opened(direction, load_model(model_name(model)))
    export_direction(output, found)
    session.console.data(str(output))
    session.console.result("directions export", path=str(output), **facts_of(found))


@command(app, example="sg3 directions combine age=1 glasses=0.5 --name reader")
def combine(
    session: Session,
    parts: Annotated[list[str], typer.Argument(metavar="NAME=WEIGHT...", help="Directions and how much of each.")],
    name: Annotated[str, typer.Option("--name", metavar="NAME", help="What the sum is called.")],
    model: Model = None,
    out: Out = None,
    force: Force = False,
) -> None:
    """The weighted sum of directions as one of its own."""
    bundle = load_model(model_name(model))
    weighed = [parse_part(text) for text in parts]
    total = combined(name, [(opened(each, bundle), weight) for each, weight in weighed])
    written(session, "combine", replace(total, generator=bundle.origin.digest), out, force)


def parse_part(text: str) -> tuple[str, float]:
    """`age=0.5` -> name and weight. Raises `UsageError`."""
    name, _, weight = text.rpartition("=")
    try:
        return name.strip(), float(weight)
    except ValueError:
        raise UsageError(f"cannot read {text!r}", "write NAME=WEIGHT, as age=1") from None


@command(app, example="sg3 directions orthogonalise age --against glasses")
def orthogonalise(
    session: Session,
    direction: Which,
    against: Annotated[
        list[str], typer.Option("--against", metavar="NAME|FILE", help="What shall not move with it; repeatable.")
    ],
    model: Model = None,
    name: Name = None,
    out: Out = None,
    force: Force = False,
) -> None:
    """A direction without what it shares with others, at its old length (conditional manipulation)."""
    bundle = load_model(model_name(model))
    own, others = opened(direction, bundle), [opened(each, bundle) for each in against]
    for other in others:
        if other.space != own.space:
            raise UsageError(f"{other.name} is not of the space of {own.name}", "take directions of one space")
    rows = max(len(each.vector) for each in (own, *others))
    wide = own.vector.repeat(rows, axis=0) if len(own.vector) < rows else own.vector
    vector = condition(wide, [other.vector for other in others])
    held = ", ".join(other.name for other in others)
    meta = {**own.meta, "leak": None, "range": None, "made": f"{own.meta.get('made') or own.name}, without {held}"}
    called = name or f"{own.name}-without-{others[0].name}"
    written(session, "orthogonalise", replace(own, name=called, vector=vector, meta=meta), out, force)


command(app, name="list", example="sg3 directions list")(list_)
