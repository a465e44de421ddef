"""Makes torchvision importable next to a torch build that its compiled operators do not match.

torchvision's PyPI wheel is built for CUDA; beside a CPU-only torch its library does not load, and importing
it stops with `operator torchvision::nms does not exist`: the package registers shape functions for operators
that were never declared. Declaring the schemas is enough for `torchvision.models`, which calls neither.
"""

from __future__ import annotations

SCHEMAS = {
    "nms": "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms": "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
}
_declared: list[object] = []  # a torch.library.Library unregisters its operators when it is collected


def import_torchvision() -> None:
    """Import torchvision, declaring the operators it misses if its own library does not load."""
    import sys

    import torch

    if "torchvision" in sys.modules:
        return
    try:
        import torchvision
    except RuntimeError as error:
        if "torchvision::" not in str(error):
            raise
        _forget_half_import()
        library = torch.library.Library("torchvision", "FRAGMENT")  # type: ignore[no-untyped-call]
        for name, schema in SCHEMAS.items():
            if not hasattr(torch.ops.torchvision, name):
                library.define(name + schema)  # type: ignore[no-untyped-call]
        _declared.append(library)
        import torchvision  # noqa: F401


def _forget_half_import() -> None:
    """Drop the sub-modules of the failed attempt, so that the second import runs them again."""
    import sys

    for name in [n for n in sys.modules if n == "torchvision" or n.startswith("torchvision.")]:
        del sys.modules[name]
