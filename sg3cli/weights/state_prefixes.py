"""Names of a state dict without what training loops put before them: `module.`, `_orig_mod.`, `G_ema.` and the like."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TypeVar

from sg3cli.weights.safe_pickle.values import shown

T = TypeVar("T")

WRAPPERS = re.compile(r"(?:module\.|_orig_mod\.|_forward_module\.|_fsdp_wrapped_module\.)+")
ANCHOR = re.compile(r"(.{0,80}?)synthesis\.L0_\d{1,5}_\d{1,5}\.weight")  # every generator has one
AVERAGED = ("ema", "avg", "averaged")  # what the averaged weights are called: the ones to use
DROPPED = ("n_averaged",)  # a counter that torch's weight averaging keeps beside the weights


def unwrapped(state: Mapping[str, T]) -> dict[str, T]:
    """The state dict without the wrappers of distributed and compiled training, wherever they stand in a name."""
    plain = {_without_wrappers(name): value for name, value in state.items() if name not in DROPPED}
    return plain if len(plain) + sum(name in state for name in DROPPED) == len(state) else dict(state)


def _without_wrappers(name: str) -> str:
    return re.sub(rf"(^|\.){WRAPPERS.pattern}", r"\1", name)


def generator_of(state: Mapping[str, T]) -> tuple[dict[str, T], list[str]]:
    """(the generator's tensors under their own names, words about what stood before and beside them).

    Of several generators in one state dict the averaged one is taken.
    """
    state = unwrapped(state)
    prefixes = [match[1] for name in state if (match := ANCHOR.fullmatch(name))]
    if not prefixes or "" in prefixes:
        return dict(state), []
    prefix = next((p for p in prefixes if any(word in p.lower() for word in AVERAGED)), prefixes[0])
    inside = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
    rest = [name for name in state if not name.startswith(prefix)]
    words = [f"its names begin with {shown(prefix, 40)}"]
    words += [f"{len(rest)} tensors beside it are left out ({shown(rest[0], 60)})"] if rest else []
    return inside, words
