"""What can be said of a face, and what must be the case for it: the words that an embedded text model learns.

A state is a range of one label: inside of it the phrases hold, beyond its margin they do not, and in between nothing is
said. Opposite states of a label, and "not" before some, are what captions are negated with.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

INFINITY = float("inf")


@dataclass(frozen=True)
class State:
    """Holds for values of `label` in `low..high`, not for those further than `margin` outside; phrases by their place
    in a sentence: before the noun, instead of it, after `with`, as a participle after the noun."""

    label: str
    low: float
    high: float
    margin: float
    before: tuple[str, ...] = ()
    nouns: tuple[str, ...] = ()
    with_: tuple[str, ...] = ()
    after: tuple[str, ...] = ()

    def holds(self, values: np.ndarray) -> np.ndarray:
        """`[N]` int8 of values `[N]`: 1 yes, -1 no, 0 not known."""
        outside = np.maximum(self.low - values, values - self.high)
        found = np.zeros(len(values), np.int8)
        found[outside <= 0] = 1
        found[outside > self.margin] = -1
        return found


def above(label: str, low: float, margin: float, **phrases: tuple[str, ...]) -> State:
    """A state of values from `low` on."""
    return State(label, low, INFINITY, margin, **phrases)


def below(label: str, high: float, margin: float, **phrases: tuple[str, ...]) -> State:
    """A state of values up to `high`."""
    return State(label, -INFINITY, high, margin, **phrases)


WOMEN = ("woman", "lady", "female", "female person", "female face", "woman's face", "mother")
MEN = ("man", "gentleman", "male", "male person", "male face", "man's face", "guy", "fellow", "father")
NOBODY = (
    "face",
    "person",
    "human",
    "human face",
    "person's face",
    "human being",
    "somebody",
    "someone",
    "adult",
    "head",
)

STATES: tuple[State, ...] = (
    below("age", 32, 8, before=("young", "youthful", "younger"), after=("who is young", "looking young", "not old")),
    State("age", 38, 56, 7, before=("middle-aged", "mature"), after=("of middle age", "who is middle-aged")),
    above(
        "age",
        60,
        9,
        before=("old", "elderly", "aged", "older", "senior", "ageing"),
        after=("who is old", "looking old", "of old age", "who is elderly", "not young", "who has aged"),
        with_=("an old face",),
    ),
    below("male", 0.4, 0.2, before=("female", "feminine"), nouns=WOMEN, after=("who is a woman",)),
    above("male", 0.6, 0.2, before=("male", "masculine"), nouns=MEN, after=("who is a man",)),
    above(
        "smile",
        0.35,
        0.18,
        before=("smiling", "happy", "cheerful", "friendly", "joyful"),
        after=("smiling", "who smiles", "who is happy", "looking happy", "who is smiling"),
        with_=("a smile", "a happy face", "a friendly smile", "a happy expression"),
    ),
    above(
        "smile",
        0.65,
        0.2,
        before=("laughing", "grinning", "beaming"),
        after=("laughing", "grinning", "smiling broadly", "who laughs", "smiling widely"),
        with_=("a broad smile", "a big smile", "a grin", "a wide smile"),
    ),
    below(
        "smile",
        0.1,
        0.2,
        before=("serious", "unsmiling", "stern", "straight-faced"),
        after=(
            "not smiling",
            "who does not smile",
            "who is not smiling",
            "looking serious",
            "not laughing",
            "without a smile",
            "who is serious",
            "not happy",
        ),
        with_=("a serious face", "no smile", "a neutral expression", "a serious expression", "a straight face"),
    ),
    above(
        "mouth_open",
        0.16,
        0.06,
        after=("whose mouth is open", "opening the mouth", "speaking", "talking"),
        with_=("an open mouth", "a mouth that is open", "parted lips", "open lips", "mouth open", "mouth wide open"),
    ),
    below(
        "mouth_open",
        0.06,
        0.06,
        after=("whose mouth is closed", "not speaking", "not talking", "without an open mouth"),
        with_=("a closed mouth", "closed lips", "mouth closed", "lips together", "mouth shut", "a shut mouth"),
    ),
    above(
        "eyes_closed",
        0.6,
        0.3,
        before=("sleeping",),
        after=("whose eyes are closed", "sleeping", "asleep", "closing the eyes", "not looking"),
        with_=("closed eyes", "eyes closed", "shut eyes", "eyes shut", "closed lids", "lowered lids"),
    ),
    below(
        "eyes_closed",
        0.15,
        0.3,
        before=("awake",),
        after=("whose eyes are open", "not asleep", "awake", "without closed eyes"),
        with_=("open eyes", "eyes open", "wide open eyes", "eyes wide open"),
    ),
    above(
        "brow_raise",
        0.45,
        0.3,
        before=("surprised", "astonished"),
        after=("raising the eyebrows", "looking surprised"),
        with_=("raised eyebrows", "raised brows", "lifted eyebrows", "eyebrows raised", "high eyebrows"),
    ),
    below(
        "brow_raise",
        0.05,
        0.3,
        after=("not surprised", "without raised eyebrows"),
        with_=("relaxed brows", "relaxed eyebrows", "lowered eyebrows", "low eyebrows"),
    ),
    above(
        "yaw",
        12,
        8,
        after=(
            "turned to the right",
            "facing right",
            "turned right",
            "turning right",
            "facing to the right",
            "looking to the right",
            "looking right",
        ),
    ),
    below(
        "yaw",
        -12,
        8,
        after=(
            "turned to the left",
            "facing left",
            "turned left",
            "turning left",
            "facing to the left",
            "looking to the left",
            "looking left",
        ),
    ),
    State(
        "yaw",
        -6,
        6,
        9,
        before=("frontal",),
        after=(
            "facing the camera",
            "seen from the front",
            "not turned",
            "looking straight ahead",
            "facing forward",
            "looking into the camera",
        ),
    ),
    above(
        "pitch",
        7,
        5,
        after=("looking down", "facing down", "looking downwards", "bowing", "nodding"),
        with_=("a lowered head", "head down", "a bowed head", "chin down"),
    ),
    below(
        "pitch",
        -7,
        5,
        after=("looking up", "facing up", "looking upwards"),
        with_=("a raised head", "head up", "chin up", "a raised chin"),
    ),
    above(
        "glasses",
        0.5,
        0.3,
        before=("bespectacled",),
        after=(
            "wearing glasses",
            "wearing spectacles",
            "in glasses",
            "who wears glasses",
            "wearing eyeglasses",
            "who has glasses on",
        ),
        with_=("glasses", "spectacles", "eyeglasses", "a pair of glasses"),
    ),
    below(
        "glasses",
        0.2,
        0.3,
        after=(
            "without glasses",
            "not wearing glasses",
            "without spectacles",
            "who does not wear glasses",
            "without eyeglasses",
            "who wears no glasses",
        ),
        with_=("no glasses", "no spectacles", "no eyeglasses"),
    ),
    above(
        "beard",
        0.4,
        0.25,
        before=("bearded", "unshaven"),
        after=("wearing a beard", "who has a beard", "not shaven"),
        with_=("a beard", "a full beard", "facial hair", "a short beard", "a moustache and a beard", "whiskers"),
    ),
    below(
        "beard",
        0.08,
        0.25,
        before=("clean-shaven", "beardless", "shaven"),
        after=("without a beard", "who has no beard", "without facial hair", "not bearded"),
        with_=("no beard", "no facial hair"),
    ),
    above(
        "makeup",
        0.4,
        0.25,
        before=("made-up",),
        after=("wearing makeup", "wearing make-up", "wearing lipstick"),
        with_=("makeup", "make-up", "lipstick", "red lips", "eye shadow", "made-up eyes"),
    ),
    below(
        "makeup",
        0.05,
        0.25,
        before=("natural",),
        after=("without makeup", "without make-up", "not made-up", "not wearing makeup", "without lipstick"),
        with_=("no makeup", "no make-up", "no lipstick"),
    ),
    above(
        "blond",
        0.5,
        0.4,
        before=("blond", "blonde", "fair-haired"),
        with_=("blond hair", "blonde hair", "light hair", "fair hair", "yellow hair"),
    ),
    above("black_hair", 0.5, 0.4, before=("black-haired", "dark-haired"), with_=("black hair", "dark hair")),
    above("brown_hair", 0.5, 0.4, before=("brown-haired",), with_=("brown hair", "brunette hair", "chestnut hair")),
    above(
        "grey_hair",
        0.5,
        0.4,
        before=("grey-haired", "gray-haired", "white-haired"),
        with_=("grey hair", "gray hair", "white hair", "silver hair"),
    ),
    above(
        "bald",
        0.5,
        0.4,
        before=("bald", "hairless"),
        with_=("no hair", "a bald head", "a shaved head"),
        after=("without hair",),
    ),
    below("bald", 0.5, 0.4, with_=("a full head of hair",), after=("not bald",)),
    above("long_hair", 0.5, 0.4, before=("long-haired",), with_=("long hair",)),
    below("long_hair", 0.5, 0.4, before=("short-haired",), with_=("short hair",), after=("without long hair",)),
    above(
        "skin_light",
        0.6,
        0.2,
        before=("pale", "light-skinned", "fair-skinned"),
        with_=("light skin", "pale skin", "fair skin", "white skin"),
    ),
    below("skin_light", 0.4, 0.2, before=("dark-skinned",), with_=("dark skin", "brown skin", "black skin")),
    above(
        "weight",
        0.35,
        0.35,
        before=("chubby", "plump", "heavy", "fat", "overweight", "round-faced"),
        with_=("a round face", "full cheeks", "a full face", "chubby cheeks", "a fat face"),
    ),
    below(
        "weight",
        -0.3,
        0.35,
        before=("thin", "slim", "skinny", "lean", "gaunt", "not fat"),
        with_=("a thin face", "hollow cheeks", "a narrow face", "a slim face"),
    ),
    above("wrinkles", 0.6, 0.3, before=("wrinkled",), with_=("wrinkles", "wrinkled skin", "lines in the face")),
    below("wrinkles", 0.15, 0.3, with_=("smooth skin", "no wrinkles"), after=("without wrinkles",)),
)

# what an edit of each label is read by: from the second text to the first
AXES: Mapping[str, tuple[str, str]] = {
    "age": ("an old face", "a young face"),
    "male": ("a man", "a woman"),
    "smile": ("a smiling face", "a serious face"),
    "mouth_open": ("a face with an open mouth", "a face with a closed mouth"),
    "eyes_closed": ("a face with closed eyes", "a face with open eyes"),
    "brow_raise": ("a face with raised eyebrows", "a face with relaxed eyebrows"),
    "yaw": ("a face turned to the right", "a face turned to the left"),
    "pitch": ("a face looking down", "a face looking up"),
    "glasses": ("a face with glasses", "a face without glasses"),
    "beard": ("a face with a beard", "a face without a beard"),
    "makeup": ("a face with makeup", "a face without makeup"),
    "blond": ("a face with blond hair", "a face with black hair"),
    "grey_hair": ("a face with grey hair", "a face with brown hair"),
    "bald": ("a bald face", "a face with a full head of hair"),
    "long_hair": ("a face with long hair", "a face with short hair"),
    "skin_light": ("a face with light skin", "a face with dark skin"),
    "weight": ("a chubby face", "a thin face"),
}
# what is nearly the same, so that one is not held while the other is asked for
SAME: Mapping[str, tuple[str, ...]] = {
    "black_hair": ("blond", "grey_hair"), "brown_hair": ("blond", "grey_hair"), "blond": ("grey_hair",),
    "wrinkles": ("age",), "grey_hair": ("blond",), "bald": ("long_hair",), "long_hair": ("bald",),
}  # fmt: skip

YOUNGEST, OLDEST = 18, 92
AGE_HOLDS, AGE_MARGIN = 5.0, 7.0  # years
DECADES = ("twenties", "thirties", "forties", "fifties", "sixties", "seventies", "eighties")


def age_states() -> tuple[State, ...]:
    """Ages in numbers: each year, and each decade."""
    years = []
    for age in range(YOUNGEST, OLDEST + 1):
        said = (f"{age}-year-old", f"{age} year old")
        later = (f"who is {age}", f"aged {age}", f"of {age} years", f"{age} years old", f"at the age of {age}")
        years.append(State("age", age - AGE_HOLDS, age + AGE_HOLDS, AGE_MARGIN, before=said, after=later))
    for k, decade in enumerate(DECADES):
        low = 20.0 + 10 * k
        when = tuple(f"in {whose} {decade}" for whose in ("his", "her", "their", "the"))
        years.append(State("age", low - 1, low + 10, AGE_MARGIN, after=when))
    return tuple(years)


def all_states() -> tuple[State, ...]:
    """Those of `STATES`, then ages in numbers."""
    return STATES + age_states()
