"""`sg3 train flow`: what `--target age=70` needs, for any model (StyleFlow)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sg3cli.cli.flags import Session
from sg3cli.cli.setting_sources import model_name
from sg3cli.cli.train.directions import Attributes, ClassifierFile, Codes, Input, Model
from sg3cli.errors import InputError, ModelError, UsageError
from sg3cli.weights.bundle import FLOW, Bundle, load_model

if TYPE_CHECKING:
    from sg3cli.training.flow.run import FlowSources

IMAGES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")

Pictures = Annotated[
    list[Path] | None,
    typer.Argument(metavar="PICTURES...", help="Aligned faces, or folders of them (sg3 train prepare)."),
]
Out = Annotated[Path | None, typer.Option("--out", metavar="FILE", help=f"Where it goes [the model's own {FLOW}].")]
Steps = Annotated[int, typer.Option("--steps", min=1, help="Steps of the fit.")]
Seed = Annotated[int, typer.Option("--seed", min=0, help="Seed of the split and of the fit.")]


def flow(
    session: Session,
    pictures: Pictures = None,
    model: Model = None,
    out: Out = None,
    codes: Codes = None,
    classifier: ClassifierFile = None,
    classifier_input: Input = 256,
    attributes: Attributes = None,
    steps: Steps = 800,
    seed: Seed = 0,
) -> None:
    """Fit a flow on a model's codes, so that attributes can be brought to values; thousands of pictures are good."""
    from sg3cli.training.flow.run import train_flow

    if bool(pictures) == (codes is not None):
        raise UsageError("give either PICTURES or --codes", "sg3 train flow --help")
    bundle = load_model(model_name(model))
    path = out or bundle.companion(FLOW)
    if path.parent.is_file() or (out is not None and not path.parent.is_dir()):
        raise InputError(f"cannot write {path}: there is no folder {path.parent}", "make the folder first")
    path.parent.mkdir(parents=True, exist_ok=True)
    given = sources(session, bundle, pictures or [], codes, classifier, classifier_input, attributes, (steps, seed))
    made = train_flow(bundle, path, given, session.console)
    session.console.data(str(path))
    session.console.result("train flow", path=str(path), model=bundle.name, attributes=list(made.config.targets))


def sources(
    session: Session,
    bundle: Bundle,
    pictures: list[Path],
    codes: Path | None,
    classifier: Path | None,
    size: int,
    attributes: str | None,
    fit: tuple[int, int],
) -> FlowSources:
    """What the flow is made of. Raises what says what is missing."""
    import torch

    from sg3cli.evaluation.face_reading import open_reading
    from sg3cli.training.directions.classifier import Classifier
    from sg3cli.training.flow.fit import FitConfig
    from sg3cli.training.flow.run import FlowSources
    from sg3cli.weights.import_arrays import read_codes

    config = FitConfig(steps=fit[0], seed=fit[1])
    files = [] if codes is not None else image_files(pictures)
    ws = None if codes is None else read_codes(codes, None)
    if ws is not None and ws.shape[1:] != (bundle.config.num_ws, bundle.config.w_dim):
        wanted = f"[N,{bundle.config.num_ws},{bundle.config.w_dim}]"
        raise InputError(f"{codes} holds an array of {ws.shape}", f"the model wants {wanted}")
    if classifier is not None:
        names = tuple(part.strip() for part in attributes.split(",")) if attributes else ()
        scores = Classifier(classifier, names, size, torch.device("cpu"))
        return FlowSources(
            scores.names, lambda x: torch.from_numpy(scores(x)).float(), classifier.name, files, ws, config
        )
    reading = open_reading(bundle, session.console)
    if reading is None:
        raise ModelError(f"nothing reads the faces of {bundle.name}", "give --classifier FILE --attributes NAME,...")
    network = reading.network
    return FlowSources(reading.labels, lambda x: network(x)[0].float(), reading.name, files, ws, config)


def image_files(given: list[Path]) -> list[Path]:
    """All pictures, those of folders in the order of their names. Raises `InputError` when there is none."""
    found: list[Path] = []
    for path in given:
        if path.is_dir():
            found += sorted(p for p in path.rglob("*") if p.suffix.lower() in IMAGES)
        elif path.is_file():
            found.append(path)
        else:
            raise InputError(f"there is no picture and no folder {path}", "give aligned faces: sg3 train prepare")
    if not found:
        raise InputError(f"there are no pictures in {', '.join(map(str, given))}", "give aligned faces")
    return found
