"""`sg3 models ...`: what is there, and bringing what is not."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from sg3cli import places
from sg3cli.cli.flags import Session, command
from sg3cli.console import Console
from sg3cli.errors import ModelError, UsageError
from sg3cli.weights import store
from sg3cli.weights.bundle import load_model
from sg3cli.weights.registry import TABLE, Model

app = typer.Typer(help="Models: what they are, where they are, bringing them here.", rich_markup_mode=None)

Name = Annotated[str, typer.Argument(metavar="NAME", help="A name of `sg3 models list`.")]


@command(app)
def list_(session: Session) -> None:
    """All known models: name, whether it is here, size, licence, source; then those you imported."""
    rows = []
    session.console.heading(f"{'model':<26} {'is':<9} {'size':>8}  {'licence':<45} source")
    for name, row in TABLE.items():
        here = store.is_present(name)
        rows.append({"name": name, "kind": row.kind, "present": here, "bytes": row.bytes, "licence": row.licence,
                     "source": row.source, "how": row.how, "needs": list(row.needs), "note": row.note,
                     "credits": list(row.credits)})  # fmt: skip
        mark = "here" if here else row.how
        session.console.data(f"{name:<26} {mark:<9} {_megabytes(row.bytes):>8}  {row.licence:<45} {row.source}")
    for each in map(_imported_row, store.imported()):
        rows.append(each)
        start = f"{each['name']:<26} {each['how']:<9} {_megabytes(each['bytes']):>8}"
        session.console.data(f"{start}  {each['licence']:<45} {each['source']}")
    session.console.heading("here: on this machine; others: sg3 models pull NAME, sg3 models import FILE")
    session.console.result("models list", models=rows)


def _imported_row(name: str) -> dict[str, Any]:
    """What `models list` tells of an imported model, a damaged one included."""
    try:
        meta, how, note = load_model(name).meta, "imported", ""
    except ModelError as error:
        meta, how, note = {}, "damaged", str(error)
    size = sum(path.stat().st_size for path in store.bundle_folder(name).rglob("*.safetensors"))
    known = {key: str(meta.get(key, "unknown")) for key in ("licence", "source")}
    return {"name": name, "kind": "bundle", "present": not note, "bytes": size, **known, "how": how,
            "needs": [], "note": note}  # fmt: skip


@command(app)
def pull(
    session: Session,
    name: Name,
    offline: Annotated[bool, typer.Option("--offline", envvar="SG3_OFFLINE", help="Never use the network.")] = False,
) -> None:
    """Download a model and verify it (nothing is fetched when it is here already)."""
    present = store.is_present(name)
    path = store.pull(name, offline, _progress(session.console, name))
    session.console.notice(f"{name}: {'already here' if present else 'pulled'}, verified")
    session.console.data(str(path))
    session.console.result("models pull", name=name, path=str(path), pulled=not present)


@command(app)
def verify(session: Session, name: Name) -> None:
    """Compare a model's files with their digests."""
    digests = store.verify(name)
    for file, digest in digests.items():
        session.console.data(f"{digest}  {file}")
    session.console.result("models verify", name=name, sha256=digests)


@command(app)
def path(session: Session, name: Name) -> None:
    """Where a model lies."""
    where = store.require(name)
    session.console.data(str(where))
    session.console.result("models path", name=name, path=str(where))


@command(app)
def remove(session: Session, name: Name) -> None:
    """Delete a downloaded model."""
    removed = store.remove(name)
    session.console.notice(f"{name}: {'removed' if removed else 'was not here'}")
    session.console.result("models remove", name=name, removed=removed)


@command(app)
def import_(
    session: Session,
    what: Annotated[
        str,
        typer.Argument(metavar="NAME|FILE", help="A generator's or encoder's file; or a name of `sg3 models list`."),
    ],
    file: Annotated[
        Path | None, typer.Argument(metavar="FILE", help="With NAME: the downloaded file, if it was not pulled.")
    ] = None,
    name: Annotated[
        str | None, typer.Option("--name", metavar="NAME", help="What to call the model [default: after the file].")
    ] = None,
    encoder: Annotated[
        Path | None, typer.Option("--encoder", metavar="FILE", help="Encoder (.pt) that belongs to the generator.")
    ] = None,
    directions: Annotated[
        list[Path] | None,
        typer.Option("--directions", metavar="FILE", help="Direction to add, such as age_boundary.npy; repeat it."),
    ] = None,
    licence: Annotated[
        str | None, typer.Option("--licence", metavar="TEXT", help="Licence of the weights, if sg3 cannot know it.")
    ] = None,
    config: Annotated[
        list[str] | None,
        typer.Option("--config", metavar="KEY=VALUE", help="A setting that a state dict does not tell; repeat it."),
    ] = None,
    reference: Annotated[
        Path | None,
        typer.Option("--reference", metavar="PNG", help="A picture drawn with it elsewhere, to compare with."),
    ] = None,
    reference_seed: Annotated[int, typer.Option("--reference-seed", metavar="N", help="Its seed.")] = 0,
    reference_psi: Annotated[float, typer.Option("--reference-psi", metavar="X", help="Its truncation.")] = 1.0,
    offline: Annotated[bool, typer.Option("--offline", envvar="SG3_OFFLINE", help="Never use the network.")] = False,
) -> None:
    """Take over official files: convert a generator (.pkl, .pt) and its encoder, once, to a model for --model.

    Nothing in a file is executed. Files that need no conversion, such as directions of the table, are copied.
    """
    given = {"--name": name, "--encoder": encoder, "--directions": directions, "--config": config}
    extras = [word for word, value in {**given, "--reference": reference}.items() if value]
    if what in TABLE and not store.is_convertible(what):
        _copy(session, what, file, extras)
        return
    row, source = _source(session.console, what, file, offline)
    name = name or (row.name if row else source.stem)
    if name in TABLE and (row is None or row.name != name):
        raise UsageError(f"{name} is another model of the table", "choose another --name")
    from sg3cli.weights.convert import Reference, Sources, import_bundle

    picture = None if reference is None else Reference(_picture(reference), reference_seed, reference_psi)
    sources = Sources(source, encoder, tuple(directions or ()), parse_config(config or []), picture)
    session.console.notice(f"import: reading {source.name}, converting it and rendering one picture as a check")
    origin = row.source if row else f"{source.name}, imported by the user"
    meta, made = import_bundle(name, sources, origin, licence or (row.licence if row else "unknown"))
    for notice in meta["notices"]:
        session.console.notice(f"import: {notice}")
    _tell_import(session, name, meta, made)


