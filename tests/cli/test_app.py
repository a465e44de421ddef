"""The command line: settings and where they come from, the project a command finds, JSON, exit codes, start-up."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from running import commands, environment, sg3

from sg3cli import __version__, cli
from sg3cli.cli import setting_sources
from sg3cli.cli.app import app
from sg3cli.cli.flags import flag_names
from sg3cli.cli.setting_sources import ambient, check, env_name, resolve
from sg3cli.errors import UsageError
from sg3cli.project import Project
from sg3cli.settings import CONFIGS, FinetuneConfig, InvertConfig, table

NO_VALUES: setting_sources.Values = {}


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder and an environment without settings."""
    monkeypatch.chdir(tmp_path)
    for name in list(environment()):
        if name.startswith("SG3_") and name != "SG3_MODELS":
            monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("SG3_CONFIG", str(tmp_path / "user.toml"))
    return tmp_path


def make_project(path: Path) -> Project:
    clip = path.with_suffix(".mp4")
    clip.write_bytes(path.name.encode())
    project = Project.of_source(clip, path, {})
    with project.lock("test"):
        project.save()
    return project


# ---- settings


def test_every_setting_has_help_a_flag_and_an_environment_name() -> None:
    known = [(stage, name) for stage, config in CONFIGS.items() for name in table(config)]
    assert len({setting_sources.env_name(stage, name) for stage, name in known}) == len(known)
    assert all(table(CONFIGS[stage])[name].option.help for stage, name in known)
    assert all(flag_names(stage, name, own=()) for stage, name in known)


def test_no_option_is_declared_twice() -> None:
    """An option of two stages would reach one of them only, and nobody would say so."""
    for name, node in commands(app):
        flags = [flag for parameter in node.params for flag in (*parameter.opts, *parameter.secondary_opts)]
        assert len(set(flags)) == len(flags), (name, sorted({flag for flag in flags if flags.count(flag) > 1}))


def test_run_takes_every_setting_by_its_stage_and_short_where_one_stage_has_it() -> None:
    flags = {flag for name, node in commands(app) if name == "run" for each in node.params for flag in each.opts}
    assert {
        f"--{stage}-{name.replace('_', '-')}" for stage, config in CONFIGS.items() for name in table(config)
    } <= flags
    assert {"--crf", "--face", "--lr", "--view"} <= flags and not {"--steps", "--batch"} & flags


@pytest.mark.parametrize(("given", "taken"), [(None, "passive"), ("active", "active")])
def test_threads_sleep_while_they_wait_unless_told_otherwise(given: str | None, taken: str) -> None:
    """torch's OpenMP reads the environment when it is loaded, so it must not have been."""
    around = environment() if given is None else environment(OMP_WAIT_POLICY=given)
    if given is None:
        around.pop("OMP_WAIT_POLICY", None)
    script = """
import os, sys
from sg3cli import cli
cli.run = lambda argv: print(os.environ["OMP_WAIT_POLICY"], "torch" in sys.modules) or 0
cli.main()
"""
    ran = subprocess.run([sys.executable, "-c", script], env=around, capture_output=True, text=True)
    assert ran.returncode == 0 and ran.stdout.split() == [taken, "False"]


def test_precedence_is_flag_environment_folder_user_default(here: Path) -> None:
    def steps(flags: setting_sources.Values, environ: dict[str, str]) -> int | None:
        return resolve(flags, ambient(here, environ), NO_VALUES, ("invert",)).invert.steps

    user = {"SG3_CONFIG": str(here / "user.toml")}
    assert steps({}, user) is InvertConfig().steps is None
    (here / "user.toml").write_text("[invert]\nsteps = 4\nbatch = 2\n")
    assert steps({}, user) == 4
    (here / "sg3.toml").write_text("[invert]\nsteps = 5\n")
    assert steps({}, user) == 5
    assert steps({}, {**user, "SG3_INVERT_STEPS": "6"}) == 6
    assert steps({"invert": {"steps": 7}}, {**user, "SG3_INVERT_STEPS": "6"}) == 7
    assert resolve({}, ambient(here, user), NO_VALUES, ()).invert.batch == 2


