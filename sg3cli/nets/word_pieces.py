"""From a text to the pieces that a small text tower knows: words, their endings taken off, and ages as numbers.

A number is not one of a hundred words: it is a place between two decades, `65` halfway between those of 60 and 70, so
that every age that is met teaches its neighbours too. Words may be digits or not: `sixty-five` is 65.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

ENDINGS = ("'s", "s", "es", "ed", "d", "ing", "er", "r", "ish", "y", "ly")
FEWEST = 3  # letters that are left of a word without its ending
UNITS = (
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
    "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen",
)  # fmt: skip
TENS = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
WORDS = re.compile(r"\d+(?:st|nd|rd|th)?|[^\W\d_]+(?:['’][^\W\d_]+)?")


@dataclass(frozen=True)
class Piece:
    """Between two entries of the vocabulary: `share` of the way from `low` to `high`; words have `low == high`."""

    low: int
    high: int
    share: float = 0.0


def words_of(text: str) -> list[str]:
    """Words and numbers of a text in lower case; numbers in words as digits."""
    return _numbers([word.replace("’", "'") for word in WORDS.findall(text.lower().replace("make-up", "makeup"))])


def _numbers(words: Sequence[str]) -> list[str]:
    """`sixty five` -> `65`; what is no number stays."""
    out: list[str] = []
    place = 0
    while place < len(words):
        word = words[place]
        follows = words[place + 1] if place + 1 < len(words) else ""
        if word in TENS:
            unit = UNITS.index(follows) if follows in UNITS[1:10] else 0
            out.append(str(20 + 10 * TENS.index(word) + unit))
            place += 1 + (unit > 0)
            continue
        out.append(str(UNITS.index(word)) if word in UNITS and word != "one" else word)
        place += 1
    return out


class WordPieces:
    """The vocabulary of a tower: `words`, and after them an entry for each of `decades`."""

    def __init__(self, words: Sequence[str], decades: Sequence[int], numbers: tuple[int, int]) -> None:
        """numbers: the least and the largest that is known."""
        self.place: Mapping[str, int] = {word: k for k, word in enumerate(words)}
        self.decades, self.numbers = tuple(decades), numbers
        self.first_decade = len(words)

    def __len__(self) -> int:
        return self.first_decade + len(self.decades)

    def piece(self, word: str) -> Piece | None:
        """None for a word that is not known, nor without its ending."""
        if word.rstrip("stndrh").isdigit():
            return self._number(int(word.rstrip("stndrh")))
        known = self.base(word)
        return None if known is None else Piece(self.place[known], self.place[known])

    def base(self, word: str) -> str | None:
        """The word of the vocabulary that this one is, or is made of."""
        if word in self.place:
            return word
        for ending in ENDINGS:
            stem = word.removesuffix(ending)
            if stem != word and len(stem) >= FEWEST:
                for whole in (stem, stem + "e", stem[:-1] if stem[-1] == stem[-2] else stem):
                    if whole in self.place:
                        return whole
        return None

    def _number(self, value: int) -> Piece | None:
        if not self.numbers[0] <= value <= self.numbers[1]:
            return None
        for k, (low, high) in enumerate(zip(self.decades, self.decades[1:], strict=False)):
            if value <= high:
                at = self.first_decade + k
                return Piece(at, at + 1, max(0.0, (value - low) / (high - low)))
        return None

    def pieces(self, text: str) -> list[Piece]:
        """Of the words that are known."""
        found = (self.piece(word) for word in words_of(text))
        return [piece for piece in found if piece is not None]

    def unknown(self, text: str) -> list[str]:
        """The words that are not, as they were written, each once."""
        return list(dict.fromkeys(word for word in words_of(text) if self.piece(word) is None))
