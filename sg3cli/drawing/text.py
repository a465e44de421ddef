"""Text in images: OpenCV's built-in proportional font, fitted to the room there is."""

from __future__ import annotations

import functools
from typing import Any

import cv2
import numpy as np

WEIGHT = 500  # a little bolder than regular: thin strokes vanish in small letters
LEAST = 9  # pixels: smaller letters cannot be read
WHITE, DARK = (245, 245, 245), (22, 22, 24)
ASCENT, DESCENT = 0.78, 0.24  # of the size: what letters reach above and below their line
VEIL = 0.62  # opacity of the dark ground under a caption
DOTS = "..."

Colour = tuple[int, int, int]


@functools.cache
def _font() -> Any:
    return cv2.FontFace("sans")


def text_width(text: str, size: int) -> int:
    """Width in pixels of a line of letters of `size` pixels."""
    if not text:
        return 0
    x, _, width, _ = cv2.getTextSize((1, 1), text, (0, 0), _font(), size, WEIGHT)
    return int(x + width)


def fit(text: str, size: int, width: int) -> tuple[str, int]:
    """The text and its size such that it is at most `width` pixels wide: made smaller first, then cut, with dots."""
    size = max(size, LEAST)
    while size > LEAST and text_width(text, size) > width:
        size -= 1
    if text_width(text, size) <= width:
        return text, size
    kept = len(text)
    while kept and text_width(text[:kept].rstrip() + DOTS, size) > width:
        kept -= 1
    return (text[:kept].rstrip() + DOTS if kept else ""), size


def write(image: np.ndarray, text: str, x: int, baseline: int, size: int, colour: Colour = WHITE) -> None:
    """Draw a line of text into `image [H, W, 3]` uint8 RGB, its first letter at `x`, what is outside cut off."""
    if text:
        # A wrap range wider than any text keeps it on one line.
        cv2.putText(image, text, (x, baseline), colour, _font(), size, WEIGHT, 0, (0, 1 << 20))


def caption_size(height: int) -> int:
    """Size of letters that is small, yet legible, in an image `height` pixels high."""
    return int(np.clip(round(height / 22), LEAST + 2, 64))


def line_height(size: int) -> int:
    """Height of a line of text with a little air."""
    return round(1.5 * size)


def centred(image: np.ndarray, text: str, x: int, y: int, width: int, size: int, colour: Colour = WHITE) -> None:
    """Text in the middle of the box `width` x `line_height(size)` whose top left corner is (x, y), fitted to it."""
    words, fitted = fit(text, size, width)
    left = x + (width - text_width(words, fitted)) // 2
    write(image, words, left, y + _baseline(line_height(size), fitted), fitted, colour)


def with_caption(image: np.ndarray, text: str, size: int | None = None) -> np.ndarray:
    """A copy of `image [H, W, 3]` uint8 with the text on a dark ground in its top left corner; its size stays.

    Nothing is drawn where there is no room for a letter.
    """
    height, width = image.shape[:2]
    size = caption_size(min(height, width)) if size is None else size
    margin = size // 2
    words, size = fit(text, size, width - 4 * margin)
    line = line_height(size)
    result = image.copy()
    if not words or height < line + 2 * margin:
        return result
    box = result[margin : margin + line, margin : 3 * margin + text_width(words, size)]
    box[:] = np.rint(box * (1 - VEIL) + np.array(DARK) * VEIL)
    write(result, words, 2 * margin, margin + _baseline(line, size), size)
    return result


def _baseline(line: int, size: int) -> int:
    """Where letters of `size` stand in a line `line` pixels high."""
    return round((line + (ASCENT - DESCENT) * size) / 2)
