"""One run of `sg3 train mapper` in its folder, and the file that it becomes.

WORK/before_after.png   codes that no step has seen, drawn without the mapper and with it at strengths 0.5 and 1
                        (and what `run_folder` keeps: settings, state, log)
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from sg3cli.console import Console
from sg3cli.nets.checkpoint import save_mapper
from sg3cli.training.adaptation.run import CHECK_CODES, SHEET, SHOWN, drawn, write_sheet
from sg3cli.training.mapper.trainer import MapperTrainer
from sg3cli.training.run_folder import RunFolder, kept_steps
from sg3cli.weights.bundle import Bundle
from sg3cli.weights.kept import said

STRENGTHS = (0.5, 1.0)  # on the sheet


class MapperRun:
    """A trainer with its folder: `steps` trains, `publish` writes the mapper."""

    def __init__(
        self, trainer: MapperTrainer, bundle: Bundle, facts: Mapping[str, Any], work: Path, console: Console
    ) -> None:
        """`facts` say what it is trained towards and by whom. Raises `UsageError` when `work` holds another run."""
        self.trainer, self.bundle, self.facts = trainer, bundle, dict(facts)
        given = trainer.codes.given
        self.settings: dict[str, Any] = {
            **asdict(trainer.config), **self.facts, "generator": bundle.digest,
            "codes": None if given is None else [len(given), round(float(given.double().abs().sum()), 6)],
        }  # fmt: skip
        self.folder = RunFolder(work, self.settings, ("steps",))
        if (state := self.folder.load(trainer.text.device)) is not None:
            trainer.restore(state)
            console.notice(f"train mapper: continued at step {trainer.step}")
        self.folder.write_settings()
        self.folder.drop_after(trainer.step)

    def steps(self, seconds: float | None = None) -> Iterator[dict[str, float]]:
        """What each step has found, to the end or for so many `seconds`; logs and saves on the way.

        Raises `UsageError` when the training has come apart.
        """
        return kept_steps(self.trainer, self.folder, seconds)

    def publish(self, out: Path, kept: Collection[str]) -> dict[str, float]:
        """Write the mapper and the sheet; how well codes that no step has seen fit the text, before and after."""
        trainer = self.trainer
        ws = trainer.codes.at(CHECK_CODES, SHOWN)
        fits = {"before": trainer.similarity(ws, 0.0), "after": trainer.similarity(ws, 1.0)}
        meta = {
            "name": out.stem, "generator": self.bundle.origin.digest, **said(kept),
            "aim": f"the step towards {self.facts['text']!r}", "text": self.facts["text"],
            "made": {**self.settings, "steps": trainer.step, **fits},
        }  # fmt: skip
        save_mapper(out, trainer.mapper, meta)
        with torch.no_grad():
            step = trainer.mapper(ws)
        shown = {"as they are": drawn(trainer.G, ws)}
        shown |= {f"{out.stem} {strength:g}": drawn(trainer.G, ws + strength * step) for strength in STRENGTHS}
        write_sheet(self.folder.work / SHEET, shown)
        return fits
