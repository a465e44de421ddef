"""Where programs live: streams that are closed or full, folders that are gone, no home, ASCII, names of any bytes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from running import Ran, environment, relocate

from sg3cli import cli, console, places
from sg3cli.cli import find_project
from sg3cli.cli.setting_sources import from_here, user_config
from sg3cli.console import as_text
from sg3cli.weights import store

SG3 = f"{sys.executable} -m sg3cli"
ASCII = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
STRANGER = 54321  # a user of no name and no home


def shell(line: str, cwd: Path, home: str | None = None, **env: str) -> Ran:
    """A line of the shell in which `sg3` is the command; without `home` the variable is not set."""
    around = environment(**env)
    around = {name: value for name, value in around.items() if name != "HOME"} | ({"HOME": home} if home else {})
    quiet = f'sg3() {{ {SG3} "$@"; }}; {line}'
    ran = subprocess.run(["sh", "-c", quiet], cwd=cwd, env=around, capture_output=True, timeout=120)
    return Ran(ran.returncode, ran.stdout.decode("utf8", "replace"), ran.stderr.decode("utf8", "replace"), ran.stdout)


def is_no_bug(ran: Ran, code: int, words: str = "") -> None:
    """The code, and at most two lines of error."""
    assert ran.code == code, (ran.code, ran.err)
    assert "bug in sg3" not in ran.err and "Traceback" not in ran.err and "Exception ignored" not in ran.err
    assert words in ran.err
    assert code == 0 or len(ran.err.strip().splitlines()) == 2


# ---- streams


def test_a_stream_that_is_closed_drops_what_it_is_given(tmp_path: Path) -> None:
    is_no_bug(shell("sg3 directions list >&- <&-", tmp_path), 0)
    assert shell("sg3 inspect nothing.sg3 2>&-", tmp_path).code == 3


@pytest.mark.parametrize("closed", [">&-", "<&- >&- 2>&-"])
def test_files_that_are_opened_do_not_get_the_number_of_a_closed_stream(closed: str, tmp_path: Path) -> None:
    script = (
        "import os; from sg3cli import console; console.open_streams();"
        "first = os.open('found', os.O_WRONLY | os.O_CREAT); os.write(first, str(first).encode())"
    )
    (tmp_path / "x.py").write_text(script)
    shell(f"{sys.executable} x.py {closed}", tmp_path)
    assert int((tmp_path / "found").read_text()) > 2


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_a_full_disk_behind_a_stream(tmp_path: Path) -> None:
    line = "sg3 directions list --json >/dev/full"
    is_no_bug(shell(line, tmp_path), 3, "error: cannot write to standard output: No space left on device")
    is_no_bug(shell("sg3 --help >/dev/full", tmp_path), 3, "No space left")
    assert shell("sg3 inspect nothing.sg3 2>/dev/full", tmp_path).code == 3


def test_a_video_for_a_closed_stdout_is_refused_before_any_work(monkeypatch: pytest.MonkeyPatch, talk: Path) -> None:
    from sg3cli.errors import UsageError
    from sg3cli.video.output_file import Output

    monkeypatch.setattr(console, "CLOSED", console.CLOSED | {"stdout"})
    monkeypatch.setattr("sg3cli.video.output_file.CLOSED", {"stdout"})
    with pytest.raises(UsageError, match="which is closed"):
        Output("-", talk, None)


# ---- folders


def test_a_working_folder_that_is_gone(tmp_path: Path) -> None:
    gone = "mkdir d && cd d && rmdir ../d && "
    is_no_bug(shell(gone + "sg3 directions list", tmp_path), 0)
    is_no_bug(shell(gone + "sg3 inspect", tmp_path), 3, "the folder in which this command was started is gone")
    is_no_bug(shell(gone + "sg3 align a.mp4", tmp_path), 3, "there is no file a.mp4")


@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("setpriv"), reason="only root can be somebody else")
def test_no_home_for_a_user_of_no_name(tmp_path: Path) -> None:
    """As in a container with `--user 54321`: defaults, a temporary cache, one notice."""
    line = f"{sys.executable} -m sg3cli models list"
    as_stranger = f"setpriv --reuid {STRANGER} --clear-groups env TMPDIR={tmp_path} {line}"
    tmp_path.chmod(0o777)
    for parent in (*tmp_path.parents,):
        if parent.stat().st_uid == os.geteuid() and "pytest" in str(parent):
            parent.chmod(parent.stat().st_mode | 0o055)
    without_models = {"SG3_MODELS": "", "XDG_CACHE_HOME": "", "XDG_CONFIG_HOME": "", "SG3_CONFIG": ""}
    for home in (None, "/"):
        ran = shell(as_stranger, Path("/"), home, **without_models)
        if "Permission denied" in ran.err and "python" in ran.err:
            pytest.skip("the interpreter is not for other users")
        assert ran.code == 0 and ran.out.startswith("people-128")
        (notice,) = [each for each in ran.err.splitlines() if "no home" in each]
        assert str(tmp_path / f"sg3-{STRANGER}") in notice
    made = tmp_path / f"sg3-{STRANGER}"
    assert made.stat().st_mode & 0o777 == 0o700 and made.stat().st_uid == STRANGER


def test_a_temporary_cache_that_somebody_else_has_taken_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A library is loaded from there: a folder that others can write to, or a link, could hold theirs."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    name = tmp_path / f"sg3-{os.getuid()}"
    name.mkdir()
    name.chmod(0o777)
    for kind in ("open to all", "a link"):
        places.temporary_cache.cache_clear()
        found = places.temporary_cache()
        assert found != name and found.parent == tmp_path and found.stat().st_mode & 0o777 == 0o700, kind
        if kind != "a link":
            name.rmdir()
            name.symlink_to(found)
    name.unlink()
    places.temporary_cache.cache_clear()
    assert places.temporary_cache() == name
    places.temporary_cache.cache_clear()


def test_places_without_a_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os.path, "expanduser", os.fspath)  # what it does when it does not know
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    for name in ("XDG_CACHE_HOME", "XDG_CONFIG_HOME", "TORCH_HOME", "SG3_MODELS", "SG3_CONFIG", "SG3_INVERT_LIKENESS"):
        monkeypatch.delenv(name, raising=False)
    places.temporary_cache.cache_clear()
    own = tmp_path / f"sg3-{os.getuid()}"
    assert places.home() is None and places.is_temporary() and places.user_cache() == own
    assert store.models_dir() == own / "models" and store.torch_hub_dir() == own / "torch/hub/checkpoints"
    assert user_config(os.environ) is None and from_here()["invert"] == {}
    assert places.expand("~/x") == Path("~/x")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert places.user_cache() == tmp_path / "xdg/sg3" and not places.is_temporary()
    places.temporary_cache.cache_clear()


def test_a_home_of_nobody_is_a_model_that_is_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["bench", "~nobody-of-this-name/model"]) in (2, 4)
    assert "bug in sg3" not in capsys.readouterr().err


# ---- what the system says


@pytest.mark.parametrize(
    ("error", "what"),
    [
        (PermissionError(13, "Permission denied", "/a/b"), "/a/b: Permission denied"),
        (OSError(5, "Input/output error"), "the system refused something: Input/output error"),
        (OSError(28, "No space left on device", "x", None, "y"), "x and y: No space left on device"),
        (OSError("odd"), "the system refused something: odd"),
    ],
)
def test_what_the_system_refuses_is_two_lines_and_no_bug(error: OSError, what: str) -> None:
    expected = cli.as_expected(error, "align")
    assert (expected.code, str(expected)) == (3, what) and expected.hint and "a bug" not in expected.hint
    assert cli.as_expected(ValueError("x"), "align").code == 1  # those stay what they are


# ---- text and names


def test_a_locale_of_ascii_shows_escapes(tmp_path: Path) -> None:
    ran = shell("sg3 inspect h\u00e9.sg3", tmp_path, **ASCII)
    is_no_bug(ran, 3, "there is no project h")
    strict = shell("sg3 models list", tmp_path, PYTHONIOENCODING="ascii:strict", **ASCII)
    assert strict.code == 0 and strict.out.isascii()


NAMES = ["two\nlines", " spaces ", '"quoted"', "{brace", "tab\there", "h\u00e9", os.fsdecode(b"caf\xe9")]


@pytest.mark.parametrize("name", NAMES)
def test_a_path_survives_the_pipe_whatever_is_in_its_name(
    name: str, tuned: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    line = find_project.path_line(tmp_path / name)
    assert "\n" not in line and find_project.path_in(line.strip()) == str(tmp_path / name)
    assert find_project.path_in(json.dumps({"schema": 1, "project": name})) == name  # what --json prints
    plain = find_project.path_line(name)
    assert "\n" not in plain and find_project.path_in(plain.strip()) == name


def test_projects_of_odd_names_go_through_a_pipe_of_two_commands(tuned: Path, tmp_path: Path) -> None:
    for name in ("two\nlines.sg3", os.fsdecode(b"caf\xe9.sg3")):
        shutil.copytree(tuned / "talk.sg3", tmp_path / name)
        relocate(tmp_path / name, tuned, tuned)
        ran = shell('sg3 edit "$NAME" --edit age=1 | sg3 edit --edit smile=1 --json', tmp_path, NAME=name)
        assert ran.code == 0, ran.err
        reply = json.loads(ran.out)
        assert [edit["direction"] for edit in reply["edits"]] == ["age", "smile"]
        assert not any(0xD800 <= ord(char) < 0xE000 for char in json.dumps(reply, ensure_ascii=False))
        shutil.rmtree(tmp_path / name)


def test_json_holds_no_half_characters() -> None:
    odd = os.fsdecode(b"caf\xe9.mp4")
    assert as_text({odd: [odd, (1, None, odd)], "plain": "h\u00e9"}) == {
        "caf\\xe9.mp4": ["caf\\xe9.mp4", [1, None, "caf\\xe9.mp4"]],
        "plain": "h\u00e9",
    }


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (["align", ""], "argument 2 is empty"),
        (["run", "a.mp4", "-o", ""], "-o is empty"),
        (["run", "a.mp4", "--output=", "--edit", "age=1"], "--output is empty"),
        (["inspect", "", "--json"], "argument 2 is empty"),
    ],
)
def test_an_empty_argument_is_named(words: list[str], what: str, capsys: pytest.CaptureFixture[str]) -> None:
    """It is the folder here for Python, and the folder here is not what was meant."""
    assert cli.run(words) == 2
    assert capsys.readouterr().err.splitlines()[-2] == f"error: {what}"
