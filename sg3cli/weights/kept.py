"""What an edit does not mean to change about a face, as files of directions and mappers say it.

`hue`: the colour of skin and hair. `shade`: that shadows are no deeper than the face's own.
`outside`: what is around the face, whose light stays the source's where an outline moves.
`eyes`, `nose`, `brows`, `mouth`: a part of the face, which stays the source's.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from sg3cli.settings import FACE_PARTS

# aspect -> what a file says that keeps it
KEPT = {"hue": "kept", "shade": "limited", "outside": "kept"} | dict.fromkeys(FACE_PARTS, "kept")
CHANGED = {"hue": "changed", "shade": "free", "outside": "changed"} | dict.fromkeys(FACE_PARTS, "changed")
KEEPING = {  # aspect -> attributes that leave it alone
    "hue": frozenset({"age", "male", "smile", "mouth_open", "eyes_closed", "brow_raise", "yaw", "pitch"}),
    "shade": frozenset({"age", "smile"}),
    "outside": frozenset({"age", "male", "smile", "mouth_open", "eyes_closed", "brow_raise", "makeup"}),
    "eyes": frozenset({"age", "smile"}),
    "nose": frozenset({"age"}),
    "mouth": frozenset({"age"}),
}


def kept_by(meta: Mapping[str, Any]) -> frozenset[str]:
    """The aspects that the header of a file says are left alone."""
    return frozenset(aspect for aspect, word in KEPT.items() if meta.get(aspect) == word)


def kept_by_labels(labels: Collection[str]) -> frozenset[str]:
    """The aspects that none of these attributes concerns; none where there are no attributes."""
    return frozenset(aspect for aspect, which in KEEPING.items() if labels and which.issuperset(labels))


def kept_by_target(label: str, keeps_hue: Collection[str]) -> frozenset[str]:
    """The same of one attribute that a flow brings to a value; `keeps_hue`: what the flow's file says of hue."""
    kept = kept_by_labels([label])
    return kept if label in keeps_hue else kept - {"hue"}


def is_about(label: str, keeps: Collection[str]) -> bool:
    """Whether an edit that `keeps` these aspects may be one of the attribute: it leaves alone all that the attribute
    does. Files that were written before one could say so know nothing of what is `outside`."""
    return (kept_by_labels([label]) - {"outside"}).issubset(keeps)


def said(kept: Collection[str]) -> dict[str, str]:
    """The header's entries that say it."""
    return {aspect: KEPT[aspect] if aspect in kept else CHANGED[aspect] for aspect in KEPT}
