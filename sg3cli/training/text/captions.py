"""Captions of labelled pictures: some of what is the case, in changing words, and what they say of other pictures.

Every caption is a sentence about some states of a picture; whether it holds for another picture follows from the labels
(1 yes, -1 no, 0 not known). So a batch is a table of pictures and captions, and captions in which one state was
exchanged for one that does not hold teach what exactly a word means.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from sg3cli.latents.text_directions import templates
from sg3cli.training.text.phrases import NOBODY, State, all_states

MOST_SAID = 4  # states of a caption
BARE, FRAGMENT, TEMPLATE = 0.06, 0.12, 0.45  # share of captions that say nothing; without a noun; in a sentence
VOWELS = "aeiou8"


class Captioner:
    """Draws captions of pictures whose labels are known: `facts {label: [N]}`, NaN where unknown.

    `kinds [N]` are numbers of where pictures come from: each kind is drawn as often, where it has the state.
    """

    def __init__(self, facts: Mapping[str, np.ndarray], kinds: np.ndarray | None = None) -> None:
        count = len(next(iter(facts.values())))
        unknown = np.full(count, np.nan)
        self.states = [state for state in all_states() if state.label in facts]
        self.holds = np.stack([state.holds(np.nan_to_num(facts.get(state.label, unknown), nan=np.nan))
                               for state in self.states], 1)  # fmt: skip
        kinds = np.zeros(count, int) if kinds is None else kinds
        self.places = [
            [place for kind in np.unique(kinds) if len(place := np.flatnonzero((column == 1) & (kinds == kind)))]
            for column in self.holds.T
        ]
        self.frames = templates()
        self.labels = [state.label for state in self.states]
        self.of_label = {label: [k for k, own in enumerate(self.labels) if own == label] for label in set(self.labels)}

    def draw_rows(self, count: int, rng: np.random.Generator) -> np.ndarray:
        """`[count]` pictures: a label, then one of its states, then a picture that is in it, so that all occur."""
        names = sorted(self.of_label)
        rows = np.zeros(count, np.int64)
        for n in range(count):
            some = self.of_label[names[rng.integers(len(names))]]
            places = self.places[some[rng.integers(len(some))]]
            place = places[rng.integers(len(places))] if places else np.arange(len(self.holds))
            rows[n] = place[rng.integers(len(place))]
        return rows

    def said_of(self, row: int, rng: np.random.Generator) -> list[int]:
        """Numbers of states that hold for a picture, at most one for each label."""
        if rng.random() < BARE:
            return []
        true = np.flatnonzero(self.holds[row] == 1)
        labels = sorted({self.labels[k] for k in true})
        count = min(len(labels), 1 + rng.integers(MOST_SAID))
        chosen = rng.permutation(len(labels))[:count]
        said = []
        for name in (labels[k] for k in chosen):
            own = [k for k in true if self.labels[k] == name]
            said.append(int(own[rng.integers(len(own))]))
        return said

    def changed(self, said: Sequence[int], row: int, rng: np.random.Generator) -> list[int]:
        """The same with one state exchanged for another one of its label which does not hold for the picture."""
        wrong = [(place, k) for place, state in enumerate(said) for k in self.of_label[self.labels[state]]
                 if self.holds[row, k] == -1]  # fmt: skip
        if not wrong:
            return list(said)
        place, k = wrong[rng.integers(len(wrong))]
        return [*said[:place], k, *said[place + 1 :]]

    def fits(self, rows: np.ndarray, captions: Sequence[Sequence[int]]) -> np.ndarray:
        """`[B,C]` int8: whether each caption holds for each picture."""
        table = np.ones((len(rows), len(captions)), np.int8)
        for column, said in enumerate(captions):
            if said:
                known = self.holds[rows][:, list(said)]
                table[:, column] = np.where((known == -1).any(1), -1, known.min(1))
        return table

    def sentence(self, said: Sequence[int], rng: np.random.Generator) -> str:
        """The states in words."""
        text = phrase([self.states[k] for k in said], rng)
        if rng.random() < TEMPLATE:
            text = self.frames[rng.integers(len(self.frames))].format(text)
        return text


def phrase(states: Sequence[State], rng: np.random.Generator) -> str:
    """`an old man with glasses, smiling`: the states in any order, each in one of its wordings."""
    before: list[str] = []
    nouns: list[str] = []
    with_: list[str] = []
    after: list[str] = []
    for state in (states[k] for k in rng.permutation(len(states))):
        kinds = ((before, state.before), (nouns, state.nouns), (with_, state.with_), (after, state.after))
        places = [(kind, words) for kind, words in kinds if words]
        if not nouns and state.nouns and rng.random() < 0.7:
            places = [(nouns, state.nouns)]
        elif nouns:
            places = [place for place in places if place[0] is not nouns] or places
        kind, words = places[rng.integers(len(places))]
        kind.append(words[rng.integers(len(words))])
    if states and not nouns and rng.random() < FRAGMENT:
        return ", ".join([*before, *with_, *after])
    noun = nouns[0] if nouns else NOBODY[rng.integers(len(NOBODY))]
    head = " ".join([*before, noun])
    if noun not in ("somebody", "someone") and rng.random() < 0.8:
        article = "the" if rng.random() < 0.15 else ("an" if head[0] in VOWELS else "a")
        head = f"{article} {head}"
    return head + _tail(with_, after, rng)


def _tail(with_: Sequence[str], after: Sequence[str], rng: np.random.Generator) -> str:
    """What follows the noun: ` with glasses and a beard, smiling`."""
    parts = []
    if with_:
        word = "with" if rng.random() < 0.8 else ("having" if rng.random() < 0.5 else "who has")
        parts.append(f"{word} {(' and ' if rng.random() < 0.7 else ', ').join(with_)}")
    parts += list(after)
    order = rng.permutation(len(parts))
    text = ""
    for k in order:
        text += ("," if rng.random() < 0.4 else " and" if text and rng.random() < 0.4 else "") + " " + parts[k]
    return text
