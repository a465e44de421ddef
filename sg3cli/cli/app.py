"""The commands. Each is thin: find the project, run the stages, say what came of it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
import typer.core

import sg3cli
from sg3cli.cli import (
    adapt,
    batch,
    batch_command,
    batch_inputs,
    bench,
    directions,
    evaluate,
    evaluate_generator,
    evaluate_inversion,
    evaluate_spaces,
    evaluate_video,
    find_project,
    generate,
    inspection,
    models,
    preview,
    report,
    setting_sources,
    text_edits,
)
from sg3cli.cli.edit_flags import Channels, Directions, Edits, Layers, Strengths, Targets, asked_edits
from sg3cli.cli.flags import Session, command
from sg3cli.cli.jobs import opened, show_outlook, working
from sg3cli.cli.text_reports import doctor_lines
from sg3cli.cli.train import bundle, encoder, flow, generator, group, prepare, score
from sg3cli.cli.train import directions as learn
from sg3cli.cli.train import mapper as train_mapper
from sg3cli.cli.train import text as train_text
from sg3cli.errors import UsageError
from sg3cli.latents.edits import with_edits

if TYPE_CHECKING:
    from sg3cli.pipeline import Job

TASKS = {  # headings of `sg3 --help`
    "Edit a video": ("run", "align", "invert", "finetune", "edit", "render", "batch"),
    "Look": ("faces", "preview", "inspect", "evaluate", "evaluate video", "report", "generate"),
    "Models and this machine": (
        *("models", "directions", "train", "adapt", "evaluate generator", "evaluate spaces", "evaluate inversion"),
        *("doctor", "bench"),
    ),
}


TWO_WORDS = {
    f"evaluate {what}" for what in ("video", "generator", "spaces", "inversion")
}  # `evaluate` is a command too


class ByTask(typer.core.TyperGroup):
    """The commands under the task that they are for, each with the first line of its help."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """As always, but that a name may be of two words."""
        if (name := " ".join(args[:2])) in TWO_WORDS:
            return name, self.commands[name], args[2:]
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write the sections of `sg3 --help`."""
        for task, names in TASKS.items():
            with formatter.section(task):
                formatter.write_dl([(name, self.commands[name].get_short_help_str(70)) for name in names])


app = typer.Typer(
    cls=ByTask,
    help="Edit the face in a video with StyleGAN3: same frames, same timing, same sound.",
    epilog="PROJECT may be left out: it is read from a pipe, from $SG3_PROJECT, or is the only *.sg3 here.",
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
app.add_typer(models.app, name="models")
app.add_typer(directions.app, name="directions")
app.add_typer(group.app, name="train")

ALL = ("input", "align", "invert", "finetune", "render", "encode", "credentials")
INPUT_HELP = "A video (`-`: stdin), a picture, a folder of pictures, a pattern as in f/%04d.png, or a project (*.sg3)."
ESSENTIAL = ("rate", "face", "landmarks", "model", "view", "smooth", "codec", "crf", "preset")  # in `sg3 run --help`

Input = Annotated[str | None, typer.Argument(metavar="INPUT|PROJECT", help=INPUT_HELP, show_default=False)]
Inputs = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="INPUT",
        help=f"{INPUT_HELP} Several need --out-dir, as do a folder of videos and a quoted pattern, 'f/*.mp4'.",
        show_default=False,
    ),
]
Target = Annotated[str | None, typer.Argument(metavar="PROJECT", help="A project, or its video.", show_default=False)]
OUTPUT = typer.Option(
    "--output", "-o", metavar="OUT", help="The video to write; `-` is stdout, f/%04d.png or f/ are pictures."
)
Output = Annotated[str, OUTPUT]
OneOutput = Annotated[str | None, OUTPUT]
DryRun = Annotated[
    bool,
    typer.Option("--dry-run", help="Say what would be computed and what it takes; do nothing.", show_default=False),
]
Force = Annotated[bool, typer.Option("--force", help="Replace an output that sg3 did not make.", show_default=False)]


@app.callback(invoke_without_command=True)
def top(
    ctx: typer.Context,
    version: Annotated[bool, typer.Option("--version", "-V", help="Print the version.", show_default=False)] = False,
) -> None:
    """Options before the command."""
    if version:
        typer.echo(f"sg3 {sg3cli.__version__}")
    elif ctx.invoked_subcommand is None:
        typer.echo(ctx.get_help())
        raise typer.Exit(0)


