"""The report on spaces for people: as bars, and as a table."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from sg3cli.drawing.bar_chart import Bars, draw
from sg3cli.evaluation.editability import EDITED, FAMILIES, averages
from sg3cli.evaluation.report_run import Figures
from sg3cli.latents.spaces import SPACES

TITLES = {
    "disentanglement": "DCI disentanglement",
    "completeness": "DCI completeness",
    "informativeness": "DCI informativeness",
    "mig": "MIG",
    "separability": "separability (1: perfect)",
    "ppl": "PPL",
    "length": "path length",
}


def picture(figures: Figures) -> np.ndarray:
    """The scores of the spaces, and what edits cost in them."""
    names = [space.upper() for space in SPACES]
    panels = [
        Bars(title, names, {"": [figures["spaces"][space][key] for space in SPACES]}, 3 if key != "separability" else 1)
        for key, title in TITLES.items()
    ]
    means = averages(figures["edits"])
    for key, title in (("leak", "leak of edits at equal change"), ("identity", "identity kept by them")):
        series = {family: [means[family, space][key] for space in EDITED] for family in FAMILIES}
        panels.append(Bars(title, [space.upper() for space in EDITED], series))
    read = f"read by {figures['reader'] or 'nobody'}, edits judged by {figures['judge'] or 'nobody'}"
    subtitle = f"{figures['config']['samples']} pictures, {read}; distances: {figures['distance']}"
    return draw(f"{figures['model']}: its spaces", subtitle, panels)


def report_lines(figures: Figures) -> Iterator[str]:
    """The figures as tables."""
    config, missing = figures["config"], figures["not_computed"]
    yield f"{'read by':<18}{figures['reader'] or 'not computed'}; edits judged by {figures['judge'] or 'nobody'}"
    yield f"{'distances by':<18}{figures['distance']}"
    yield f"{'':<18}" + "".join(f"{space.upper():>10}" for space in SPACES)
    for key, title in {**TITLES, "accuracy": "hyperplanes right"}.items():
        values = [figures["spaces"][space][key] for space in SPACES]
        if key in missing:
            yield f"{title[:17]:<18}not computed: {missing[key]}"
        else:
            yield f"{title.split(' (')[0].replace('DCI ', ''):<18}" + "".join(_number(value) for value in values)
    told = [figures["spaces"][space].get("predicted") for space in SPACES]
    if all(names is not None for names in told):
        yield (
            f"{'predicted':<18}" + "".join(f"{len(names):>10}" for names in told) + f" of {len(figures['attributes'])}"
        )
    if "mig_bins" in figures:
        yield f"{'attributes':<18}{', '.join(figures['attributes'])}; MIG in {figures['mig_bins']}"
    for name, why in missing.items():
        if name.startswith(("attribute ", "edits by")):
            yield f"{name:<28}not computed: {why}"
    yield from edit_lines(figures, config["change"])


def edit_lines(figures: Figures, change: float) -> Iterator[str]:
    """The table of edits."""
    if "edits" in figures["not_computed"]:
        yield f"{'edits':<18}not computed: {figures['not_computed']['edits']}"
        return
    yield f"edits by {change:+g} deviations of the attribute, {figures['config']['faces']} faces"
    yield f"{'':<12}{'space':<6}{'attribute':<14}{'change':>8}{'leak':>8}{'identity':>10}"
    for row in figures["edits"]:
        start = f"{row['family']:<12}{row['space'].upper():<6}{row['attribute']:<14}"
        if row["leak"] is None:
            yield f"{start}not computed: {row['not_computed']}"
        else:
            yield f"{start}{row['change']:>+8.2f}{row['leak']:>8.3f}{row['identity']:>10.3f}"
    for (family, space), mean in averages(figures["edits"]).items():
        count = int(mean["attributes"] or 0)
        words = f"mean of {count}" if count else "no mean: no attribute was reached in all three spaces"
        figures_of = f"{'':>8}{_number(mean['leak'])[2:]}{_number(mean['identity'])}" if count else ""
        yield f"{family:<12}{space.upper():<6}{words:<14}{figures_of}"


def _number(value: float | None) -> str:
    return f"{'-':>10}" if value is None else f"{value:>10.3f}"
