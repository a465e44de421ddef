"""`sg3 directions learn`, also called `sg3 train directions`: directions of any model, from labels or a classifier."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sg3cli.cli.flags import Session
from sg3cli.cli.setting_sources import model_name
from sg3cli.errors import UsageError
from sg3cli.settings import InvertConfig
from sg3cli.training.config import TrainDirectionsConfig
from sg3cli.weights.bundle import load_model

DEFAULT = TrainDirectionsConfig()
METHODS = ("auto", "svm", "logistic", "regression", "pca", "channels")

Model = Annotated[
    str | None,
    typer.Option(
        "--model",
        "--generator",
        metavar="NAME|FOLDER",
        help=f"The model that the directions are for [default: {InvertConfig.model}].",
    ),
]
Out = Annotated[Path, typer.Option("--out", metavar="DIR", help="Where NAME.safetensors go: MODEL/directions, say.")]
Labels = Annotated[
    Path | None,
    typer.Option(
        "--labels",
        metavar="TABLE",
        help="CSV with a column `seed` (that picture of the model) or `file` (an aligned picture) and a column of "
        "numbers for each attribute; or .npz with columns, labels and seed.",
    ),
]
Codes = Annotated[
    Path | None,
    typer.Option(
        "--codes",
        metavar="FILE.npy",
        help="Codes of the rows: [N,w_dim], [N,num_ws,w_dim], or latents.npy.",
    ),
]
ClassifierFile = Annotated[
    Path | None,
    typer.Option(
        "--classifier",
        metavar="FILE",
        help="Network that scores the model's own pictures instead: TorchScript (.pt; a program, which is run: give "
        "none that you do not trust) or ONNX, pictures [N,3,S,S] in [-1,1] to [N,K]; or a model's probe.safetensors.",
    ),
]
Input = Annotated[int, typer.Option("--classifier-input", metavar="PX", min=8, help="Size S of its pictures.")]
Attributes = Annotated[
    str | None,
    typer.Option("--attributes", metavar="NAME,...", help="The classifier's outputs in order; the table's columns."),
]
Samples = Annotated[int, typer.Option("--samples", min=20, help="Pictures that the classifier is shown, from seed 0.")]
Truncation = Annotated[float, typer.Option("--truncation", metavar="PSI", help="Of the pictures of seeds.")]
Method = Annotated[
    str,
    typer.Option(
        "--method",
        metavar="|".join(METHODS),
        help="A hyperplane between the ends, how codes follow labels, the codes' main axes, or single styles.",
    ),
]
Components = Annotated[int, typer.Option("--components", metavar="N", min=1, help="Axes that `pca` writes.")]
Balance = Annotated[
    str | None,
    typer.Option(
        "--balance",
        metavar="COLUMN",
        help="Column that says where a picture comes from: both ends get as many of each, so that it is not learned.",
    ),
]
Share = Annotated[
    float, typer.Option("--share", min=0.001, max=0.5, help="Share of the pictures at each end of a score.")
]
Given = Annotated[
    str | None,
    typer.Option("--given", metavar="NAME,...", help="Attributes or directions to hold: they are projected out."),
]
Unit = Annotated[
    list[str] | None,
    typer.Option("--unit", metavar="NAME=AMOUNT", help="What strength 1 adds, e.g. age=10 [one standard deviation]."),
]
Unaligned = Annotated[
    bool, typer.Option("--unaligned", help="The generator's faces are not upright: bring them so.", show_default=False)
]
Batch = Annotated[int, typer.Option("--batch", min=1, help="Pictures drawn or encoded at once.")]
Seed = Annotated[int, typer.Option("--seed", min=0, help="Seed of the split into training and validation.")]
Device = Annotated[
    str, typer.Option("--device", metavar="auto|cpu|cuda", envvar="SG3_DEVICE", help="Where to compute.")
]


def directions(
    session: Session,
    out: Out,
    model: Model = None,
    labels: Labels = None,
    codes: Codes = None,
    classifier: ClassifierFile = None,
    classifier_input: Input = 256,
    attributes: Attributes = None,
    balance: Balance = None,
    samples: Samples = DEFAULT.samples,
    truncation: Truncation = DEFAULT.truncation,
    method: Method = DEFAULT.method,
    components: Components = 10,
    share: Share = DEFAULT.share,
    given: Given = None,
    unit: Unit = None,
    unaligned: Unaligned = False,
    batch: Batch = DEFAULT.batch,
    seed: Seed = DEFAULT.seed,
    device: Device = "auto",
) -> None:
    """Fit directions to labelled pictures of a model, or to what a classifier says of them (InterFaceGAN).

    `pca` needs no labels (GANSpace); `channels` ranks the single styles that an attribute answers to (StyleSpace).
    """
    if method not in METHODS:
        raise UsageError(f"--method is {method!r}", f"choose {', '.join(METHODS)}")
    if method != "pca" and (labels is None) == (classifier is None):
        raise UsageError("give either --labels or --classifier", "sg3 directions learn --help")
    config = TrainDirectionsConfig(method, share, samples, truncation, unaligned, batch, seed)
    names = tuple(part.strip() for part in attributes.split(",")) if attributes else ()
    units, held = parse_units(unit or []), tuple(g.strip() for g in given.split(",")) if given else ()
    from sg3cli.pipeline.device import choose_device
    from sg3cli.training.directions.learn import Learner, check_names

    bundle = load_model(model_name(model))
    work = Learner(session.console, bundle, config, out, choose_device(device, session.console))
    if method == "pca":
        return work.components(components)
    if classifier is not None:
        labelled = work.classified(classifier, names, classifier_input)
    else:
        assert labels is not None
        labelled = work.labelled(labels, names, codes, balance)
    check_names(labelled.table.names)
    for name in units.keys() - set(labelled.table.names):
        raise UsageError(f"--unit names {name}", f"the attributes are: {', '.join(labelled.table.names)}")
    labelled.given, labelled.units = held, units
    work.styles(labelled) if method == "channels" else work.hyperplanes(labelled)


def parse_units(texts: list[str]) -> dict[str, float]:
    """`age=10` -> {"age": 10.0}."""
    units = {}
    for text in texts:
        name, _, amount = text.partition("=")
        try:
            units[name.strip()] = float(amount)
        except ValueError as error:
            raise UsageError(f"--unit {text}", "NAME=AMOUNT, e.g. age=10") from error
        if not 0 < units[name.strip()] < float("inf"):
            raise UsageError(f"--unit {text}", "the amount is more than 0")
    return units
