"""`sg3 batch`: many clips here, in shards of a job array, or on a Ray cluster."""

from __future__ import annotations

import os
import time
import traceback
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sg3cli.cli import Stopped, as_expected, batch_inputs, find_project
from sg3cli.cli import batch as many
from sg3cli.cli.batch_inputs import Entry
from sg3cli.cli.edit_flags import Channels, Directions, Edits, Strengths, Targets, asked_edits
from sg3cli.cli.flags import Session
from sg3cli.cli.jobs import found_job, opened
from sg3cli.console import LINE_EVERY
from sg3cli.errors import Sg3Error, UsageError
from sg3cli.latents.edits import Edit, with_edits
from sg3cli.pipeline.batch.plan import CUT, of_shard, parse_shard

if TYPE_CHECKING:
    from sg3cli.pipeline import Job
    from sg3cli.pipeline.batch.clip import BatchClip
    from sg3cli.pipeline.batch.schedule import Flow

STORE = ".sg3-batch"  # folder in that of the outputs
RETRIES = 3
AT_WORK = "at work"
INPUTS_HELP = "Videos, folders of videos, quoted patterns ('f/*.mp4'), pictures, or projects (*.sg3)."

Inputs = Annotated[list[str] | None, typer.Argument(metavar="INPUT", help=INPUTS_HELP, show_default=False)]
OutDir = Annotated[Path, typer.Option("--out-dir", metavar="OUT", help="Folder for the outputs and projects.")]
Force = Annotated[bool, typer.Option("--force", help="Replace outputs that sg3 did not make.", show_default=False)]
DryRun = Annotated[
    bool,
    typer.Option("--dry-run", help="Say what is to do for each clip, how long and in how much memory; do nothing."),
]
Shard = Annotated[
    str | None, typer.Option("--shard", metavar="K/N", help="Only the K-th of N parts of the inputs, counted from 1.")
]
Ray = Annotated[
    str | None,
    typer.Option(
        "--ray",
        metavar="local|auto|ADDRESS",
        help="Work on Ray: a cluster that is started here, the one that runs, or its address.",
    ),
]
Workers = Annotated[
    int | None, typer.Option("--workers", metavar="N", min=1, help="Workers on Ray [default: as many as fit].")
]
Cpus = Annotated[float, typer.Option("--cpus", metavar="C", min=0, help="Processors of each, also its threads.")]
Gpus = Annotated[float, typer.Option("--gpus", metavar="G", min=0, help="GPUs of each; 0.25: four share one.")]
Retries = Annotated[int, typer.Option("--retries", metavar="N", min=0, help="Workers that a task may lose.")]
Store = Annotated[
    str | None,
    typer.Option(
        "--store",
        metavar="DIR|URL",
        help=f"Where workers leave results, seen by all: a folder or what fsspec reaches [default: OUT/{STORE}].",
    ),
]
Longest = Annotated[
    float, typer.Option("--cut", metavar="SECONDS", min=0, help="Longer clips are worked on in ranges; 0: none.")
]


@dataclass(frozen=True)
class Cluster:
    """What the options say about the work on Ray."""

    address: str
    count: int | None
    cpus: float
    gpus: float
    retries: int
    store: str
    longest: float


def batch(
    session: Session,
    out_dir: OutDir,
    sources: Inputs = None,
    edit: Edits = None,
    direction: Directions = None,
    strength: Strengths = None,
    channel: Channels = None,
    target: Targets = None,
    force: Force = False,
    name: many.Name = None,
    listed: many.From = None,
    keep_going: many.KeepGoing = True,
    shard: Shard = None,
    dry_run: DryRun = False,
    ray: Ray = None,
    workers: Workers = None,
    cpus: Cpus = 1,
    gpus: Gpus = 0,
    retries: Retries = RETRIES,
    store: Store = None,
    longest: Longest = CUT,
) -> None:
    """Edit many clips: one after the other, as a shard of a job array, or at once by the workers of a Ray cluster.

    What comes out is what `sg3 run` makes of each, byte for byte, and the same command goes on where it was.
    """
    if ray is None:
        given_for = [
            option for option, value in (("--workers", workers), ("--store", store), ("--gpus", gpus)) if value
        ]
        if given_for:
            raise UsageError(f"{given_for[0]} is for --ray", "say --ray local, or leave it out")
    part = None if shard is None else parse_shard(shard)
    asked = asked_edits(edit, direction, strength, channel, targets=target)
    wanted = None if asked is None else with_edits([], asked)
    given = batch_inputs.gather(sources or [], listed, out_dir, session.console)
    planned = many.entries(session, given, None, out_dir, name, wanted or [], make=not dry_run)
    if part is not None:
        planned = of_shard(planned, *part)
        session.console.notice(f"shard {shard}: {len(planned)} of {len(given)} inputs")
    place = store or str(out_dir / STORE)
    place = place if "://" in place else os.path.abspath(place)
    cluster = None if ray is None else Cluster(ray, workers, cpus, gpus, retries, place, longest)
    if dry_run:
        show_plan(session, planned, wanted, cluster)
    elif cluster is not None:
        on_cluster(session, planned, wanted, force, keep_going, cluster)
    else:

        def one_of_many(own: Session, source: str, out: str) -> Job:
            with opened(own, source, "batch") as job:
                job.run(out, wanted, force)
            return job

        many.run(session, planned, one_of_many, keep_going, "batch")


