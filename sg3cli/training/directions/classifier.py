"""Scores from a classifier of the user's own, TorchScript or ONNX: images [N, 3, S, S] in [-1, 1] to [N, K].

A TorchScript file is a program that is run; it is loaded because the user named it. ONNX is data, run by `cv2.dnn`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from sg3cli.errors import InputError, ModelError, UsageError
from sg3cli.files import digest_of, read_arrays, write_arrays
from sg3cli.nets.attribute_net import load_attribute_net
from sg3cli.nets.generator import Generator
from sg3cli.training.encoder.identity_loss import load_torchscript

SAVE_EVERY = 256  # images between two saves of the scores
Scores = Callable[[Tensor], np.ndarray]


class Classifier:
    """`names` are those of its outputs, in order; of an attribute net (.safetensors) some of its labels, or none: all.

    Raises ModelError for a file that is no classifier.
    """

    def __init__(self, path: Path, names: tuple[str, ...], size: int, device: torch.device) -> None:
        if path.suffix not in (".pt", ".pth", ".ts", ".onnx", ".safetensors"):
            hint = "give a TorchScript (.pt) or an ONNX (.onnx) file, or an attribute net (.safetensors)"
            raise UsageError(f"{path} is no classifier", hint)
        self.path, self.size, self.device = path, size, device
        if path.suffix == ".safetensors":
            self._run, names = _attribute_net(path, names, device)
        else:
            self._run = _onnx(path) if path.suffix == ".onnx" else _torchscript(path, device)
        self.names = names
        if not names:
            raise UsageError("--classifier wants the names of its outputs", "--attributes NAME,...")
        count = self(torch.zeros(2, 3, size, size)).shape[1]
        if len(names) != count:
            raise UsageError(f"{path} gives {count} scores, --attributes names {len(names)}", "name all, in order")

    def __call__(self, x: Tensor) -> np.ndarray:
        """x [N, 3, *, *] in [-1, 1] -> scores [N, K] float64."""
        x = x.clamp(-1, 1)
        shrinks = x.shape[-1] >= self.size
        x = F.interpolate(x, (self.size, self.size), mode="area" if shrinks else "bilinear")
        try:
            scores = np.asarray(self._run(x), np.float64)
        except Exception as error:
            reason = str(error).strip().splitlines()[-1]
            hint = "--classifier-input is the size of its pictures"
            raise ModelError(f"{self.path} fails on pictures of {self.size} px: {reason}", hint) from error
        if not len(scores) == len(x) or scores.size % len(x):
            raise ModelError(f"{self.path} gives {scores.shape} for {len(x)} pictures", "it has to give a row for each")
        return scores.reshape(len(x), -1)


def _torchscript(path: Path, device: torch.device) -> Scores:
    net = load_torchscript(path, "--classifier").to(device)

    @torch.no_grad()
    def run(x: Tensor) -> np.ndarray:
        out = net(x.to(device))
        first: Tensor = out[0] if isinstance(out, tuple | list) else out
        return first.float().cpu().numpy()

    return run


def _attribute_net(path: Path, names: tuple[str, ...], device: torch.device) -> tuple[Scores, tuple[str, ...]]:
    """Some labels of an attribute net in their own units, as `sg3 train bundle` makes one, and their names."""
    if not path.is_file():
        raise ModelError(f"there is no file {path}", "an attribute net is MODEL/probe.safetensors")
    try:
        net = load_attribute_net(path).to(device)
    except Exception as error:
        raise ModelError(f"{path} is no attribute net", "an attribute net is MODEL/probe.safetensors") from error
    labels = net.config.labels
    for name in names:
        if name not in labels:
            raise UsageError(f"{path} does not read {name}", f"it reads: {', '.join(labels)}")
    chosen = [labels.index(name) for name in names or labels]

    @torch.no_grad()
    def run(x: Tensor) -> np.ndarray:
        return net.attributes(x.to(device))[:, chosen].cpu().numpy()

    return run, tuple(labels[k] for k in chosen)


def _onnx(path: Path) -> Scores:
    import cv2

    if not path.is_file():
        raise ModelError(f"there is no file {path}", "--classifier wants a TorchScript or an ONNX network")
    try:
        net = cv2.dnn.readNetFromONNX(str(path))
    except cv2.error as error:
        raise ModelError(f"{path} is no ONNX network that OpenCV can read", "write it as TorchScript") from error

    def run(x: Tensor) -> np.ndarray:
        rows = []
        for image in x.cpu().numpy():  # one by one: many networks are written for one image
            net.setInput(np.ascontiguousarray(image[None], np.float32))
            rows.append(np.array(net.forward()).reshape(1, -1))
        return np.concatenate(rows)

    return run


class Scoring:
    """The scores of a model's images, kept in `folder` on the way: exhaust `run()`, then read `scores`."""

    def __init__(
        self,
        G: Generator,
        classifier: Classifier,
        codes: np.ndarray,
        folder: Path,
        unaligned: bool,
        facts: dict[str, Any],
    ) -> None:
        """codes [N, num_ws, w_dim]; `facts` say where they come from."""
        self.G, self.classifier, self.codes, self.unaligned = G, classifier, codes, unaligned
        self.part = folder / "labels.part.safetensors"
        digest = digest_of(classifier.path)
        self.meta = {**facts, "classifier": digest, "size": classifier.size, "unaligned": unaligned}
        self.scores = np.zeros((0, len(classifier.names)))
        if self.part.is_file():
            try:
                arrays, meta = read_arrays(self.part)
            except InputError:
                return
            if meta == self.meta:
                self.scores = arrays["scores"][: len(codes)]

    def run(self, batch: int) -> Iterator[int]:
        """Draw and score what is left; yields how many are done, one at a time."""
        saved = len(self.scores)
        while (done := len(self.scores)) < len(self.codes):
            ws = torch.from_numpy(self.codes[done : done + batch]).to(self.G.mapping.w_avg)
            self.scores = np.concatenate([self.scores, self.classifier(self.draw(ws))])
            if len(self.scores) - saved >= SAVE_EVERY:
                saved = len(self.scores)
                write_arrays(self.part, {"scores": self.scores}, self.meta)
            yield from range(done + 1, len(self.scores) + 1)

    @torch.no_grad()
    def draw(self, ws: Tensor) -> Tensor:
        """ws [n, num_ws, w_dim] -> images. An unaligned generator's are brought upright: their first code is the mean
        (Alaluf et al. 2022, section 4)."""
        if self.unaligned:
            ws = torch.cat([self.G.mapping.w_avg.expand(len(ws), 1, -1), ws[:, 1:]], dim=1)
        return self.G.synthesis(ws)

    def responses(self, vector: np.ndarray, batch: int, images: int = 48) -> np.ndarray:
        """Mean change of all scores `[K]` by adding vector [1, w_dim] to the first codes, half of it each way."""
        ws = torch.from_numpy(self.codes[:images]).to(self.G.mapping.w_avg)
        half = torch.from_numpy(vector).to(ws) / 2
        changes = []
        for some in ws.split(batch):
            after, before = (self.classifier(self.draw(some + side * half)) for side in (1, -1))
            changes.append(after - before)
        mean: np.ndarray = np.concatenate(changes).mean(0)
        return mean

    def finish(self) -> None:
        """The scores are safe elsewhere."""
        self.part.unlink(missing_ok=True)
