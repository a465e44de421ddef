"""The recipe of `sg3 train flow`: codes of pictures, what is read of their drawings, a flow on them, its file."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from sg3cli.console import Console
from sg3cli.errors import InputError
from sg3cli.files import Chunks, in_chunks
from sg3cli.nets.checkpoint import save_flow
from sg3cli.nets.code_flow import CodeFlow
from sg3cli.nets.generator import Generator
from sg3cli.training.directions.encode_images import encode_files, read_aligned
from sg3cli.training.flow.belonging import AT_ONCE, Read, read_drawn, settle
from sg3cli.training.flow.context import CONTEXT, with_context
from sg3cli.training.flow.fit import FitConfig, fit_flow
from sg3cli.training.flow.spread import known_directions, spread
from sg3cli.weights.bundle import Bundle
from sg3cli.weights.kept import KEEPING

FEWEST = 64  # codes; a flow on fewer would know them by heart
SEEN = 24  # codes whose edits are drawn to see what belongs to an attribute
SAVED = 64  # codes between two saves


@dataclass(frozen=True)
class FlowSources:
    """What a flow is made of: aligned `pictures`, or codes that were given, and what reads the `labels` of faces."""

    labels: tuple[str, ...]
    read: Read
    reader: str  # what it is called
    pictures: Sequence[Path] = ()
    codes: np.ndarray | None = None
    fit: FitConfig = field(default_factory=FitConfig)


def train_flow(bundle: Bundle, out: Path, given: FlowSources, console: Console) -> CodeFlow:
    """Make the flow and write it to `out`. A killed run goes on with the codes that it had. Raises `InputError`."""
    G = bundle.generator()
    chunks = Chunks(out.with_suffix(".parts"), key_of(bundle, given))
    ws, labels, whose = known_codes(bundle, G, given, chunks, console)
    people = len(whose.unique())
    if people < FEWEST:
        raise InputError(f"{people} codes are too few for a flow", f"give {FEWEST} pictures at least, or thousands")
    names = (*given.labels, *CONTEXT)
    hueless = keeps_hue_of(given.labels)
    flow = fit_flow(ws, labels, names, given.fit, hueless, console.notice, whose, held=len(CONTEXT))
    own = ws[first_of_each(whose)]
    some = own[torch.from_numpy(np.linspace(0, people - 1, min(SEEN, people)).round().astype(np.int64))]
    settle(flow, some, G, with_context(given.read), console.notice)
    meta = {"generator": bundle.origin.digest, "reader": given.reader, "codes": people}
    save_flow(out, flow, meta, dtype=torch.float16)
    chunks.clear()
    return flow


def key_of(bundle: Bundle, given: FlowSources) -> str:
    """What the codes and their attributes depend on."""
    codes = None if given.codes is None else hashlib.sha256(np.ascontiguousarray(given.codes).tobytes()).hexdigest()
    facts = [
        bundle.digest,
        bundle.directions_digest,
        given.reader,
        given.labels,
        [str(path) for path in given.pictures],
        codes,
    ]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:32]


def first_of_each(whose: Tensor) -> Tensor:
    """Where in `whose [N]` each value comes first: the code of the picture itself."""
    return torch.from_numpy(np.unique(whose.numpy(), return_index=True)[1])


def keeps_hue_of(labels: Sequence[str]) -> tuple[str, ...]:
    """Those of the attributes that do not concern the colour of skin."""
    return tuple(label for label in labels if label in KEEPING["hue"])


def known_codes(
    bundle: Bundle, G: Generator, given: FlowSources, chunks: Chunks, console: Console
) -> tuple[Tensor, Tensor, Tensor]:
    """Codes [N,num_ws,w_dim], attributes [N,K] and whose they are [N]: read off the pictures, or drawings of codes
    given; and those moved along the model's directions."""
    directions, read = known_directions(bundle), with_context(given.read)
    total = len(given.pictures) if given.codes is None else len(given.codes)
    rows = console.progress(_rows(bundle, G, given, chunks.rows), total, "flow: codes", chunks.rows)
    for some in in_chunks(rows, SAVED):
        ws, labels = (np.stack(part) for part in zip(*some, strict=True))
        known = torch.from_numpy(ws), torch.from_numpy(labels.astype(np.float32))
        more = spread(*known, directions, G, read, chunks.rows)
        whose = np.resize(chunks.rows + np.arange(len(some)), len(more[0]))
        chunks.append({"ws": more[0].numpy(), "labels": more[1].numpy(), "whose": whose}, len(some))
    parts = list(chunks)
    if not parts:
        return torch.zeros(0, G.num_ws, G.w_dim), torch.zeros(0, len(given.labels) + len(CONTEXT)), torch.zeros(0)
    names = ("ws", "labels", "whose")
    codes, told, of = (torch.from_numpy(np.concatenate([part[name] for part in parts])) for name in names)
    return codes, told, of


def _rows(bundle: Bundle, G: Generator, given: FlowSources, done: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Code and attributes of one after the other, from number `done` on."""
    if given.codes is not None:
        for ws in torch.from_numpy(given.codes[done:].astype(np.float32)).split(AT_ONCE):
            with torch.inference_mode():
                labels = read_drawn(ws, G, with_context(given.read))
            yield from zip(ws.numpy(), labels.numpy(), strict=True)
        return
    files = given.pictures[done:]
    encoder = bundle.encoder() if files else None
    for start in range(0, len(files), AT_ONCE):
        part = files[start : start + AT_ONCE]
        assert encoder is not None
        codes = encode_files(part, G, encoder, AT_ONCE)
        with torch.inference_mode():
            size = encoder.config.input_size
            labels = with_context(given.read)(torch.from_numpy(np.stack([read_aligned(path, size) for path in part])))
        yield from zip(codes, labels.numpy(), strict=True)
