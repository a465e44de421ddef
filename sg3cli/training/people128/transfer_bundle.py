"""A trained transfer network put into a model's folder, in half precision, with a word in `model.json`.

`python -m sg3cli.training.people128.transfer_bundle --help`
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch

from sg3cli.files import digest_of, write_json
from sg3cli.nets.checkpoint import load_transfer_file, save_transfer
from sg3cli.weights.bundle import TRANSFER_NET, Bundle, load_model


def add_transfer(folder: Path, file: Path, words: str = "", about: str | None = None) -> None:
    """Copy the network of `file` into the model's `folder`; `words` tell how it was trained, `about` the attributes
    whose edits it is for, with commas, None: all. Raises `ModelError`."""
    bundle = load_model(folder)
    net, meta = load_transfer_file(file)
    save_transfer(bundle.path / TRANSFER_NET, net, {"name": bundle.name}, dtype=torch.float16)
    bundle.meta.pop("transfer_for", None)
    if about:
        bundle.meta["transfer_for"] = about
    note_part(bundle, TRANSFER_NET, {"what": words} | meta if words else meta)


def note_part(bundle: Bundle, part: str, made: object) -> None:
    """Write into `model.json` how a part (`NAME.safetensors`) that lies in the model's folder was `made`, and, where
    parts are noted, its digest."""
    card = dict(bundle.meta)
    card["training"] = {**(card.get("training") or {}), part.partition(".")[0]: made}
    if "parts" in card:
        card["parts"] = {**card["parts"], part: digest_of(bundle.path / part).partition(":")[2]}
    write_json(bundle.path / "model.json", card)


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry of `python -m`."""
    parser = argparse.ArgumentParser(description="Put a transfer network into a model's folder.")
    parser.add_argument("--transfer", type=Path, required=True, help="transfer.safetensors of a run")
    parser.add_argument("--bundle", type=Path, required=True, help="folder of the model")
    parser.add_argument("--record", type=Path, help="text on how it was trained, for model.json")
    parser.add_argument("--about", help="attributes whose edits it is for, with commas; default: all")
    given = parser.parse_args(arguments)
    words = given.record.read_text(encoding="utf8").strip() if given.record else ""
    add_transfer(given.bundle, given.transfer, words, given.about)


if __name__ == "__main__":
    main()