@command(
    app, own=ALL, show=ESSENTIAL, presets=("draft", "quality"), example="sg3 run talk.mp4 -o older.mp4 --edit age=2"
)
def run(
    session: Session,
    sources: Inputs = None,
    output: OneOutput = None,
    edit: Edits = None,
    direction: Directions = None,
    strength: Strengths = None,
    channel: Channels = None,
    target: Targets = None,
    text: text_edits.Texts = None,
    alpha: text_edits.Alpha = None,
    target_change: text_edits.TargetChange = None,
    beta: text_edits.Beta = None,
    text_model: text_edits.TextModelName = text_edits.TEXT_MODEL,
    force: Force = False,
    out_dir: batch.OutDir = None,
    name: batch.Name = None,
    listed: batch.From = None,
    keep_going: batch.KeepGoing = True,
    dry_run: DryRun = False,
) -> None:
    """The whole chain: align, invert, finetune, edit, render. Other settings: see the help of each stage."""
    asked = asked_edits(edit, direction, strength, channel, targets=target)
    texts = text_edits.AskedTexts(text, alpha, target_change, "a face", beta, text_model)
    edits = with_edits([], asked or [])
    named = [*edits, *texts.placeholders()]

    def work(own: Session, job: Job, out: str) -> None:
        if text:
            job.check_output(out, force)  # before the faces are looked at
        wanted = None if asked is None and not text else [*edits, *texts.edits(own, job)]
        job.run(out, wanted, force)

    def one_of_many(own: Session, source: str, out: str) -> Job:
        with opened(own, source, "run") as job:
            work(own, job, out)
        return job

    given = batch_inputs.gather(sources or [], listed, out_dir, session.console)
    if output is None and out_dir is None and len(given) == 1:
        output = batch_inputs.default_output(given[0], named, session)
    if dry_run:
        for source in given:
            show_outlook(session, source, "render", output, None if asked is None else edits, force)
        return None
    planned = batch.entries(session, given, output, out_dir, name, named)
    if planned:
        batch.run(session, planned, one_of_many, keep_going)
    elif output is not None:
        with working(session, given[0], "run", output) as (job, _):
            work(session, job, output)


@command(app, own=("input", "align"), example="sg3 align talk.mp4 --face left")
def align(session: Session, source: Input = None, dry_run: DryRun = False) -> None:
    """Find the face in every frame."""
    if dry_run:
        return show_outlook(session, source, "align")
    with working(session, source, "align") as (job, _):
        job.align()


@command(app, own=("input", "align"), show=("landmarks", "embedder", "rate"), example="sg3 faces talk.mp4")
def faces(
    session: Session,
    source: Input = None,
    sheet: Annotated[
        Path | None,
        typer.Option("--sheet", metavar="PNG", help="Where the contact sheet goes [default: PROJECT/faces.png]."),
    ] = None,
) -> None:
    """List the people in a clip, with the numbers that --face takes, and draw a contact sheet of them."""
    from sg3cli.pipeline import people

    with working(session, source, "faces") as (job, reply):
        clip, found = people.table(job)
        path = sheet or job.project.path / "faces.png"
        people.write_sheet(job, clip, path)
        job.project.save()
        reply.update(faces=found, sheet=str(path))
        for line in people.lines(found):
            session.console.data(line)
        session.console.notice(f"faces: their pictures are in {path}")


@command(app, own=("input", "invert"), before=("align",), example="sg3 invert talk.mp4")
def invert(session: Session, source: Input = None, dry_run: DryRun = False) -> None:
    """Find the latent codes of the face (aligns first if that is not done)."""
    if dry_run:
        return show_outlook(session, source, "invert")
    with working(session, source, "invert") as (job, _):
        job.invert()


@command(app, own=("finetune",), before=("align", "invert"), example="sg3 finetune --steps 200")
def finetune(
    session: Session,
    project: Target = None,
    smooth: Annotated[str | None, typer.Option("--smooth", help="Smoothing that `render` will use.")] = None,
    dry_run: DryRun = False,
) -> None:
    """Tune the generator to the person in the clip."""
    if smooth is not None:
        session.flags.setdefault("render", {})["smooth"] = setting_sources.check("render", "smooth", smooth, "--smooth")
    if dry_run:
        return show_outlook(session, project, "finetune")
    with working(session, project, "finetune") as (job, _):
        job.finetune()