def test_a_stage_on_the_way_keeps_what_it_was_asked_for() -> None:
    recorded = {"invert": {"steps": 5, "model": "x", "gone": 1}, "finetune": {"steps": 10, "smooth": "none"}}
    around: setting_sources.Values = {"invert": {"steps": 9}}
    on_the_way = resolve({}, around, recorded, ("render",))
    assert (on_the_way.invert.steps, on_the_way.invert.model) == (5, "x")
    assert on_the_way.finetune == FinetuneConfig(steps=10)
    assert on_the_way.render.smooth == "none"  # as the pivots were
    assert resolve({"invert": {"steps": 2}}, around, recorded, ("render",)).invert.steps == 2
    assert resolve({}, around, recorded, ("invert",)).invert == InvertConfig(steps=9)
    assert resolve({"render": {"smooth": "gauss:0.1"}}, around, recorded, ("render",)).render.smooth == "gauss:0.1"


WRONG = {
    "invert": [("steps", "x"), ("steps", 2.5), ("steps", 0)],
    "finetune": [("lr", "nan"), ("l2", "-1")],
    "align": [("crop", "tight")],
    "render": [
        ("smooth", "gauss:0"),
        ("smooth", "gauss:x"),
        ("keep_parts", "ears"),
        ("keep_parts", "eyes,ears"),
        ("view", ""),
    ],
    "encode": [("crf", "inf")],
}


@pytest.mark.parametrize(("stage", "name", "value"), [(stage, *pair) for stage in WRONG for pair in WRONG[stage]])
def test_a_wrong_value_is_a_usage_error_that_says_where_it_stands(stage: str, name: str, value: object) -> None:
    with pytest.raises(UsageError, match="here") as caught:
        check(stage, name, value, "here")
    assert caught.value.hint


def test_values_are_read_in_their_type() -> None:
    assert check("invert", "steps", "4", "") == 4 and check("finetune", "lr", "1e-3", "") == 1e-3
    assert check("finetune", "l2", 2, "") == 2.0 and check("encode", "format", "mp4", "") == "mp4"
    assert env_name("align", "max_gap") == "SG3_ALIGN_MAX_GAP"


@pytest.mark.parametrize(
    "text", ["[tune]\n", "[invert]\nstep = 3\n", "steps = 3\n", "[invert\n", "[invert]\nsteps = 'a'\n"]
)
def test_a_wrong_settings_file_is_named(here: Path, text: str) -> None:
    (here / "sg3.toml").write_text(text)
    with pytest.raises(UsageError, match=r"sg3\.toml"):
        ambient(here, {"SG3_CONFIG": "none"})


# ---- which project


