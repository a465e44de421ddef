import numpy as np
import pytest

from sg3cli.video.color import BT2020, HLG, PQ, ColorTags
from sg3cli.video.tone_mapping import KNEE, PEAK, WHITE, linear_light, to_sdr, tone_curve


def pq(nits):
    """SMPTE ST 2084: light of a screen -> signal 0..1, written down here a second time, the other way round."""
    y = (nits / 10000) ** (2610 / 16384)
    return ((3424 / 4096 + 2413 / 128 * y) / (1 + 2392 / 128 * y)) ** (2523 / 32)


def grey(signal, transfer):
    tags = ColorTags(BT2020, BT2020, transfer, 1)
    return to_sdr(np.full((1, 1, 3), round(signal * 65535), np.uint16), tags)[0, 0]


def test_known_points_of_the_transfer_functions():
    # BT.2408: 58 % PQ and 75 % HLG are reference white; BT.2100: PQ 1.0 is 10000 cd/m2.
    assert linear_light(PQ)[round(0.5807 * 65535)] == pytest.approx(1, abs=5e-3)
    assert linear_light(PQ)[-1] * WHITE == pytest.approx(10000, rel=1e-4)
    assert linear_light(HLG)[round(0.5 * 65535)] == pytest.approx(1 / 12, abs=1e-4)
    assert linear_light(HLG)[-1] == pytest.approx(1, abs=1e-5)
    assert (np.diff(linear_light(PQ)) >= 0).all() and (np.diff(linear_light(HLG)) >= 0).all()


def test_the_curve_leaves_the_dark_and_compresses_the_bright():
    light = np.linspace(0, PEAK, 2001)
    out = tone_curve(light)
    assert np.allclose(out[light <= KNEE], light[light <= KNEE])
    assert (
        (np.diff(out) > 0).all() and out[-1] == pytest.approx(1) and tone_curve(np.array(3 * PEAK)) == pytest.approx(1)
    )
    assert (np.diff(out) <= np.diff(light) + 1e-12).all()
    slope = np.diff(tone_curve(np.array([KNEE - 1e-4, KNEE, KNEE + 1e-4])))
    assert slope[1] == pytest.approx(slope[0], rel=1e-3)


@pytest.mark.parametrize("nits", [1, 10, 50, 100])
def test_usual_light_comes_out_as_a_usual_screen_shows_it(nits):
    expected = 255 * (nits / WHITE) ** (1 / 2.4)
    assert np.abs(grey(pq(nits), PQ) - expected).max() <= 1


def test_both_systems_agree_on_reference_white():
    assert np.abs(grey(pq(WHITE), PQ).astype(int) - grey(0.75, HLG)).max() <= 3
    assert (grey(pq(1000), PQ) >= 254).all() and (grey(1.0, HLG) >= 253).all() and (grey(0, PQ) == 0).all()


def test_colours_of_bt709_come_back_from_bt2020():
    # BT.709 red, green, blue at 50 cd/m2 in BT.2020 coordinates (BT.2087).
    to_2020 = np.array([[0.6274, 0.3293, 0.0433], [0.0691, 0.9195, 0.0114], [0.0164, 0.0880, 0.8956]])
    for channel in range(3):
        light = to_2020[:, channel] * 50
        signal = np.rint(65535 * pq(np.maximum(light, 1e-6))).astype(np.uint16)
        out = to_sdr(signal[None, None], ColorTags(BT2020, BT2020, PQ, 1))[0, 0].astype(int)
        expected = np.zeros(3)
        expected[channel] = 255 * (50 / WHITE) ** (1 / 2.4)
        assert np.abs(out - expected).max() <= 6, channel


def test_hues_stay_where_the_shoulder_acts():
    bright = np.rint(65535 * pq(np.array([[[900.0, 300.0, 300.0]]]))).astype(np.uint16)
    out = (to_sdr(bright, ColorTags(BT2020, 1, PQ, 1))[0, 0] / 255.0) ** 2.4
    assert out[0] / out[1] == pytest.approx(3, rel=0.05) and out[1] == pytest.approx(out[2])
