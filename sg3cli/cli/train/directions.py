"""`sg3 train directions`: directions of any model, from labels or from a classifier."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sg3cli.cli.flags import Session
from sg3cli.errors import InputError, UsageError
from sg3cli.settings import InvertConfig
from sg3cli.training.config import TrainDirectionsConfig
from sg3cli.weights.bundle import Bundle, load_model

if TYPE_CHECKING:
    import numpy as np

    from sg3cli.training.data.label_table import LabelTable
    from sg3cli.training.directions.classifier import Scoring
    from sg3cli.training.directions.fit import Fitted


DEFAULT = TrainDirectionsConfig()
CHANCE = 0.55  # accuracy or area under the curve; 0.5 is a coin
METHODS = ("auto", "svm", "logistic", "regression")
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")

Model = Annotated[
    str, typer.Option("--model", "--generator", metavar="NAME|FOLDER", help="The model that the directions are for.")
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
    typer.Option("--codes", metavar="FILE.npy", help="Codes of the table's rows: [N,w_dim] or [N,num_ws,w_dim]."),
]
ClassifierFile = Annotated[
    Path | None,
    typer.Option(
        "--classifier",
        metavar="FILE",
        help="Network that scores the model's own pictures instead: TorchScript (.pt; a program, which is run: give "
        "none that you do not trust) or ONNX. Pictures [N,3,S,S] in [-1,1] to [N,K].",
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
        "--method", metavar="|".join(METHODS), help="A hyperplane between the ends, or how codes follow labels."
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
    model: Model = InvertConfig.model,
    labels: Labels = None,
    codes: Codes = None,
    classifier: ClassifierFile = None,
    classifier_input: Input = 256,
    attributes: Attributes = None,
    samples: Samples = DEFAULT.samples,
    truncation: Truncation = DEFAULT.truncation,
    method: Method = DEFAULT.method,
    share: Share = DEFAULT.share,
    given: Given = None,
    unit: Unit = None,
    unaligned: Unaligned = False,
    batch: Batch = DEFAULT.batch,
    seed: Seed = DEFAULT.seed,
    device: Device = "auto",
) -> None:
    """Fit directions to labelled pictures of a model, or to what a classifier says of them (InterFaceGAN)."""
    if method not in METHODS:
        raise UsageError(f"--method is {method!r}", f"choose {', '.join(METHODS)}")
    if (labels is None) == (classifier is None):
        raise UsageError("give either --labels or --classifier", "sg3 train directions --help")
    config = TrainDirectionsConfig(method, share, samples, truncation, unaligned, batch, seed)
    names = tuple(part.strip() for part in attributes.split(",")) if attributes else ()
    work = Fitting(session, load_model(model), config, out, device)
    if classifier is not None:
        table, ws = work.classified(classifier, names, classifier_input)
    else:
        assert labels is not None
        table, ws = work.labelled(labels, names, codes)
    work.fit(table, ws, tuple(g.strip() for g in given.split(",")) if given else (), parse_units(unit or []))


class Fitting:
    """A model whose codes get labels and then directions."""

    def __init__(self, session: Session, bundle: Bundle, config: TrainDirectionsConfig, out: Path, device: str) -> None:
        from sg3cli.pipeline.device import choose_device

        self.console, self.bundle, self.out = session.console, bundle, out
        self.config = config
        self.scoring: Scoring | None = None  # what a classifier has seen
        self.device = choose_device(device, self.console)
        self.G = bundle.generator().to(self.device)

    def labelled(self, path: Path, names: tuple[str, ...], codes: Path | None) -> tuple[LabelTable, np.ndarray]:
        """The table and the codes [N, num_ws, w_dim] of its rows: given, of its seeds, or of its files."""
        from sg3cli.training.data.label_table import read_labels

        table = read_labels(path, names)
        if codes is not None:
            return table, self._given_codes(codes, len(table))
        if table.seeds:
            return table, self._seed_codes(table.seeds)
        if table.files:
            return table, self._encoded(table.files)
        raise UsageError(f"{path} has no seeds", "give the codes of its rows with --codes FILE.npy")

    def classified(self, path: Path, names: tuple[str, ...], size: int) -> tuple[LabelTable, np.ndarray]:
        """What the classifier says of the model's first pictures; kept as OUT/labels.csv, which `--labels` takes."""
        from sg3cli.training.data.label_table import LabelTable, write_labels
        from sg3cli.training.directions.classifier import Classifier, Scoring

        if not names:
            raise UsageError("--classifier wants the names of its outputs", "--attributes NAME,...")
        check_names(names)
        classifier = Classifier(path, names, size, self.device)
        seeds = tuple(range(self.config.samples))
        ws = self._seed_codes(seeds)
        facts = {"generator": self.bundle.digest, "truncation": self.config.truncation}
        scoring = Scoring(self.G, classifier, ws, self.out, self.config.unaligned, facts)
        for _ in self.console.progress(scoring.run(self.config.batch), len(seeds), "classify", len(scoring.scores)):
            pass
        self.scoring = scoring
        table = LabelTable(names, scoring.scores, seeds)
        write_labels(self.out / "labels.csv", table)
        scoring.finish()
        return table, ws

    def fit(self, table: LabelTable, ws: np.ndarray, given: tuple[str, ...], units: dict[str, float]) -> None:
        """Fit a direction for each attribute, write them, and say how good they are."""
        from sg3cli.files import write_json
        from sg3cli.training.directions import fit as b

        check_names(table.names)
        for name in units.keys() - set(table.names):
            raise UsageError(f"--unit names {name}", f"the attributes are: {', '.join(table.names)}")
        config = replace(self.config, method=b.choose_method(self.config.method, bool(table.seeds)))
        if config.method != self.config.method:
            self.console.notice(f"method: {config.method}")
        codes = ws.astype("float64").mean(axis=1)
        pairs = list(zip(table.names, table.scores.T, strict=True))
        found = b.fit_directions(table.names, codes, table.scores, config)
        others = self._given(given, found)
        made: list[Fitted] = []
        for name, scores in pairs:
            held = {key: vector for key, vector in others.items() if key != name}
            direction = b.apart_from(found[name], held)
            b.set_unit(direction, codes, scores, units.get(name) if self.scoring is None else None)
            if self.scoring is not None:
                self._calibrate(direction, table.names.index(name), float(scores.std()), units.get(name))
            made.append(direction)
        alike = b.cosines(made)
        facts = {"truncation": self.config.truncation, "share": self.config.share, "unaligned": self.config.unaligned}
        for direction in made:
            direction.report["cosines"] = alike[direction.name]
            self.console.data(str(b.save_direction(self.out, direction, self.bundle.digest, facts)))
            self.console.notice(line_of(direction))
            if is_guessing(direction):
                warning = "is no better than chance and will do something else than its name says"
                self.console.notice(f"{direction.name}: {warning}; it needs more or better labels")
        reports = {d.name: {"unit": d.unit, **d.report} for d in made}
        write_json(self.out / "report.json", {"schema": 1, "generator": self.bundle.digest, "directions": reports})
        self.console.result("train directions", out=str(self.out), directions=reports)

    def _calibrate(self, direction: Fitted, output: int, deviation: float, amount: float | None) -> None:
        """Let the classifier say how long strength 1 is."""
        from sg3cli.training.directions.fit import calibrate

        scoring, batch = self.scoring, self.config.batch
        assert scoring is not None
        try:
            calibrate(direction, lambda vector: scoring.response(vector, output, batch), deviation, amount)
        except UsageError as error:  # the others are good, and have cost a while
            self.console.notice(f"{error}: strength 1 is {direction.unit}; {error.hint} may help")

    def _given(self, names: Sequence[str], found: dict[str, Fitted]) -> dict[str, np.ndarray]:
        """The directions to hold: attributes of this run, directions of the model, files."""
        from sg3cli.weights.direction_file import find_direction, load_direction

        known = {name: self.bundle.direction_path(name) for name in self.bundle.direction_names()}
        held: dict[str, np.ndarray] = {}
        for name in names:
            if name in found:
                held[name] = found[name].vector
                continue
            direction = load_direction(find_direction(name, known))
            direction.check_fits(self.G.config, self.bundle.digest)
            held[name] = direction.vector.mean(axis=0, keepdims=True)  # all codes of a picture of a seed are one
        return held

    def _seed_codes(self, seeds: Sequence[int]) -> np.ndarray:
        from sg3cli.latents.sampling import GenerateConfig, Sampler

        return Sampler(self.G, GenerateConfig(truncation=self.config.truncation)).codes(seeds)

    def _encoded(self, files: Sequence[Path]) -> np.ndarray:
        """Codes of aligned pictures, by the model's encoder."""
        from sg3cli.training.directions.encode_images import encode_files

        encoder = self.bundle.encoder().to(self.device)
        rows = encode_files(files, self.G, encoder, self.config.batch)
        return stacked(list(self.console.progress(rows, len(files), "encode")))

    def _given_codes(self, path: Path, count: int) -> np.ndarray:
        """[N, num_ws or 1, w_dim]."""
        import numpy as np

        try:
            ws = np.load(path, allow_pickle=False)
        except (OSError, ValueError) as error:
            raise InputError(f"{path} holds no codes: {error}", "an .npy of [N,w_dim] or [N,num_ws,w_dim]") from error
        ws = ws[:, None] if ws.ndim == 2 else ws
        if ws.ndim != 3 or ws.shape[2] != self.G.w_dim or len(ws) != count:
            wanted = f"[{count},{self.G.w_dim}] or [{count},{self.G.num_ws},{self.G.w_dim}]"
            raise InputError(f"{path} holds an array of {ws.shape}", f"the table and the model want {wanted}")
        return np.asarray(ws, np.float32)


