"""The rendered file: whether it may be written, whether it is there already, and the record of how it was made."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sg3cli import __version__
from sg3cli.errors import UsageError
from sg3cli.files import atomic_path, digest_of, sweep, write_error, write_json
from sg3cli.project import Project
from sg3cli.settings import EncodeConfig
from sg3cli.video import image_sequence

if TYPE_CHECKING:
    from sg3cli.pipeline.credentials import Signing

TOOL = "sg3"
UNFINISHED = "render"  # folder in a project of what belongs to a video that is not finished
VOUCHED = f"{UNFINISHED}/vouched.json"


def sidecar_of(out: str) -> Path:
    """Where the provenance record lies: `<out>.json`; of images that of their pattern."""
    return Path(f"{image_sequence.output_name(out)}.json")


def check(project: Project, out: str, encode: EncodeConfig, force: bool, as_json: bool) -> None:
    """Raise `UsageError` or `InputError` when `out` cannot or should not be written, before any work is done."""
    from sg3cli.video.output_file import Output

    if out == "-" and as_json:
        raise UsageError("--json and `-o -` both want stdout", "write to a file")
    Output(out, project.source(), encode.format)
    if out != "-":
        check_folder(Path(image_sequence.output_name(out)))
        check_replaceable(out, force or is_marked_as_ours(project, out))
        _check_encoder(project, out, encode)


def _check_encoder(project: Project, out: str, encode: EncodeConfig) -> None:
    """Open the output and give it up again: a misspelt codec should not show after an hour of tuning."""
    from sg3cli.video import VideoWriter
    from sg3cli.video.probe import probe

    VideoWriter(out, probe(project.source(), **project.reading), encode).rehearse()


def check_folder(path: Path) -> None:
    """A file can be made in the output's folder (tried, because permissions alone do not tell)."""
    folder = path.parent if path.parent.is_dir() or not image_sequence.is_pattern(path) else path.parent.parent
    try:
        with tempfile.TemporaryFile(dir=folder, prefix=".sg3-"):  # it has no name, so that a kill leaves nothing
            pass
    except OSError as error:
        raise write_error(path, error) from error


def check_replaceable(out: str, force: bool) -> None:
    """Raise `UsageError` when `out` is there, is not ours, and its loss is not asked for."""
    if image_sequence.written(out) and not force and read_sidecar(out) is None:
        raise UsageError(f"{out} exists and was not made by sg3", "choose another name, or replace it with --force")


def mark_as_ours(project: Project, out: str, whole: Path) -> None:
    """Note that the files of `whole` are ours, before they are named `out`: a kill may come before their sidecar does.

    Images get their names one by one, so those of an earlier video, which may be replaced by now, are noted too.
    """
    files = [
        *image_sequence.written(str(whole)),
        *(image_sequence.written(out) if image_sequence.is_pattern(whole) else []),
    ]
    digests = sorted({digest_of(path) for path in files})
    write_json(project.path / VOUCHED, {"out": str(Path(image_sequence.output_name(out)).resolve()), "sha256": digests})


def is_marked_as_ours(project: Project, out: str) -> bool:
    """Whether all that is there under the name `out` is what a run that was killed since has put there."""
    try:
        noted = json.loads((project.path / VOUCHED).read_text(encoding="utf8"))
        ours = noted["out"] == str(Path(image_sequence.output_name(out)).resolve())
        return ours and all(digest_of(path) in noted["sha256"] for path in image_sequence.written(out))
    except (OSError, ValueError, KeyError, TypeError):
        return False


def read_sidecar(out: str) -> dict[str, Any] | None:
    """The provenance record that describes the file `out` as it is, None when there is none."""
    try:
        record = json.loads(sidecar_of(out).read_text(encoding="utf8"))
        ours = str(record["tool"]).startswith(TOOL) and record["output"]["sha256"] == digest_of_output(out)
        return dict(record) if ours else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def is_current(project: Project, out: str, key: str) -> bool:
    """Whether `out` is what a render with this content key wrote, byte for byte."""
    known = project.record("render").facts.get("outputs", {}).get(str(Path(out).resolve()))
    if out == "-" or known is None or known["key"] != key or not image_sequence.written(out):
        return False
    return digest_of_output(out) in (known["sha256"], known.get("to_be"))


def digest_of_output(out: str) -> str:
    """`sha256:...` of the file, or of all images that `out` means."""
    return image_sequence.fingerprint(Path(image_sequence.output_name(out)))[1]


def provenance(project: Project, edits: list[dict[str, Any]], models: Mapping[str, Any]) -> dict[str, Any]:
    """What goes with every output: the tool, the clip, the edits and the models."""
    source = project.manifest["source"]
    clip = {"name": Path(source["path"]).name, "size": source["size"], "sha256": source["sha256"]}
    return stamped("edited with a generative model", source=clip, edits=edits, models=dict(models))


def stamped(note: str, **facts: Any) -> dict[str, Any]:
    """A provenance record: the schema, the tool, what kind of thing it goes with, and how that was made."""
    return {"schema": 1, "tool": f"{TOOL} {__version__}", "note": note, **facts}


def write_sidecar(out: str, record: Mapping[str, Any], signing: Signing | None = None) -> str:
    """The provenance record beside the output, with the output's own digest, which is returned, and who signed it."""
    path = Path(image_sequence.output_name(out))
    size, digest, _ = image_sequence.fingerprint(path)
    identity = {"name": path.name, "size": size, "sha256": digest}
    sweep(sidecar_of(out))
    signed = {} if signing is None else {"credentials": signing.facts}
    write_json(sidecar_of(out), {**record, **signed, "output": identity})
    return digest


def sign_finished(project: Project, out: str, record: Mapping[str, Any], signing: Signing | None) -> None:
    """Sign the output that stands, unless it is signed so or that is not asked for; its frames stay as they are."""
    outputs, name = dict(project.record("render").facts["outputs"]), str(Path(out).resolve())
    if signing is None or outputs[name].get("signed") == signing.mark:
        return
    final = Path(image_sequence.output_name(out)).resolve()
    sweep(final)
    with atomic_path(final) as fresh:
        signing(final, fresh)
        mark_as_ours(project, out, fresh)
        known = {**outputs[name], "to_be": digest_of(fresh)}  # a kill may come before the rest: it is a finished render
        project.note("render", outputs={**outputs, name: known})
    known = {"key": known["key"], "sha256": write_sidecar(out, record, signing), "signed": signing.mark}
    project.note("render", outputs={**outputs, name: known})


def record(project: Project, out: str, key: str, facts: Mapping[str, Any], seconds: float) -> None:
    """Note a finished render in the project; `facts` are those of `render.run`."""
    outputs = dict(project.record("render").facts.get("outputs", {}))
    if out != "-":
        signed = {"signed": facts["signed"]} if facts["signed"] else {}
        outputs[str(Path(out).resolve())] = {"key": key, "sha256": facts["sha256"], **signed}
    made: dict[str, Any] = {"outputs": outputs, "edits": project.stored_edits, "notices": facts["notices"]}
    project.commit("render", key, params=facts["params"], inputs=facts["inputs"], files=[], seconds=seconds, **made)
