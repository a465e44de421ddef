"""Words, their endings, ages in digits and in words, and what is not known."""

from __future__ import annotations

import pytest

from sg3cli.nets.word_pieces import Piece, WordPieces, words_of

WORDS = WordPieces(("beard", "face", "glasses", "old", "smile", "year"), range(10, 101, 10), (18, 92))


def test_numbers_are_read_in_digits_and_in_words() -> None:
    assert words_of("A sixty-five-year-old, aged 40; the 30th") == [
        "a",
        "65",
        "year",
        "old",
        "aged",
        "40",
        "the",
        "30th",
    ]
    assert words_of("twenty one nineteen one eighty") == ["21", "19", "one", "80"]


def test_an_age_lies_between_its_decades() -> None:
    assert WORDS.pieces("sixty-five") == WORDS.pieces("65") == [Piece(11, 12, 0.5)]
    assert WORDS.piece("70") in (Piece(11, 12, 1.0), Piece(12, 13, 0.0))
    assert WORDS.piece("91") == Piece(14, 15, pytest.approx(0.1))
    assert WORDS.piece("17") is None and WORDS.piece("93") is None and WORDS.piece("20th") is not None


@pytest.mark.parametrize(
    ("word", "base"),
    [("beards", "beard"), ("bearded", "beard"), ("smiling", "smile"), ("smiles", "smile"), ("older", "old"),
     ("glasses", "glasses"), ("olden", None), ("dragon", None), ("s", None)],
)  # fmt: skip
def test_endings_are_taken_off(word: str, base: str | None) -> None:
    assert WORDS.base(word) == base


def test_what_is_not_known_is_named_once_and_as_it_was_written() -> None:
    assert WORDS.unknown("An old dragon, aged 7, a dragon's beard") == ["an", "dragon", "aged", "7", "a", "dragon's"]
    assert WORDS.pieces("dragon 7") == []
