"""What captions are made from: labels of sets of renders and photographs under one set of names."""

from __future__ import annotations

import numpy as np

from sg3cli.training.people128.pair_data import PictureSet
from sg3cli.training.people128.reader_labels import reader_labels

LONG, NONE = ("long", "braid"), "none"  # names of hair styles
LUMA = (0.2126, 0.7152, 0.0722)
DARK_SKIN, LIGHT_SKIN = 125.0, 170.0  # luminance of a render's skin, 0..255: 0.4 and 0.6 of `skin_light`


def facts_of(pictures: PictureSet, styles: tuple[str, ...] = ()) -> dict[str, np.ndarray]:
    """{label: [N] float64} with NaN where it is not known; `styles` names the numbers of `hair_style`."""
    facts = {name: values.astype(np.float64) for name, values in reader_labels(pictures).items()}
    style = pictures.column("hair_style")
    known = ~np.isnan(style)
    number = np.nan_to_num(style).astype(int)
    facts["bald"] = _flag(known, np.isin(number, [k for k, name in enumerate(styles) if name == NONE]))
    long = np.isin(number, [k for k, name in enumerate(styles) if name.startswith(LONG)])
    facts["long_hair"] = _flag(known, long)
    facts |= hair_colours(pictures, known & ~(facts["bald"] == 1))
    rgb = [pictures.column(f"skin_{colour}") for colour in "rgb"]
    luminance = sum(share * values for share, values in zip(LUMA, rgb, strict=True))
    facts["skin_light"] = np.asarray(0.4 + 0.2 * (luminance - DARK_SKIN) / (LIGHT_SKIN - DARK_SKIN), np.float64)
    for name in ("weight", "wrinkles"):
        facts[name] = pictures.column(name).astype(np.float64)
    return facts


def hair_colours(pictures: PictureSet, known: np.ndarray) -> dict[str, np.ndarray]:
    """Flags of four colours, from levels 0..255: grey has no colour, black no light, blond much of both."""
    rgb = np.stack([pictures.column(f"hair_{colour}") for colour in "rgb"], 1)
    brightest = rgb.max(1)
    colour = (brightest - rgb.min(1)) / np.maximum(brightest, 1)
    grey = (colour < 0.15) & (brightest >= 80)
    return {
        "grey_hair": _flag(known, grey),
        "black_hair": _flag(known, (brightest < 45)),
        "blond": _flag(known, ~grey & (brightest >= 115)),
        "brown_hair": _flag(known, ~grey & (brightest >= 50) & (brightest < 105)),
    }


def _flag(known: np.ndarray, yes: np.ndarray) -> np.ndarray:
    return np.where(known, yes.astype(np.float64), np.nan)
