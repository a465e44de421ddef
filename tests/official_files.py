"""Files in the formats of others: the golden miniatures, and small ones written by torch.save and numpy."""

from __future__ import annotations

import gzip
import json
import lzma
import pathlib
from collections import OrderedDict
from functools import cache
from pathlib import Path

import torch
from tiny import tiny_encoder, tiny_generator
from torch import Tensor

GOLDEN = Path(__file__).parent / "golden"
PICKLES = {"t": "C_tiny_t_proto4.pkl", "r": "C_tiny_r_proto2.pkl"}
STATE_DICTS = ("C_tiny_r_generator_statedict.pt", "C_tiny_r_generator_statedict_legacy.pt")
ENCODERS = ("C_tiny_encoder_ckpt_e4e.pt", "C_tiny_encoder_ckpt_psp.pt")


@cache
def golden_bytes(name: str) -> bytes:
    return lzma.decompress((GOLDEN / f"{name}.xz").read_bytes())


def golden_file(name: str, folder: Path) -> Path:
    (folder / name).write_bytes(golden_bytes(name))
    return folder / name


@cache
def golden_json(name: str) -> dict:
    return json.loads(gzip.decompress((GOLDEN / f"{name}.json.gz").read_bytes()))


def generator_state(seed: int = 0, **changes: object) -> OrderedDict[str, Tensor]:
    return OrderedDict(tiny_generator(seed, **changes).state_dict())


def save_encoder_checkpoint(path: Path, encoder_type: str = "BackboneEncoder", **extra: object) -> Path:
    """A ReStyle checkpoint of the tiny encoder and the tiny generator, with the containers of the real ones."""
    decoder = generator_state()
    state = OrderedDict({f"encoder.{k}": v for k, v in tiny_encoder().state_dict().items()})
    state |= {f"decoder.{k}": v for k, v in decoder.items()}
    opts = {"encoder_type": encoder_type, "input_nc": 6, "stylegan_weights": pathlib.PosixPath("weights/sg3.pt")}
    torch.save({"state_dict": state, "opts": opts, "latent_avg": decoder["mapping.w_avg"], **extra}, path)
    return path
