"""The page of a report: what users named is text, what is missing is not zero, and nothing is read from elsewhere."""

from __future__ import annotations

import html
import json
import re
from datetime import date
from html.parser import HTMLParser
from typing import Any

import pytest
from reports import figures, report

from sg3cli.evaluation.clip_table import COLUMNS
from sg3cli.evaluation.report_page import digest, page

DAY = date(2024, 5, 6)
HOSTILE = "\"><img src=x onerror=alert(1)><script>alert(2)</script>'&amp;{{7*7}}"


class Outline(HTMLParser):
    """The elements of a page, and the text in each kind."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, list[str]] = {}
        self._open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        while self._open and self._open.pop() != tag:
            pass

    def handle_data(self, data: str) -> None:
        self.texts.setdefault(self._open[-1] if self._open else "", []).append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [words for name, words in self.elements if name == tag]


def test_names_and_words_of_users_are_text_wherever_they_stand() -> None:
    plain = Outline(page([report(), report("b.mp4")], DAY))
    hostile = {name: [HOSTILE] for name in ("edits", "notices")}
    rows = [(HOSTILE, HOSTILE)]
    bad = report(
        HOSTILE,
        project=HOSTILE,
        **hostile,
        facts=rows,
        measured=rows,
        provenance=rows,
        mask_words=HOSTILE,
        shapes=[{"t": 0, "windows": [], "faces": [], "x": "</script><script>alert(3)</script><!--"}],
    )
    text = page([bad, report("b.mp4", notices=["one"])], DAY)
    found = Outline(text)
    for tag in ("img", "script"):  # the hostile words make no element, and end none
        assert len(found.all(tag)) == len(plain.all(tag))
    assert not any(name.startswith("on") for _, words in found.elements for name in words)
    assert HOSTILE in "".join(found.texts["h1"]) and "49" not in "".join(found.texts["h1"])
    shapes = json.loads(found.texts["script"][0])
    assert shapes[0]["x"].startswith("</script>") and "</script><script>alert(3)" not in text


def test_nothing_is_read_from_elsewhere() -> None:
    text = page([report(), report("b.mp4")], DAY)
    found = Outline(text)
    for _, words in found.elements:
        for name in ("src", "href", "data-film", "poster", "action", "srcset"):
            address = words.get(name)
            assert address is None or address.startswith(("data:", "#")), address
    assert not re.search(r"url\(|@import|https?://|//[a-z]+\.", text)
    (policy,) = [words["content"] for words in found.all("meta") if "http-equiv" in words]
    assert policy is not None and policy.startswith("default-src 'none'; img-src data:;")
    assert re.search(r"script-src 'sha256-[^' ]+';", policy) and "unsafe-eval" not in policy


def test_the_policy_names_the_script_as_it_stands_in_the_page() -> None:
    text = page([report()], DAY)
    script = text.rpartition("<script>")[2].partition("</script>")[0]
    assert f"script-src '{digest(script)}'" in html.unescape(text)


@pytest.mark.parametrize("missing", ["jitter", "sound", "identity", "sharpness", "attributes"])
def test_what_is_missing_is_not_computed_and_never_zero(missing: str) -> None:
    empty = {"ratio": None, "mean": None, "min": None, "local": None, "global": None}
    value: Any = None if missing in ("sound", "sharpness", "attributes") else empty
    cells = key_figures(page([report(figures=figures(**{missing: value}))], DAY))
    gone = {column.key for column in COLUMNS if column.path[0] == missing} & cells.keys()
    assert all(cells[key] == "not computed" for key in gone) and "0" not in [cells[key] for key in gone]
    assert [cells[key] for key in cells.keys() - gone if cells[key] == "not computed"] == []
    assert missing != "attributes" or "asked age" not in cells


def test_a_clip_without_any_figure_says_so_everywhere() -> None:
    text = page([report(figures=None, features=None, measured=[])], DAY)
    assert set(key_figures(text).values()) == {"not computed"}
    assert len(re.findall(r'<p class="none">not computed</p>', text)) == 2


def key_figures(text: str) -> dict[str, str]:
    found = re.findall(r'<dd(?: class="none")? data-key="([^"]+)">([^<]*)</dd>', text)
    return {html.unescape(key): value for key, value in found}


def test_the_figures_are_those_of_the_clip() -> None:
    cells = key_figures(page([report()], DAY))
    assert cells["likeness"] == "0.910" and cells["jitter"] == "1.27" and cells["sharpness"] == "0.89"
    assert cells["asked age"] == "1.75" and cells["sound"] == "83.1"
    assert "strength asked 2, follows it over time by 0.50" in page([report()], DAY)


def test_the_index_can_be_sorted_by_every_figure() -> None:
    silent = report("b.mp4", figures=figures(sound=None))
    found = Outline(page([report("a.mp4"), silent], DAY))
    headings = [words for words in found.all("th") if "data-kind" in words]
    values = [words["data-value"] for words in found.all("td") if "data-value" in words]
    assert len(values) == 2 * len(headings) and [words["data-kind"] for words in headings[:3]] == [
        "text",
        "text",
        "number",
    ]
    keys = [words.get("data-key") for words in headings]
    first, second = (dict(zip(keys, values[k::1][: len(keys)], strict=True)) for k in (0, len(keys)))
    assert first["sound"] is not None and float(first["sound"]) == pytest.approx(83.1) and second["sound"] == ""
    assert float(first["sharpness"] or "nan") == 0.89 and first["seconds"] == "3.25"
    assert [words["href"] for words in found.all("a") if (words["href"] or "").startswith("#clip-")][:2] == [
        "#clip-1",
        "#clip-2",
    ]


def test_one_clip_has_no_index_and_several_have_distances_over_all() -> None:
    assert 'id="index"' not in page([report()], DAY) and "FID over frames" not in page([report()], DAY)
    both = page([report(), report("b.mp4")], DAY)
    assert "not computed (24 frames, 64 at least)" in both
    assert "All clips together" not in page([report(), report("b.mp4", figures=None, features=None)], DAY)


def test_what_a_project_does_not_record_is_said() -> None:
    rows = re.findall(r"<tr><th scope=\"row\">(?:align|invert|render)</th>.*?</tr>", page([report()], DAY), re.DOTALL)
    assert "1.2 s" in rows[0] and "300 MB" in rows[0] and "not recorded" not in rows[0]
    assert "2.0 s" in rows[1] and rows[1].count("not recorded") == 1
    assert "not done" in rows[2] and not re.search(r"\d", rows[2])
