"""The recipe of `sg3 directions learn`: codes, what is known of them, directions, how good those are, files."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sg3cli.console import Console
from sg3cli.errors import InputError, UsageError
from sg3cli.files import write_arrays, write_json
from sg3cli.latents.sampling import GenerateConfig, Sampler
from sg3cli.latents.spaces import CHUNK, WPlus, statistics
from sg3cli.training.config import TrainDirectionsConfig
from sg3cli.training.data.label_table import LabelTable, read_labels, write_labels
from sg3cli.training.directions import channels as ch
from sg3cli.training.directions import fit
from sg3cli.training.directions.classifier import Classifier, Scoring
from sg3cli.training.directions.components import principal_directions
from sg3cli.training.directions.encode_images import encode_files
from sg3cli.training.directions.fit import Fitted
from sg3cli.weights.bundle import Bundle
from sg3cli.weights.direction_file import find_direction, load_direction
from sg3cli.weights.import_arrays import read_codes

CHANCE = 0.55  # accuracy or area under the curve; 0.5 is a coin
CANDIDATES = 16  # styles that are tried for an attribute
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


@dataclass
class Labelled:
    """Codes `ws [N, num_ws or 1, w_dim]`, their table, where they come from, and the classifier that scored them."""

    table: LabelTable
    ws: np.ndarray
    origin: str
    scoring: Scoring | None = None
    given: tuple[str, ...] = ()  # attributes and directions that are projected out
    units: Mapping[str, float] = field(default_factory=dict)  # how much of an attribute strength 1 adds


class Learner:
    """A model whose codes get labels and then directions, which are written into the folder `out`."""

    def __init__(
        self, console: Console, bundle: Bundle, config: TrainDirectionsConfig, out: Path, device: torch.device
    ) -> None:
        self.console, self.bundle, self.config, self.out, self.device = console, bundle, config, out, device
        self.G = bundle.generator().to(device)

    # ---- codes and what is known of them

    def labelled(self, path: Path, names: tuple[str, ...], codes: Path | None, balance: str | None) -> Labelled:
        """The table and the codes of its rows: given, of its seeds, or of its files."""
        table = read_labels(path, names, balance)
        if codes is not None:
            return Labelled(table, self._given_codes(codes, table), "codes that were given")
        if table.seeds:
            return Labelled(table, self.seed_codes(table.seeds), "seeds")
        if table.files:
            rows = encode_files(table.files, self.G, self.bundle.encoder().to(self.device), self.config.batch)
            ws = np.stack(list(self.console.progress(rows, len(table.files), "encode")))
            return Labelled(table, ws, "pictures, by the model's encoder")
        raise UsageError(f"{path} has no seeds", "give the codes of its rows with --codes FILE.npy")

    def classified(self, path: Path, names: tuple[str, ...], size: int) -> Labelled:
        """What the classifier says of the model's first pictures; kept as OUT/labels.csv, which `--labels` takes."""
        classifier = Classifier(path, names, size, self.device)
        names = classifier.names
        check_names(names)
        seeds = tuple(range(self.config.samples))
        ws = self.seed_codes(seeds)
        facts = {"generator": self.bundle.origin.digest, "truncation": self.config.truncation}
        scoring = Scoring(self.G, classifier, ws, self.out, self.config.unaligned, facts)
        for _ in self.console.progress(scoring.run(self.config.batch), len(seeds), "classify", len(scoring.scores)):
            pass
        table = LabelTable(names, scoring.scores, seeds)
        write_labels(self.out / "labels.csv", table)
        scoring.finish()
        return Labelled(table, ws, f"seeds, scored by {path.name}", scoring)

    def seed_codes(self, seeds: Sequence[int]) -> np.ndarray:
        """W+ `[n, num_ws, w_dim]` of the model's own pictures."""
        return Sampler(self.G, GenerateConfig(truncation=self.config.truncation)).codes(seeds)

    def _given_codes(self, path: Path, table: LabelTable) -> np.ndarray:
        """[N, num_ws or 1, w_dim]: an array of the rows' codes, or the editing tools' `latents.npy` by file name."""
        named = [file.name for file in table.files] or None
        ws = read_codes(path, named)
        if ws.ndim != 3 or ws.shape[2] != self.G.w_dim or len(ws) != len(table):
            count = len(table)
            wanted = f"[{count},{self.G.w_dim}] or [{count},{self.G.num_ws},{self.G.w_dim}]"
            raise InputError(f"{path} holds an array of {ws.shape}", f"the table and the model want {wanted}")
        return ws

    # ---- directions

    def components(self, count: int) -> None:
        """GANSpace: the main axes of the codes of seeds."""
        codes = self.seed_codes(range(self.config.samples))[:, 0]
        found = principal_directions(codes, count)
        facts = {"truncation": self.config.truncation, "made": f"GANSpace: axes of {len(codes)} codes of seeds"}
        for direction in found:
            share = f"{direction.report['variance_explained']:.1%} of the variance"
            self._save(direction, facts, f"{direction.name}: {share}; strength 1 is {direction.unit}")
        self._report({d.name: {"unit": d.unit, **d.report} for d in found})

    def hyperplanes(self, labelled: Labelled) -> None:
        """A direction of W for each attribute, by the configured method."""
        table, scoring, config = labelled.table, labelled.scoring, self._method(labelled.table)
        codes = labelled.ws.astype(np.float64).mean(axis=1)
        found = fit.fit_directions(table.names, codes, table.scores, config, table.groups or None)
        others, made = self._given(labelled.given, found), []
        for name, scores in zip(table.names, table.scores.T, strict=True):
            held = {key: vector for key, vector in others.items() if key != name}
            direction = fit.apart_from(found[name], held)
            fit.set_unit(direction, codes, scores, labelled.units.get(name) if scoring is None else None)
            if scoring is not None:
                self._calibrate(direction, scoring, labelled.units.get(name))
            self._leaks(direction, labelled, codes)
            made.append(direction)
        alike = fit.cosines(made)
        facts = {"truncation": config.truncation, "share": config.share, "unaligned": config.unaligned}
        for direction in made:
            direction.report["cosines"] = alike[direction.name]
            how = f"{direction.report['method']} on {direction.report['n']} {labelled.origin}"
            self._save(direction, {**facts, "made": f"InterFaceGAN: {how}"}, line_of(direction))
            if is_guessing(direction):
                warning = "is no better than chance and will do something else than its name says"
                self.console.notice(f"{direction.name}: {warning}; it needs more or better labels")
        self._report({d.name: {"unit": d.unit, **d.report} for d in made})

    def styles(self, labelled: Labelled) -> None:
        """The single style that answers best to each attribute, as a direction of S, and the ranking of the others."""
        ws = np.broadcast_to(labelled.ws, (len(labelled.ws), self.G.num_ws, self.G.w_dim))
        styles, deviations = self._styles(ws), statistics(self.G, "s").std
        made = f"StyleSpace: the best of {CANDIDATES} styles on {len(styles)} {labelled.origin}"
        reports = {}
        for k, name in enumerate(labelled.table.names):
            ranked = self._ranked(labelled, k, ws, styles, deviations)
            best, facts = ranked[0], self._described(labelled.table.names, name, ranked)
            vector = np.zeros((1, styles.shape[1]), np.float32)
            vector[0, best.place] = best.deviation if best.answer >= 0 else -best.deviation
            meta = {
                "schema": 1,
                "name": name,
                "generator": self.bundle.origin.digest,
                "space": "s",
                "made": made,
                **facts,
            }
            path = self.out / f"{name}.safetensors"
            write_arrays(path, {"direction": vector}, meta)
            self.console.data(str(path))
            self.console.notice(f"{name}: {', '.join(c.name for c in ranked[:5])}; strength 1 is {facts['unit']}")
            reports[name] = facts
        self._report(reports)

    def _described(self, names: Sequence[str], name: str, ranked: Sequence[ch.RankedChannel]) -> dict[str, Any]:
        """What is known of the best style of an attribute, and the ranking."""
        best, sign = ranked[0], 1.0 if ranked[0].answer >= 0 else -1.0
        if best.others:
            moved = f"{name} {sign * best.answer:+.2f} std, as measured"
        else:
            moved = f"ends of {name} are {abs(best.answer):.2f} of them apart"
        table = [{"style": c.name, "answer": round(c.answer, 4), "locality": round(c.locality, 4)} for c in ranked]
        leak = {other: round(sign * value, 4) for other, value in zip(names, best.others, strict=False)}
        facts = {"unit": f"one standard deviation of the style {best.name}; {moved}", "channels": table}
        return {**facts, "leak": leak or None, "leak_by": "classifier" if leak else None}

    def _styles(self, ws: np.ndarray) -> np.ndarray:
        """Styles `[N, channels]` of codes."""
        parts = [torch.from_numpy(ws[i : i + CHUNK].copy()).to(self.G.mapping.w_avg) for i in range(0, len(ws), CHUNK)]
        with torch.inference_mode():
            return np.concatenate([WPlus(part).to_s(self.G).values.cpu().numpy() for part in parts])

    def _ranked(
        self, labelled: Labelled, k: int, ws: np.ndarray, styles: np.ndarray, deviations: np.ndarray
    ) -> list[ch.RankedChannel]:
        """Candidates for the `k`-th attribute, best first."""
        table, sizes = labelled.table, self.bundle.config.style_sizes
        scores = table.scores[:, k]
        known = np.flatnonzero(np.isfinite(scores))
        groups = None if not table.groups else np.asarray(table.groups)[known].tolist()
        low, high = fit.balanced_ends(table.names[k], scores[known], self.config.share, groups)
        apart = ch.separations(styles[known], low, high)
        places = ch.candidates(styles[known], low, high, CANDIDATES, sizes["input"])
        read = None if labelled.scoring is None else labelled.scoring.classifier
        spread = np.nanstd(table.scores, axis=0).clip(min=1e-12)
        measured = ch.measure_channels(self.G, ws[: ch.FACES].copy(), places, deviations, read, self.config.batch)
        found = []
        for place, (local, change) in zip(
            places, self.console.progress(measured, len(places), f"{table.names[k]}: styles"), strict=True
        ):
            others = () if change is None else tuple((change / spread).tolist())
            answer = others[k] if others else float(apart[place])
            name, deviation = ch.channel_name(sizes, int(place)), float(deviations[place])
            found.append(ch.RankedChannel(name, int(place), deviation, answer, local, others))
        return sorted(found, key=lambda channel: -channel.score)

    def _method(self, table: LabelTable) -> TrainDirectionsConfig:
        config = replace(self.config, method=fit.choose_method(self.config.method, bool(table.seeds)))
        if config.method != self.config.method:
            self.console.notice(f"method: {config.method}")
        return config

    def _calibrate(self, direction: Fitted, scoring: Scoring, amount: float | None) -> None:
        """Let the classifier say how long strength 1 is."""
        output = scoring.classifier.names.index(direction.name)
        deviation = float(scoring.scores[:, output].std())

        def respond(vector: np.ndarray) -> float:
            return float(scoring.responses(vector, self.config.batch)[output])

        try:
            fit.calibrate(direction, respond, deviation, amount)
        except UsageError as error:  # the others are good, and have cost a while
            self.console.notice(f"{error}: strength 1 is {direction.unit}; {error.hint} may help")

    def _leaks(self, direction: Fitted, labelled: Labelled, codes: np.ndarray) -> None:
        """Note what strength 1 does to every attribute, in deviations of each."""
        table, scoring = labelled.table, labelled.scoring
        if scoring is None:
            leak = fit.leaks_by_labels(direction, codes, table.scores, table.names)
        else:
            changes = scoring.responses(direction.vector, self.config.batch) / scoring.scores.std(0).clip(min=1e-12)
            leak = {name: round(float(change), 4) for name, change in zip(table.names, changes, strict=True)}
        direction.report |= {"leak": leak, "leak_by": "labels" if scoring is None else "classifier"}

    def _given(self, names: Sequence[str], found: dict[str, Fitted]) -> dict[str, np.ndarray]:
        """The directions to hold: attributes of this run, directions of the model, files."""
        known = {name: self.bundle.direction_path(name) for name in self.bundle.direction_names()}
        held: dict[str, np.ndarray] = {}
        for name in names:
            if name in found:
                held[name] = found[name].vector
                continue
            direction = load_direction(find_direction(name, known))
            direction.check_fits(self.G.config, self.bundle.origin.digest)
            if direction.space == "s":
                raise UsageError(f"{name} is a direction of S, which is not held in W", "leave it out of --given")
            held[name] = direction.vector.mean(axis=0, keepdims=True)  # all codes of a picture of a seed are one
        return held

    def _save(self, direction: Fitted, facts: Mapping[str, Any], line: str) -> None:
        self.console.data(str(fit.save_direction(self.out, direction, self.bundle.origin.digest, facts)))
        self.console.notice(line)

    def _report(self, directions: Mapping[str, Any]) -> None:
        report = {"schema": 1, "generator": self.bundle.origin.digest, "directions": dict(directions)}
        write_json(self.out / "report.json", report)
        self.console.result("directions learn", out=str(self.out), directions=dict(directions))


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
