"""Tables of labels: which attribute has which value in the image of a seed, in a file, or for a code.

CSV with a column `seed` or `file` and a column for each attribute; an empty cell is an unknown value. Or `.npz` with
`columns [K]`, `labels [N, K]` and, unless the codes come from elsewhere, `seed [N]`.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sg3cli.errors import InputError, UsageError
from sg3cli.files import atomic_path

HINT = "a table has a column `seed` or `file` and a column of numbers for each attribute"


@dataclass(frozen=True)
class LabelTable:
    """scores [N, K] float64, nan where unknown; the images are those of `seeds`, or `files`, or neither."""

    names: tuple[str, ...]
    scores: np.ndarray
    seeds: tuple[int, ...] = ()
    files: tuple[Path, ...] = ()
    groups: tuple[str, ...] = ()  # where each row comes from; empty: nothing is known of it

    def __len__(self) -> int:
        return len(self.scores)


def read_labels(path: Path, names: tuple[str, ...] = (), balance: str | None = None) -> LabelTable:
    """The table in `path`; only the columns `names` if there are any. Errors name the file, the row and the column.

    The column `balance` is no attribute: its words or numbers are the rows' groups.
    """
    if not path.is_file():
        raise UsageError(f"there is no table {path}", HINT)
    table = _read_npz(path, names, balance) if path.suffix == ".npz" else _read_csv(path, names, balance)
    if not len(table):
        raise InputError(f"{path} has no rows", HINT)
    return table


def write_labels(path: Path, table: LabelTable) -> None:
    """A CSV that `read_labels` reads, of a table with seeds."""
    with atomic_path(path) as temporary, temporary.open("w", newline="", encoding="utf8") as file:
        writer = csv.writer(file)
        writer.writerow(["seed", *table.names])
        for seed, row in zip(table.seeds, table.scores, strict=True):
            writer.writerow([seed, *("" if np.isnan(value) else repr(float(value)) for value in row)])


def _read_csv(path: Path, names: tuple[str, ...], balance: str | None) -> LabelTable:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            rows, columns = list(reader), [c.strip() for c in reader.fieldnames or []]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path} cannot be read as a table: {error}", HINT) from error
    keys = [name for name in ("seed", "file") if name in columns]
    if len(keys) != 1:
        raise InputError(f"{path} has {'both columns' if keys else 'no column'} `seed` and `file`", HINT)
    _chosen(path, columns, () if balance is None else (balance,))
    attributes = _chosen(path, [c for c in columns if c not in (*keys, balance)], names)
    if not attributes:
        raise InputError(f"{path} has no column of an attribute", HINT)
    plain = [{(k or "").strip(): v for k, v in row.items()} for row in rows]
    groups = () if balance is None else tuple((row.get(balance) or "").strip() for row in plain)
    scores = [[_number(path, line, name, row.get(name)) for name in attributes] for line, row in enumerate(plain, 2)]
    array = np.array(scores, np.float64).reshape(-1, len(attributes))
    if keys == ["seed"]:
        seeds = tuple(_seed(path, line, row["seed"]) for line, row in enumerate(plain, 2))
        return LabelTable(attributes, array, seeds=seeds, groups=groups)
    files = tuple(path.parent / (row["file"] or "").strip() for row in plain)
    for line, each in enumerate(files, 2):
        if not each.is_file():
            raise InputError(f"{path}, row {line}: there is no file {each}", "names are relative to the table's folder")
    return LabelTable(attributes, array, files=files, groups=groups)


def _read_npz(path: Path, names: tuple[str, ...], balance: str | None) -> LabelTable:
    try:
        with np.load(path, allow_pickle=False) as arrays:
            columns, labels = [str(c) for c in arrays["columns"]], np.asarray(arrays["labels"], np.float64)
            seeds = tuple(int(s) for s in arrays["seed"]) if "seed" in arrays else ()
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"{path} is no table of labels: {error}", "it holds `columns`, `labels` and `seed`") from error
    if labels.ndim != 2 or labels.shape[1] != len(columns) or (seeds and len(seeds) != len(labels)):
        shapes = f"labels {labels.shape}, {len(columns)} columns, {len(seeds)} seeds"
        raise InputError(f"{path} does not fit together: {shapes}", "one row a picture, one column an attribute")
    _chosen(path, columns, () if balance is None else (balance,))
    attributes = _chosen(path, [name for name in columns if name != balance], names)
    groups = () if balance is None else tuple(f"{value:g}" for value in labels[:, columns.index(balance)])
    return LabelTable(attributes, labels[:, [columns.index(name) for name in attributes]], seeds, groups=groups)


def _chosen(path: Path, columns: list[str], names: tuple[str, ...]) -> tuple[str, ...]:
    for name in names:
        if name not in columns:
            raise UsageError(f"{path} has no column {name}", f"it has: {', '.join(columns) or 'none'}")
    return names or tuple(columns)


def _number(path: Path, line: int, column: str, text: str | None) -> float:
    if not (text or "").strip():
        return float("nan")
    try:
        return float(text or "")
    except ValueError as error:
        hint = "leave unknown cells empty, or name the attributes to use with --attributes"
        raise InputError(f"{path}, row {line}: {column} is '{text}', not a number", hint) from error


def _seed(path: Path, line: int, text: str | None) -> int:
    if not (text or "").strip().isdigit() or int(text or "") >= 2**32:
        raise InputError(f"{path}, row {line}: seed is '{text}'", "a seed is a number below 4294967296")
    return int(text or "")
