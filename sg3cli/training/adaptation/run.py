"""One run of `sg3 adapt` in its folder, and the model that it becomes.

WORK/before_after.png   codes as the parent draws them, and as the adapted generator does
                        (and what `run_folder` keeps: settings, state, log)
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sg3cli.console import Console
from sg3cli.drawing.images import write_png
from sg3cli.errors import InputError
from sg3cli.levels import tensor_to_uint8
from sg3cli.nets.generator import Generator
from sg3cli.training.adaptation.aims import read_pictures
from sg3cli.training.adaptation.bundle import write_adapted
from sg3cli.training.adaptation.trainer import Adapter, Codes
from sg3cli.training.directions.encode_images import encode_files
from sg3cli.training.run_folder import RunFolder, kept_steps
from sg3cli.weights.bundle import Bundle
from sg3cli.weights.import_arrays import read_codes

SHEET = "before_after.png"
SHOWN = 8  # codes and pictures on the sheet
OWN_DRAWINGS = 64  # of the model, whose mean the pictures are compared with
CHECK_CODES = 1 << 30  # a step that no run reaches: its codes are those that are looked at


class AdaptRun:
    """An adapter with its folder: `steps` trains, `publish` writes the model."""

    def __init__(self, adapter: Adapter, bundle: Bundle, work: Path, console: Console) -> None:
        """Raises `UsageError` when `work` holds another run."""
        self.adapter, self.bundle, self.console = adapter, bundle, console
        given = adapter.codes.given
        self.settings: dict[str, Any] = {
            **asdict(adapter.config), **adapter.aim.facts, "generator": bundle.digest,
            "codes": None if given is None else [len(given), round(float(given.double().abs().sum()), 6)],
        }  # fmt: skip
        self.folder = RunFolder(work, self.settings, ("steps",))
        if (state := self.folder.load()) is not None:
            adapter.restore(state)
            console.notice(f"adapt: continued at step {adapter.step}")
        self.folder.write_settings()
        self.folder.drop_after(adapter.step)

    def steps(self, seconds: float | None = None) -> Iterator[dict[str, float]]:
        """What each step has found, to the end or for so many `seconds`; logs and saves on the way.

        Raises `UsageError` when the training has come apart.
        """
        return kept_steps(self.adapter, self.folder, seconds)

    def publish(self, out: Path, pictures: Sequence[Path] = ()) -> dict[str, float]:
        """Write the model and the sheet; returns the last row of the log."""
        adapter, rows = self.adapter, self.folder.rows()
        last = {name: float(value) for name, value in rows[-1].items() if value} if rows else {}
        write_adapted(self.bundle, adapter.G, out, {**self.settings, "steps": adapter.step, "last": last})
        ws = adapter.codes.at(CHECK_CODES, SHOWN)
        shown = {f"{self.bundle.name}": drawn(adapter.parent, ws), out.name: drawn(adapter.G, ws)}
        if pictures:
            shown["towards"] = read_pictures(pictures[:SHOWN], adapter.G.img_resolution)
        write_sheet(self.folder.work / SHEET, shown)
        return last


def drawn(G: Generator, ws: Tensor, batch: int = 8) -> Tensor:
    """[N,3,R,R] about [-1,1], without gradients, on the CPU."""
    with torch.no_grad():
        return torch.cat([G.synthesis(part).cpu() for part in ws.split(batch)])


def own_drawings(G: Generator, codes: Codes) -> Tensor:
    """What the model draws of its codes before it is adapted, on its device."""
    return drawn(G, codes.at(CHECK_CODES, OWN_DRAWINGS)).to(G.mapping.w_avg.device)


def write_sheet(path: Path, shown: dict[str, Tensor]) -> None:
    """A row of images for each entry, under its name."""
    from sg3cli.drawing.labelled_grid import Cell, Row, labelled_grid

    rows = []
    for name, images in shown.items():
        levels = tensor_to_uint8(images).permute(0, 2, 3, 1).numpy()
        rows.append(Row(name, [Cell("", image) for image in levels]))
    write_png(path, labelled_grid(rows, max(128, len(levels[0]))))


def given_codes(bundle: Bundle, path: Path | None, pictures: Sequence[Path] = ()) -> np.ndarray | None:
    """Codes [N,num_ws or 1,w_dim] of an `.npy`, or of aligned `pictures` by the model's encoder; None without either.

    Raises `InputError` for codes of another shape.
    """
    if pictures:
        origin = bundle.origin
        return np.stack(list(encode_files(pictures, origin.generator(), origin.encoder(), batch=8)))
    if path is None:
        return None
    ws, config = read_codes(path), bundle.config
    if ws.ndim != 3 or ws.shape[1] not in (1, config.num_ws) or ws.shape[2] != config.w_dim:
        wanted = f"[N,{config.num_ws},{config.w_dim}]"
        raise InputError(f"{path} holds an array of {ws.shape}", f"the model wants {wanted}")
    return ws
