"""`sg3 models ...` and `sg3 directions ...`: what is there, and bringing what is not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from sg3cli.cli.options import Session, command
from sg3cli.config import InvertConfig
from sg3cli.console import Console
from sg3cli.directions.load import load_direction
from sg3cli.weights import store
from sg3cli.weights.bundle import load_bundle
from sg3cli.weights.table import TABLE

app = typer.Typer(help="Models: what they are, where they are, bringing them here.", rich_markup_mode=None)
directions_app = typer.Typer(help="Directions that a model can be edited along.", rich_markup_mode=None)

Name = Annotated[str, typer.Argument(metavar="NAME", help="A name of `sg3 models list`.")]


@command(app)
def list_(session: Session) -> None:
    """All known models: name, whether it is here, size, licence, source."""
    rows = []
    for name, row in TABLE.items():
        here = store.is_present(name)
        rows.append({"name": name, "kind": row.kind, "present": here, "bytes": row.bytes, "licence": row.licence,
                     "source": row.source, "how": row.how, "needs": list(row.needs), "note": row.note})  # fmt: skip
        mark = "here" if here else row.how
        session.console.data(f"{name:<26} {mark:<9} {_megabytes(row.bytes):>8}  {row.licence:<45} {row.source}")
    session.console.result("models list", models=rows)


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
def import_(session: Session, name: Name, file: Annotated[Path, typer.Argument(help="The downloaded file.")]) -> None:
    """Take over a file that you downloaded yourself (models whose publisher has no direct download)."""
    where = store.add(name, file)
    session.console.data(str(where))
    session.console.result("models import", name=name, path=str(where))


@command(directions_app)
def list__(
    session: Session,
    model: Annotated[str, typer.Option("--model", help="A model's name or folder.")] = InvertConfig().model,
) -> None:
    """The directions of a model, with what is known of each."""
    bundle = load_bundle(model)
    rows = []
    for name in bundle.direction_names():
        direction = load_direction(bundle.direction_path(name))
        rows.append({"name": name, "path": str(bundle.direction_path(name)), "meta": direction.meta})
        session.console.data(f"{name:<14} {direction.meta.get('description', '')}".rstrip())
    session.console.result("directions list", model=bundle.name, directions=rows)


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
