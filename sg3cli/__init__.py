"""sg3: edit the face in a video with StyleGAN3, in the original frames, with the original sound.

    import sg3cli

    sg3cli.edit_video("talk.mp4", "older.mp4", edits=["age=2", "smile=1@0s..2s"])   # -> Result
    project = sg3cli.Project.open("talk.sg3")
    project.edits, project.track(), project.codes()
    model = sg3cli.load_model("people-128")
    model.generator(), model.encoder(), model.directions["age"]

The names below are imported when they are first used: `import sg3cli` loads neither torch nor PyAV.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sg3cli.errors import BatchError, DeviceError, InputError, ModelError, Sg3Error, UsageError
    from sg3cli.latents.edits import Edit
    from sg3cli.pipeline.edit_video import Result, edit_video
    from sg3cli.project import Project
    from sg3cli.settings import Settings
    from sg3cli.weights.bundle import load_model

__version__ = "0.2.0"

HOMES = {
    "settings": ("Settings",),
    "errors": ("BatchError", "DeviceError", "InputError", "ModelError", "Sg3Error", "UsageError"),
    "latents.edits": ("Edit",),
    "pipeline.edit_video": ("Result", "edit_video"),
    "project": ("Project",),
    "weights.bundle": ("load_model",),
}

__all__ = [
    "BatchError",
    "DeviceError",
    "Edit",
    "InputError",
    "ModelError",
    "Project",
    "Result",
    "Settings",
    "Sg3Error",
    "UsageError",
    "__version__",
    "edit_video",
    "load_model",
]


def __getattr__(name: str) -> Any:
    for module, names in HOMES.items():
        if name in names:
            return getattr(import_module(f"{__name__}.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