def _tell_import(session: Session, name: str, meta: dict[str, Any], made: bool) -> None:
    parts = "generator and encoder" if "encoder" in meta else "a generator without an encoder: it cannot invert"
    session.console.notice(f"{name}: {'imported' if made else 'already here'}, {meta['resolution']} px, {parts}")
    session.console.data(str(store.bundle_folder(name)))
    facts = {key: value for key, value in meta.items() if key not in ("schema", "name", "notices")}
    session.console.result("models import", name=name, path=str(store.bundle_folder(name)), imported=made, **facts)


def _copy(session: Session, name: str, file: Path | None, extras: Sequence[str]) -> None:
    """Take over a file of the table that needs no conversion."""
    if extras:
        raise UsageError(f"{name} is no generator, so {extras[0]} has no meaning", "sg3 models import NAME FILE")
    if file is None:
        raise UsageError(f"the file of {name} is missing", f"sg3 models import {name} FILE, or models pull {name}")
    where = store.add(name, file)
    session.console.data(str(where))
    session.console.result("models import", name=name, path=str(where))


def _picture(path: Path) -> Any:
    from sg3cli.drawing.images import read_image

    return read_image(path)


def parse_config(words: Sequence[str]) -> dict[str, Any]:
    """`output_scale=0.5`, `conv_clamp=none` as settings of a generator. Raises `UsageError`."""
    from sg3cli.nets.generator_config import GeneratorConfig

    known = {field.name: field.default for field in dataclasses.fields(GeneratorConfig)}
    found: dict[str, Any] = {}
    for word in words:
        name, _, text = word.partition("=")
        name = {"lr_multiplier": "mapping_lr_multiplier"}.get(name.strip(), name.strip())
        if name not in known:
            raise UsageError(f"--config {word}: a generator has no setting {name!r}", f"one of: {', '.join(known)}")
        try:
            value = {"none": None, "true": True, "false": False}.get(text.strip().lower(), text)
            whole = isinstance(value, str) and type(known[name]) is int
            found[name] = int(text) if whole else float(text) if isinstance(value, str) else value
        except ValueError as error:
            raise UsageError(f"--config {word}: {text!r} is not a number", "write NAME=NUMBER, or NAME=none") from error
    return found


def _source(console: Console, what: str, file: Path | None, offline: bool) -> tuple[Model | None, Path]:
    """The file to convert, and its row of the table if it is known there, by its name or by the file's."""
    if what in TABLE:
        if file is not None:
            store.check(what, file)
            return TABLE[what], file
        store.pull(what, offline, _progress(console, what)) if not store.is_pulled(what) else None
        return TABLE[what], store.folder_of(what) / TABLE[what].files[0].name
    source = places.expand(what)
    if file is not None:
        if source.is_file():
            raise UsageError(f"{what} is a file already", f"sg3 models import {what} --name NAME, --encoder FILE")
        store.model(what)  # raises, naming those that are known
    if not source.is_file():
        raise ModelError(f"{what!r} is neither a file nor a name of the table", "see `sg3 models list`")
    rows = (row for row in TABLE.values() if store.is_convertible(row.name) and row.files[0].name == source.name)
    return next(rows, None), source


def _progress(console: Console, name: str) -> Callable[[int, int | None], None]:
    """Tell how far a download is, every tenth of it."""
    told = -1

    def report(done: int, total: int | None) -> None:
        nonlocal told
        tenth = 10 * done // total if total else done >> 23
        if tenth > told:
            told = tenth
            console.notice(f"{name}: {_megabytes(done)}" + (f" of {_megabytes(total)}" if total else ""))

    return report


def _megabytes(size: int | None) -> str:
    return "?" if size is None else f"{size / 1e6:.1f} MB"