# ---- the plan


def show_plan(session: Session, planned: Sequence[Entry], edits: list[Edit] | None, cluster: Cluster | None) -> None:
    """A line for each clip and one for all; nothing is written."""
    from sg3cli.pipeline.batch import estimate

    found, rows = [], []
    for entry in planned:
        own = replace(session, console=many.own_console(session.console, entry), project=entry.project)
        try:
            job = found_job(own, entry.input)
            clip = estimate.of_clip(job, entry.output, edits, 0.0 if cluster is None else cluster.longest)
        except Sg3Error as error:
            found.append({"input": entry.input, "error": str(error)})
            rows.append(f"{entry.input}  {error}")
            continue
        found.append({"input": entry.input, "output": entry.output, **asdict(clip)})
        rows.append(f"{entry.input}  {clip.describe()}")
    clips = [row for row in found if "error" not in row]
    count = 1 if cluster is None else cluster.count
    total = estimate.of_all(clips, count)
    for row in [*rows, total.describe()]:
        session.console.data(row)
    session.console.result("batch", plan=found, **asdict(total))


# ---- on Ray


def on_cluster(
    session: Session,
    planned: Sequence[Entry],
    edits: list[Edit] | None,
    force: bool,
    keep_going: bool,
    cluster: Cluster,
) -> None:
    """All clips at once, by the workers of a cluster; then the table and the object of `--json`."""
    from sg3cli.pipeline.batch.on_ray import RayPool, Workers
    from sg3cli.pipeline.batch.schedule import Schedule

    began, tasks = time.monotonic(), 0
    flows = [flow_of(session, entry, edits, force, cluster, alone=len(planned) == 1) for entry in planned]
    workers = Workers(cluster.count, cluster.cpus, cluster.gpus)
    pool = RayPool(cluster.address, workers, session.console.notice)
    schedule = Schedule(flows, pool, session.console.notice, keep_going, cluster.retries)
    told, said = began, ""
    try:
        for title in schedule.run():
            tasks += bool(title)
            if time.monotonic() - told > LINE_EVERY and (state := schedule.state()) != said:
                told, said = time.monotonic(), state
                session.console.show(f"batch: {state}")
    except Stopped as stop:
        for entry in planned:
            entry.status = "interrupted" if entry.status == AT_WORK else entry.status
        stop.facts = {"inputs": [entry.to_dict() for entry in planned]}
        many.show_table(session.console, planned)
        raise
    finally:
        pool.close()
        if Path(cluster.store).name == STORE:
            with suppress(OSError):  # unless a clip that is not finished has left something in it
                Path(cluster.store).rmdir()
    many.finish(session, planned, "batch", began, tasks=tasks, lost=schedule.lost, workers=pool.names)


def flow_of(
    session: Session, entry: Entry, edits: list[Edit] | None, force: bool, cluster: Cluster, alone: bool
) -> Flow:
    """A clip's way through the schedule, which keeps its entry true."""
    from sg3cli.pipeline.batch.clip import BatchClip
    from sg3cli.pipeline.batch.schedule import Flow

    console = many.own_console(session.console, entry)
    own = replace(session, console=console, project=entry.project)
    began = 0.0

    def begin() -> BatchClip:
        nonlocal began
        began, entry.status = time.monotonic(), AT_WORK
        many.make_folder(entry.output)
        job = found_job(own, entry.input)
        return BatchClip(job, entry.output, edits, force, cluster.store, cluster.longest)

    def end(clip: BatchClip | None, error: Exception | None) -> None:
        entry.seconds = time.monotonic() - began
        if error is not None or clip is None:
            entry.status, entry.error = "failed", as_expected(error or RuntimeError("no clip"), "batch")
            if session.debug and error is not None:
                traceback.print_exception(error)
            if not alone:
                console.error(str(entry.error), entry.error.hint)
                entry.error.__traceback__ = entry.error.__cause__ = entry.error.__context__ = None
        else:
            entry.status = str(clip.stages["render"]["status"])
            entry.facts = {"stages": clip.stages, "edits": clip.job.project.stored_edits}
            session.console.data(find_project.path_line(clip.job.project.path))
        entry.facts["notices"] = console.notices

    return Flow(entry.input, begin, end)
