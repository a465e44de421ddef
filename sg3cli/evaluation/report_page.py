"""The page of a report: one HTML file that holds all it shows and reads nothing from anywhere.

Names and texts of users are escaped by the template engine. A content security policy inside the page allows no
address but those that hold their data themselves, and no script but its own.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date
from importlib import resources

import jinja2

from sg3cli import __version__
from sg3cli.evaluation.clip_table import COLUMNS, Column, columns_of, means
from sg3cli.evaluation.figure_words import MISSING, Row, frechet_rows
from sg3cli.evaluation.report import ClipReport
from sg3cli.evaluation.report_videos import data_url
from sg3cli.evaluation.video_figures import frechet

KEY_FIGURES = ("likeness", "likeness_min", "tl_id", "tg_id", "lpips", "jitter", "flicker", "sharpness", "seam", "sound")
TOOK = Column("seconds", "took s", "seconds that the recorded stages took together", ("seconds",), 0)


@dataclass(frozen=True)
class Cell:
    """A figure on the page; `value` None is said to be not computed."""

    column: Column
    value: float | None

    @property
    def text(self) -> str:
        """The figure in its column's digits."""
        return MISSING if self.value is None else self.column.text(self.value)


def page(reports: Sequence[ClipReport], made: date) -> str:
    """The whole page: of one clip, or an index and all clips."""
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(part),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"film": film, "percent": percent, "megabytes": megabytes}
    columns = (*columns_of([report.figures for report in reports]), TOOK)
    script = part("report.js")
    return environment.get_template("report.html").render(
        reports=reports,
        columns=columns,
        rows=[cells_of(report, columns) for report in reports],
        average=[Cell(column, value) for column, value in averages(reports, columns)],
        key_rows=[key_cells(report) for report in reports],
        pooled=pooled_rows(reports),
        missing=MISSING,
        version=__version__,
        made=made.isoformat(),
        script=script,
        script_digest=digest(script),
        style=part("report.css"),
    )


def pooled_rows(reports: Sequence[ClipReport]) -> list[Row]:
    """Distances over the frames of all clips that were judged; nothing for fewer than two."""
    features = [report.features for report in reports if report.features is not None]
    return list(frechet_rows(frechet(features))) if len(features) > 1 else []


def part(name: str) -> str:
    """A file beside the template."""
    return (resources.files("sg3cli.evaluation") / "templates" / name).read_text(encoding="utf8")


def digest(script: str) -> str:
    """What names a script in a content security policy."""
    return "sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


def cells_of(report: ClipReport, columns: Sequence[Column]) -> list[Cell]:
    """A clip's row of the index."""
    figures = dict(report.figures or {}) | {"seconds": report.seconds}
    return [Cell(column, column.value(figures)) for column in columns]


def averages(reports: Sequence[ClipReport], columns: Sequence[Column]) -> list[tuple[Column, float | None]]:
    """Mean of each column over the clips that have it."""
    found = means(columns, [dict(report.figures or {}) | {"seconds": report.seconds} for report in reports])
    return [(column, found[column.key]) for column in columns]


def key_cells(report: ClipReport) -> list[Cell]:
    """What is read first of a clip."""
    asked = [with_strength(column, report) for column in columns_of([report.figures])[len(COLUMNS) :]]
    chosen = [column for column in COLUMNS if column.key in KEY_FIGURES]
    return [Cell(column, column.value(report.figures)) for column in (*asked, *chosen)]


def with_strength(column: Column, report: ClipReport) -> Column:
    """The column of a label, which says what was asked for and whether the change follows it over time."""
    entry = (report.figures or {})["attributes"]["labels"][column.heading]
    follows = "" if entry["follows"] is None else f", follows it over time by {entry['follows']:.2f}"
    return replace(column, meaning=f"standard deviations; strength asked {entry['asked']:.3g}{follows}")


def film(data: bytes) -> str:
    """A video as an address that holds it."""
    return data_url(data, "video/mp4")


def percent(share: float) -> str:
    """`0.125` -> `12.5%`, for a place on the page."""
    return f"{100 * share:.2f}%"


def megabytes(count: int) -> str:
    """Bytes in words."""
    return f"{count / 2**20:,.0f} MB"