@command(app, before=("align", "invert"), example="sg3 edit --edit age=2 --edit smile=1@0s..2s")
def edit(
    session: Session,
    project: Target = None,
    edit: Edits = None,
    direction: Directions = None,
    strength: Strengths = None,
    channel: Channels = None,
    target: Targets = None,
    layers: Layers = None,
    space: Annotated[
        str | None, typer.Option(metavar="w|s", help="Apply directions in this space [default: that of each].")
    ] = None,
    preserve: Annotated[
        list[str] | None, typer.Option(metavar="NAME|FILE", help="Keep this attribute as it is; repeatable.")
    ] = None,
    face: Annotated[
        int | None,
        typer.Option(metavar="N", min=0, help="Only this face, a number of `sg3 faces`; else all chosen ones."),
    ] = None,
    text: text_edits.Texts = None,
    alpha: text_edits.Alpha = None,
    target_change: text_edits.TargetChange = None,
    beta: text_edits.Beta = None,
    neutral: text_edits.Neutral = "a face",
    text_model: text_edits.TextModelName = text_edits.TEXT_MODEL,
    clear: Annotated[bool, typer.Option("--clear", help="Remove all edits first.", show_default=False)] = False,
    undo: Annotated[bool, typer.Option("--undo", help="Take back the last change.", show_default=False)] = False,
    listed: Annotated[bool, typer.Option("--list", help="Show the edits, change none.", show_default=False)] = False,
) -> None:
    """Set what is edited and how much (setting a direction again replaces it)."""
    asked = asked_edits(edit, direction, strength, channel, layers, space, preserve or [], face, target)
    texts = text_edits.AskedTexts(text, alpha, target_change, neutral, beta, text_model)
    if asked is None and text:
        asked = []
    if asked is None and not (clear or undo or listed):
        raise UsageError(
            "nothing to edit", "give --edit age=2 or --direction and --strength, or --list, --undo, --clear"
        )
    if (undo or listed) and (asked is not None or clear or (undo and listed)):
        raise UsageError("--undo and --list stand alone", "set edits in a command of their own")
    with working(session, project, "edit") as (job, reply):
        if listed:
            lines = [one.describe() for one in job.project.edits]
            reply["described"] = lines
            for line in lines or ["no edits"]:
                session.console.data(line)
        elif undo:
            from sg3cli.pipeline import edit as edit_stage

            edit_stage.undo(job)
        else:
            said = texts.edits(session, job)
            job.edit([*(asked or []), *said], onto=[] if clear else job.project.edits)


@command(
    app,
    own=("render", "encode", "credentials"),
    before=("align", "invert", "finetune"),
    presets=("draft", "quality"),
    example="sg3 render -o older.mp4 --range 0:10-0:20",
)
def render(
    session: Session, output: OneOutput = None, project: Target = None, force: Force = False, dry_run: DryRun = False
) -> None:
    """Write the edited video (runs whatever is missing before it)."""
    target = find_project.find_target(project, session.project, session.console)
    if dry_run:
        return show_outlook(session, target, "render", output, force=force)
    if output is None:
        opened_project = find_project.open_target(target, session.project)
        output = batch_inputs.default_output(str(opened_project.source()), opened_project.edits, session)
    with working(session, target, "render", output) as (job, _):
        job.run(output, force=force)


@command(app, example="sg3 doctor")
def doctor(session: Session) -> None:
    """Show what this machine offers: versions, device, compiler, models."""
    from sg3cli.cli.doctor import examine

    facts = examine()
    for line in doctor_lines(facts):
        session.console.data(line)
    session.console.result("doctor", **facts)


command(
    app,
    own=ALL,
    show=ESSENTIAL,
    presets=("draft", "quality"),
    example="sg3 batch clips --out-dir older --edit age=2 --ray local",
)(batch_command.batch)
command(
    app,
    own=("render",),
    before=("align", "invert"),
    show=("view", "transfer", "stitch", "smooth"),
    presets=("draft",),
    example="sg3 preview talk.mp4 --edit age=2 --at 1.5s",
)(preview.preview)
command(app, example="sg3 inspect older.mp4")(inspection.inspect)
command(app, example="sg3 generate -o grid.png --seeds 0-15")(generate.generate)
command(app, example="sg3 evaluate talk.sg3")(evaluate.evaluate)
command(app, name="evaluate video", example="sg3 evaluate video --source talk.mp4 --edited other_tool.mp4")(
    evaluate_video.video
)
command(app, example="sg3 report talk.sg3 -o report.html")(report.report)
command(app, name="evaluate generator", example="sg3 evaluate generator --against pictures --quick")(
    evaluate_generator.generator
)
command(app, name="evaluate spaces", example="sg3 evaluate spaces --quick")(evaluate_spaces.spaces)
command(app, name="evaluate inversion", example="sg3 evaluate inversion pictures --quick")(evaluate_inversion.inversion)
command(app, example="sg3 bench people-128")(bench.bench)
command(app, example='sg3 adapt --from photo --to "a pencil sketch" --out sketch')(adapt.adapt)
command(group.app)(generator.generator)
command(group.app)(encoder.encoder)
command(group.app)(learn.directions)
command(directions.app, name="learn", example="sg3 directions learn --labels labels.csv --out mine")(learn.directions)
command(group.app)(bundle.bundle)
command(group.app)(prepare.prepare)
command(group.app)(score.score)
command(group.app, example="sg3 train flow faces/ --model mine")(flow.flow)
command(group.app, example="sg3 train text labels.csv --model mine")(train_text.text)
command(group.app, example="sg3 train mapper --text 'an old man with glasses' --out old.safetensors")(
    train_mapper.mapper
)


def command_name(argv: list[str]) -> str:
    """`models list`, `invert`, or nothing, as far as raw arguments tell it."""
    words = [word for word in argv if not word.startswith("-")]
    known = {entry.name or "" for entry in app.registered_commands}
    groups = {group.name or "": group for group in app.registered_groups}
    if not words or words[0] not in known | groups.keys():
        return ""
    two = " ".join(words[:2])
    return two if words[0] in groups or two in known else words[0]
