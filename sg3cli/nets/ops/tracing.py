"""What the operators tell `torch.compile` without importing it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

F = TypeVar("F", bound=Callable[..., object])


def constant_when_traced(function: F) -> F:
    """Marks a function whose result a trace may keep: `torch.compiler.assume_constant_result` does the same.

    That one imports the compiler, more than a second for every command that loads a generator.
    """
    function._dynamo_marked_constant = True  # type: ignore[attr-defined]
    return function
