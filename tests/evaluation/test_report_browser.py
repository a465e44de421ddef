"""The page of a report in a headless Chromium: the slider moves, both videos play in step, nothing is complained of."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import date
from pathlib import Path

import browser
import pytest
from reports import FRAMES, RATE, figures, report, small

from sg3cli.evaluation.report_page import page

PROGRAM = browser.find()
pytestmark = pytest.mark.skipif(PROGRAM is None, reason="no Chromium is here: apt-get install chromium")
STEP = 1 / RATE
SHOWN = "[...document.querySelectorAll('.clip:not([hidden]) video')]"


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("pages")
    videos, day = small(folder), date(2024, 5, 6)
    one = report("talk <b>&.mp4", videos)
    others = [report(f"{name}.mp4", videos, figures=figures(sharpness=value)) for name, value in SHARPNESS.items()]
    paths = {"one": folder / "one.html", "many": folder / "many.html"}
    paths["one"].write_text(page([one], day), encoding="utf8")
    paths["many"].write_text(page(others, day), encoding="utf8")
    return paths


SHARPNESS = {"a": 0.9, "b": None, "c": 0.11, "d": 1.2}


@pytest.fixture(scope="module")
def chromium() -> Iterator[browser.Browser]:
    assert PROGRAM is not None
    with browser.Browser(PROGRAM) as opened:
        yield opened
        assert opened.errors == []
        assert {address.partition(":")[0] for address in opened.requests} <= {"file", "data", "blob"}


def ready(chromium: browser.Browser) -> None:
    chromium.wait(f"{SHOWN}.length == 2 && {SHOWN}.every(video => video.readyState >= 3)")


def test_the_slider_moves_by_mouse_and_by_keyboard(chromium: browser.Browser, pages: dict[str, Path]) -> None:
    chromium.open(pages["one"])
    ready(chromium)
    left, top, width, height = chromium.run(
        "(r => [r.left, r.top, r.width, r.height])(document.querySelector('.stage').getBoundingClientRect())"
    )
    rule = "(document.querySelector('.rule').getBoundingClientRect().left)"
    clip = "getComputedStyle(document.querySelector('video.source')).clipPath"
    whole = chromium.run(clip)
    assert chromium.run(rule) == pytest.approx(left + width / 2, abs=2) and whole == "inset(0px 50% 0px 0px)"
    chromium.drag((left + width / 2, top + height / 3), (left + width / 5, top + height / 3))
    assert chromium.run(rule) == pytest.approx(left + width / 5, abs=5)
    chromium.run("document.querySelector('.cut').focus()")
    before = chromium.run(rule)
    for _ in range(8):
        chromium.press("ArrowRight", 39)
    assert chromium.run(rule) == pytest.approx(before + 0.04 * width, abs=2)
    assert chromium.run(clip) != whole


def test_both_videos_play_within_a_frame_of_each_other(chromium: browser.Browser, pages: dict[str, Path]) -> None:
    chromium.open(pages["one"])
    ready(chromium)
    chromium.run("document.querySelector('.loop').click()")
    chromium.press(" ", 32, " ")
    times, end = [], time.monotonic() + 20
    while time.monotonic() < end and not (times and times[-1][2]):
        times.append(chromium.run(f"(v => [v[0].currentTime, v[1].currentTime, v[0].ended || v[0].paused])({SHOWN})"))
        time.sleep(0.03)
    moving = [(a, b) for a, b, ended in times if a > 0.3 and not ended]
    assert len(moving) >= 5 and max(a for a, _ in moving) > 1.0
    assert max(abs(a - b) for a, b in moving) <= STEP
    assert chromium.run(f"Math.abs({SHOWN}[0].currentTime - {SHOWN}[1].currentTime)") <= STEP / 2


def test_keys_step_by_a_frame_and_the_strip_goes_to_its_time(chromium: browser.Browser, pages: dict[str, Path]) -> None:
    chromium.open(pages["one"])
    ready(chromium)
    chromium.run("document.querySelectorAll('.strip button')[1].click()")
    shown = f"{SHOWN}.map(video => Math.floor(video.currentTime / {STEP} + 1e-3))"
    assert chromium.run(shown) == [25, 25]
    chromium.press(".", 190, ".")
    chromium.press(".", 190, ".")
    chromium.press(",", 188, ",")
    assert chromium.run(shown) == [26, 26]
    head = "parseFloat(document.querySelector('.head').style.left)"
    assert chromium.run(head) == pytest.approx(100 * 26.5 / FRAMES, abs=0.1)


def test_masks_are_shown_when_they_are_asked_for(chromium: browser.Browser, pages: dict[str, Path]) -> None:
    chromium.open(pages["one"])
    ready(chromium)
    seen = "getComputedStyle(document.querySelector('img.mask')).visibility"
    assert chromium.run(seen) == "hidden"
    chromium.press("m", 77, "m")
    assert chromium.run(seen) == "visible"
    outline = "document.querySelector('.shapes .window').getAttribute('d')"
    assert chromium.run(outline) == "M0.2,0.1L0.2,0.5L0.6,0.5L0.6,0.1Z"
    chromium.run("document.querySelectorAll('.strip button')[1].click()")  # no face is there at that time
    assert chromium.run(outline) == ""


def test_the_index_sorts_and_what_is_not_computed_comes_last(chromium: browser.Browser, pages: dict[str, Path]) -> None:
    chromium.open(pages["many"])
    names = "[...document.querySelectorAll('.index tbody tr')].map(row => row.cells[0].innerText.trim()[0]).join('')"
    press = "document.querySelector('th[data-key=sharpness] button').click()"
    assert chromium.run(names) == "abcd"
    chromium.run(press)
    assert chromium.run(names) == "cadb"
    chromium.run(press)
    assert chromium.run(names) == "dacb"
    assert chromium.run("document.querySelector('th[data-key=sharpness]').getAttribute('aria-sort')") == "descending"


def test_a_clip_of_many_opens_and_the_index_comes_back(chromium: browser.Browser, pages: dict[str, Path]) -> None:
    chromium.open(pages["many"])
    chromium.run("document.querySelector('a[href=\"#clip-3\"]').click()")
    chromium.wait("document.getElementById('index').hidden")
    ready(chromium)
    assert chromium.run("[...document.querySelectorAll('.clip:not([hidden]) h1')].map(e => e.innerText)") == ["c.mp4"]
    chromium.run("document.querySelector('.clip:not([hidden]) a[href=\"#index\"]').click()")
    chromium.wait("!document.getElementById('index').hidden")
    assert chromium.run("document.querySelectorAll('.clip:not([hidden])').length") == 0
    assert chromium.run("document.querySelectorAll('video[src]').length") == 0  # what is not seen is let go


@pytest.mark.parametrize("name", ["one", "many"])
@pytest.mark.parametrize("dark", [False, True])
def test_a_narrow_window_needs_no_scrolling_to_the_side(
    chromium: browser.Browser, pages: dict[str, Path], name: str, dark: bool
) -> None:
    chromium.open(pages[name], 360, 740, dark)
    assert chromium.run("document.documentElement.scrollWidth") == 360
    bright = chromium.run("getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)[0]")
    assert (bright < 60) == dark
