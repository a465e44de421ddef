"""What `import sg3cli` offers: the command line's results from Python, light to import, cancellable."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import sg3cli
from sg3cli import cli

FEW = {"finetune": {"steps": 2, "batch": 2, "loss": "structural"}, "encode": {"preset": "ultrafast"}}


def settings(bundle: Path) -> sg3cli.Settings:
    return sg3cli.Settings().having(invert={"model": str(bundle), "likeness": 0}, **FEW)


def test_importing_it_loads_neither_torch_nor_av() -> None:
    code = "import sys, sg3cli; assert not {'torch', 'av', 'cv2', 'scipy'} & set(sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    assert set(sg3cli.__all__) - {"__version__"} == {name for names in sg3cli.HOMES.values() for name in names}
    assert all(getattr(sg3cli, name) is not None for name in sg3cli.__all__)
    with pytest.raises(AttributeError, match="nothing"):
        sg3cli.nothing  # noqa: B018


def test_a_call_gives_the_command_s_bytes(talk: Path, tiny_bundle: Path, tmp_path: Path) -> None:
    told: list[tuple[str, int, int | None]] = []
    with contextlib.chdir(tmp_path):
        shutil.copy(talk, "talk.mp4")
        result = sg3cli.edit_video(
            "talk.mp4",
            "python.mp4",
            ["age=2", "smile=1@0s..0.2s"],
            settings=settings(tiny_bundle),
            project="python.sg3",
            progress=lambda *step: told.append(step),
        )
        line = ["run", "talk.mp4", "-o", "shell.mp4", "--project", "shell.sg3", "--edit=age=2", "-q"]
        line += ["--edit=smile=1@0s..0.2s", f"--model={tiny_bundle}", "--finetune-steps=2", "--finetune-batch=2"]
        assert cli.run([*line, "--loss=structural", "--preset=ultrafast"]) == 0
        assert result.output.read_bytes() == Path("shell.mp4").read_bytes()
        assert {"align", "invert", "finetune", "render"} <= {label for label, _, _ in told}
        assert ("render", 12, 12) in told and result.stages["render"]["status"] == "done"
        assert [edit.title for edit in result.edits] == ["age", "smile"]
        again = sg3cli.edit_video("talk.mp4", "python.mp4", settings=settings(tiny_bundle), project="python.sg3")
        assert again.stages["render"]["status"] == "up to date"
        project = sg3cli.Project.open(Path("python.sg3"))
        assert project.edits == list(result.edits) and len(project.track().times) == 12
        assert project.codes().shape[0] == 12 and project.faces == [0]


def test_what_progress_raises_ends_the_work_and_the_next_call_goes_on(
    talk: Path, tiny_bundle: Path, tmp_path: Path
) -> None:
    class Cancelled(Exception):
        pass

    def until_rendering(label: str, done: int, total: int | None) -> None:
        if label == "render":
            raise Cancelled

    with contextlib.chdir(tmp_path):
        shutil.copy(talk, "talk.mp4")
        with pytest.raises(Cancelled):
            sg3cli.edit_video(
                "talk.mp4", "out.mp4", ["age=2"], settings=settings(tiny_bundle), progress=until_rendering
            )
        assert not Path("out.mp4").exists()
        result = sg3cli.edit_video("talk.mp4", "out.mp4", settings=settings(tiny_bundle))
    assert [result.stages[name]["status"] for name in ("align", "invert", "finetune", "render")] == [
        *(3 * ["up to date"]),
        "done",
    ]


def test_wrong_arguments_are_named_before_any_work(tmp_path: Path) -> None:
    with pytest.raises(sg3cli.InputError, match="there is no file"):
        sg3cli.edit_video(tmp_path / "gone.mp4", tmp_path / "out.mp4")
    with pytest.raises(sg3cli.UsageError, match="detail is 2"):
        sg3cli.Settings().having(render={"detail": 2})
    with pytest.raises(sg3cli.UsageError, match="view is 'side'") as caught:
        sg3cli.Settings().having(render={"view": "side"})
    assert caught.value.hint == "choose one of: frame, face, compare"
    with pytest.raises(sg3cli.UsageError, match="is not a project"):
        sg3cli.Project.open(tmp_path)


def test_a_model_hands_out_its_networks_and_directions(tiny_bundle: Path) -> None:
    model = sg3cli.load_model(tiny_bundle)
    assert sorted(model.directions) == ["age", "smile"] and len(model.directions) == 2
    vector = model.directions["age"].vector
    assert vector.dtype == np.float32 and vector.shape[1] == model.generator().config.w_dim
    with pytest.raises(sg3cli.ModelError) as caught:
        model.directions["agee"]
    assert caught.value.hint == "it has: age, smile"
    assert model.encoder().config.input_size > 0
