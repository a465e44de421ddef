"""What `sg3 bench --pipeline` has measured on this machine, kept for estimates: seconds and memory of every stage."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sg3cli import places
from sg3cli.files import write_json

SCHEMA = 1


@dataclass(frozen=True)
class Figures:
    """Of one model: `seconds` of a frame (of a tuning: of a step) and `memory` in bytes at the peak, by stage."""

    seconds: Mapping[str, float]
    memory: Mapping[str, int]
    threads: int


def path() -> Path:
    """Where they are kept."""
    return places.user_cache() / "bench.json"


def keep(digest: str, found: Mapping[str, Any]) -> None:
    """Keep the report of a measurement of the model with this generator, in the place of an earlier one."""
    rows = {row["stage"]: {"seconds": row["seconds"], "memory": row["peak_rss"]} for row in found["results"]}
    models = {**_read(), digest: {"threads": found["threads"], "stages": rows}}
    write_json(path(), {"schema": SCHEMA, "models": models})


def known(digest: str) -> Figures | None:
    """The figures of a model; None when it was not measured here, or they cannot be read."""
    try:
        entry = _read()[digest]
        seconds = {stage: float(row["seconds"]) for stage, row in entry["stages"].items()}
        memory = {stage: int(row["memory"]) for stage, row in entry["stages"].items()}
        found = Figures(seconds, memory, int(entry["threads"]))
    except (KeyError, TypeError, ValueError, AttributeError):
        return None
    return found if all(math.isfinite(value) and value >= 0 for value in seconds.values()) else None


def _read() -> dict[str, Any]:
    try:
        stored = json.loads(path().read_text(encoding="utf8"))
        return dict(stored["models"]) if stored["schema"] == SCHEMA else {}
    except (OSError, ValueError, KeyError, TypeError):
        return {}