def stacked(rows: list[Any]) -> np.ndarray:
    """Rows as one array."""
    import numpy as np

    return np.stack(rows)


def line_of(direction: Fitted) -> str:
    """`age: accuracy 0.97, AUC 0.99, correlation 0.85; strength 1 is one standard deviation of age`."""
    r = direction.report
    auc = "unknown" if r["auc"] is None else f"{r['auc']:.3f}"
    scores = f"accuracy {r['accuracy']:.3f}, AUC {auc}, correlation {r['correlation']:.3f}"
    return f"{direction.name}: {scores}; strength 1 is {direction.unit}"


def is_guessing(direction: Fitted) -> bool:
    """Whether the direction does not tell its attribute on codes that it was not fitted to."""
    scores = [score for score in (direction.report["auc"], direction.report["accuracy"]) if score is not None]
    return bool(scores) and min(scores) < CHANCE


def check_names(names: Sequence[str]) -> None:
    """Attributes become file names and are written as NAME=STRENGTH."""
    for name in names:
        if not NAME.fullmatch(name):
            raise UsageError(f"an attribute is called {name!r}", "use letters, digits, and . _ - after the first")
    if len(set(names)) < len(names):
        raise UsageError(f"attributes are named twice: {', '.join(names)}", "every name once")


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
