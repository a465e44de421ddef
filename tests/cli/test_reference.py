"""The command reference in `examples/` is what the commands say of themselves."""

from __future__ import annotations

from pathlib import Path

from sg3cli.cli.reference import reference

PAGE = Path(__file__).resolve().parents[2] / "examples" / "commands.md"


def test_the_page_is_up_to_date() -> None:
    same = PAGE.read_text(encoding="utf8") == reference()
    assert same, "run `python -m sg3cli.cli.reference > examples/commands.md`"


def test_every_command_has_a_section() -> None:
    page = reference()
    for name in ("run", "render", "models pull", "train generator"):
        assert f"\n## sg3 {name}\n" in page
    assert page.count("`--json`: ") == 1  # what all commands take is said once