def inspected(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = cli.run(["inspect", *arguments])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


@pytest.fixture
def no_pipe(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sg3cli.cli.find_project.stdin_is_pipe", lambda: False)


@pytest.mark.usefixtures("no_pipe")
def test_argument_then_variable_then_the_only_project(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert inspected(capsys)[0] == 2
    make_project(here / "a.sg3")
    assert "a.sg3" in inspected(capsys)[1]
    make_project(here / "b.sg3")
    code, _, err = inspected(capsys)
    assert code == 2 and "a.sg3, b.sg3" in err
    monkeypatch.setenv("SG3_PROJECT", "b.sg3")
    assert inspected(capsys)[1].startswith("project   b.sg3")
    assert inspected(capsys, "a.sg3")[1].startswith("project   a.sg3")
    assert inspected(capsys, "a.mp4")[1].startswith("project   a.sg3")  # the clip stands for its project


def test_a_pipe_names_the_project_and_nothing_else_will_do(here: Path) -> None:
    make_project(here / "a.sg3")
    make_project(here / "b.sg3")
    ran = sg3("inspect", cwd=here, stdin="b.sg3\n", SG3_PROJECT="a.sg3")
    assert ran.code == 0 and ran.out.startswith("project   b.sg3")
    (here / "b.sg3").rename(here / "b")  # now there is only one project in the folder, which must not be taken
    for piped in ("", "\n", "nonsense\n", "a.mp4\n", "a.sg3\nb.sg3\n"):
        ran = sg3("inspect", cwd=here, stdin=piped)
        assert (ran.code, ran.out) == (2, ""), piped
        assert ran.last_two[0].startswith("error: ") and ran.last_two[1].startswith("hint: ")


# ---- endings


def test_a_usage_error_is_two_lines_and_code_2(here: Path) -> None:
    for arguments in (["nonsense"], ["edit", "--strength"], ["invert", "--steps", "many"], ["run", "a.mp4", "-o"]):
        ran = sg3(*arguments, cwd=here)
        assert (ran.code, ran.out) == (2, "")
        lines = ran.err.splitlines()
        assert len(lines) == 2 and lines[0].startswith("error: ") and lines[1].startswith("hint: sg3 ")


def test_json_is_one_object_on_success_and_on_failure(here: Path) -> None:
    make_project(here / "a.sg3")
    good = sg3("inspect", "--json", cwd=here).json
    assert (good["schema"], good["command"], good["ok"], good["project"]) == (1, "inspect", True, "a.sg3")
    for arguments, command, code in (
        (["inspect", "missing.sg3", "--json"], "inspect", 3),
        (["models", "path", "nonsense", "--json"], "models path", 4),
        (["invert", "--json", "--steps", "x"], "invert", 2),
    ):
        ran = sg3(*arguments, cwd=here)
        bad = ran.json
        assert ran.code == code and len(ran.out.splitlines()) == 1
        assert (bad["schema"], bad["command"], bad["ok"], bad["error"]["code"]) == (1, command, False, code)
        assert bad["error"]["what"] and bad["error"]["hint"]


def test_a_bug_is_code_1_and_its_traceback_is_shown_on_demand(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError("oh")

    monkeypatch.setattr("sg3cli.cli.find_project.find_target", broken)
    assert cli.run(["inspect"]) == 1
    err = capsys.readouterr().err
    assert "error: ZeroDivisionError: oh" in err and "Traceback" not in err
    assert cli.run(["inspect", "--debug"]) == 1
    assert "Traceback" in capsys.readouterr().err


def test_a_reader_that_leaves_ends_the_command_quietly(here: Path) -> None:
    command = f"{sys.executable} -m sg3cli models list; echo $? >&2"
    ran = subprocess.run(
        ["bash", "-c", f"({command}) | true"], cwd=here, env=environment(), capture_output=True, text=True
    )
    assert ran.stderr.strip() in ("0", "141")


def test_version_and_bare_command(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["--version"]) == 0
    assert capsys.readouterr().out == f"sg3 {__version__}\n"
    assert cli.run([]) == 0
    assert "Usage: sg3" in capsys.readouterr().out


def test_models_list_names_licences(here: Path) -> None:
    rows = {row["name"]: row for row in sg3("models", "list", "--json", cwd=here).json["models"]}
    assert rows["face-mesh"]["licence"] == "Apache-2.0" and rows["people-128"]["how"] == "embedded"


def test_directions_list_of_a_bundle(here: Path, tiny_bundle: Path) -> None:
    ran = sg3("directions", "list", "--model", tiny_bundle, cwd=here)
    assert ran.code == 0 and ran.out.split() == ["age", "smile"]


# ---- start-up


@pytest.mark.parametrize("arguments", ["--help", "models list", "run --help", "--version"])
def test_torch_and_av_are_not_imported_to_answer(here: Path, arguments: str) -> None:
    ran = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "sg3cli", *arguments.split()],
        cwd=here,
        env=environment(),
        capture_output=True,
        text=True,
    )
    imported = {line.rpartition("|")[2].strip().partition(".")[0] for line in ran.stderr.splitlines()}
    assert ran.returncode == 0 and "typer" in imported
    assert not imported & {"torch", "av", "cv2", "scipy", "torchvision"}


def test_help_loads_little(here: Path) -> None:
    """What `--help` costs is what it imports. Counted, not timed: a busy machine must not fail it."""
    script = """
        import runpy, sys
        sys.argv = ["sg3", "--help"]
        try:
            runpy.run_module("sg3cli", run_name="__main__")
        finally:
            print(len(sys.modules), file=sys.stderr)
    """
    command = [sys.executable, "-c", textwrap.dedent(script)]
    ran = subprocess.run(command, cwd=here, env=environment(), capture_output=True, text=True)
    assert "Usage: sg3" in ran.stdout
    assert int(ran.stderr.split()[-1]) < 400  # torch alone brings over a thousand


def test_doctor_knows_this_machine(here: Path) -> None:
    facts = sg3("doctor", "--json", cwd=here).json
    assert facts["sg3"]["version"] == __version__ and facts["packages"]["torch"] != "missing"
    assert json.dumps(facts["device"])
