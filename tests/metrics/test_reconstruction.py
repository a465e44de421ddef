"""PSNR and the reconstruction report by hand."""

import numpy as np
import pytest

from sg3cli.metrics.perceptual import StructuralLoss
from sg3cli.metrics.reconstruction import psnr, reconstruction_report


def test_psnr_by_hand():
    a = np.zeros((4, 4, 3), dtype=np.uint8)
    assert psnr(a, a) == float("inf")
    assert psnr(a, a + 10) == pytest.approx(20 * np.log10(25.5))
    assert psnr(a, np.full_like(a, 255)) == pytest.approx(0)  # no wrap-around of uint8
    with pytest.raises(ValueError, match="shapes"):
        psnr(a, a[:2])


def test_reconstruction_report_skips_frames_without_a_face():
    levels = [np.full((32, 32, 3), v, dtype=np.uint8) for v in (100, 0, 120)]
    targets = [None if i == 1 else (x + 2.0 * i) / 127.5 - 1 for i, x in enumerate(levels)]
    report = reconstruction_report(targets, levels, StructuralLoss())
    assert report.frames.tolist() == [0, 2]
    assert report.psnr[0] > 90 and report.psnr[1] == pytest.approx(20 * np.log10(255 / 4), abs=0.01)
    summary = report.to_dict()
    assert summary["worst_frame"] == 2 and summary["perceptual"] == "structural"
    assert reconstruction_report(targets, levels).to_dict()["perceptual_mean"] is None
    assert reconstruction_report([None], levels[:1]).to_dict()["psnr_mean"] is None
    with pytest.raises(ValueError, match="no renders"):
        reconstruction_report(targets, levels[:2])
