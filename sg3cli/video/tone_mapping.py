"""HDR images on a usual screen: PQ or HLG with BT.2020 primaries -> BT.709 primaries, gamma 2.4, 8 bits.

The light of an image is counted in units of reference white, 203 cd/m2 (ITU-R BT.2408), which is also what white means
in the result. Up to `KNEE` light stays as it is; above, a shoulder of the Reinhard kind takes up what is brighter, with
the knee's own slope at its foot, so that `PEAK` becomes white. It acts on the largest of R, G and B and scales the
other two alike: hues stay.
"""

from __future__ import annotations

from functools import cache

import numpy as np

from sg3cli.video.color import BT2020, HLG, UNSPECIFIED, ColorTags

WHITE = 203.0  # cd/m2
PEAK = 1000.0 / WHITE  # brighter light is clipped; also the nominal peak of an HLG screen
KNEE = 0.6
STEPS = 1 << 14  # of the table that encodes light

# ITU-R BT.2087: linear light of BT.2020 primaries -> of BT.709 primaries.
TO_BT709 = np.array([[1.6605, -0.5876, -0.0728], [-0.1246, 1.1329, -0.0083], [-0.0182, -0.1006, 1.1187]], np.float32)
LUMA_2020 = np.array([0.2627, 0.6780, 0.0593], np.float32)


def to_sdr(rgb: np.ndarray, tags: ColorTags) -> np.ndarray:
    """`[H, W, 3]` uint16 (0..65535 is the signal's 0..1), PQ or HLG by `tags.transfer` -> `[H, W, 3]` uint8."""
    light = linear_light(tags.transfer)[rgb]
    if tags.transfer == HLG:
        # BT.2100's system gamma for a screen of 1000 cd/m2: scene light to the screen's.
        light *= PEAK * np.maximum(light @ LUMA_2020, 1e-6)[..., None] ** 0.2
    if tags.primaries in (BT2020, UNSPECIFIED):
        light = light @ TO_BT709.T
    np.maximum(light, 0, out=light)
    largest = np.maximum(light.max(-1, keepdims=True), 1e-6)
    light *= tone_curve(largest) / largest
    return _encoded()[np.rint(np.sqrt(np.minimum(light, 1)) * (STEPS - 1)).astype(np.uint16)]


def tone_curve(light: np.ndarray) -> np.ndarray:
    """Light in units of reference white, 0..`PEAK` -> 0..1."""
    reach = (PEAK - KNEE) / (1 - KNEE)
    above = (np.clip(light, KNEE, PEAK) - KNEE) / (1 - KNEE)
    return np.where(light <= KNEE, light, KNEE + (1 - KNEE) * above * (1 + above / reach**2) / (1 + above))


@cache
def linear_light(transfer: int) -> np.ndarray:
    """`[65536]` float32: PQ signal -> light in units of reference white, HLG signal -> scene light 0..1 (BT.2100)."""
    signal = np.arange(65536) / 65535
    if transfer == HLG:
        a, b, c = 0.17883277, 0.28466892, 0.55991073
        return np.where(signal <= 0.5, signal**2 / 3, (np.exp((signal - c) / a) + b) / 12).astype(np.float32)
    m1, m2, c1, c2, c3 = 0.1593017578125, 78.84375, 0.8359375, 18.8515625, 18.6875
    root = signal ** (1 / m2)
    return (10000 / WHITE * (np.maximum(root - c1, 0) / (c2 - c3 * root)) ** (1 / m1)).astype(np.float32)


@cache
def _encoded() -> np.ndarray:
    """`[STEPS]` uint8: square root of light 0..1 -> level of a screen with gamma 2.4 (BT.1886)."""
    root = np.arange(STEPS) / (STEPS - 1)
    return np.rint(255 * root ** (2 / 2.4)).astype(np.uint8)
