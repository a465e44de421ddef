"""The array files of the editing tools, in every layout that their scripts write."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest

from sg3cli.errors import ModelError
from sg3cli.weights.import_arrays import read_channel_table, read_codes, read_latents, read_style_statistics

CODES = np.random.default_rng(0).normal(size=(2, 3, 16, 512)).astype(np.float32)  # images, steps


def test_latents_of_the_image_and_of_the_video_tools(tmp_path: Path) -> None:
    """Images keep all steps, as a list or as one array; videos the last step, which must not be taken for a list."""
    names = ("a.jpg", "b.jpg")
    np.save(tmp_path / "lists.npy", {n: list(c) for n, c in zip(names, CODES, strict=True)})
    np.save(tmp_path / "arrays.npy", dict(zip(names, CODES, strict=True)))
    np.save(tmp_path / "video.npy", {n: c[-1] for n, c in zip(names, CODES, strict=True)})
    for layout, steps in (("lists", CODES), ("arrays", CODES), ("video", CODES[:, -1:])):
        found = read_latents(tmp_path / f"{layout}.npy")
        assert list(found) == list(names)
        assert all((found[n] == s).all() and found[n].shape == s.shape for n, s in zip(names, steps, strict=True))


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_styleclip_s_statistics_and_table(tmp_path: Path, protocol: int) -> None:
    mean = {"input": np.arange(4.0), "L0_36_1024": np.ones(1024, np.float32)}
    std = {name: 2 * value for name, value in mean.items()}
    transform = {"theta": np.float64(0.1), "x": 0.0, "y": np.float32(0)}
    (tmp_path / "s_stats").write_bytes(pickle.dumps([transform, mean, std], protocol))
    found = read_style_statistics(tmp_path / "s_stats")
    assert list(found.mean) == list(mean) and (found.std["input"] == 2 * np.arange(4)).all()
    np.save(tmp_path / "delta_i_c.npy", np.ones((4950, 512)))
    assert read_channel_table(tmp_path / "delta_i_c.npy").shape == (4950, 512)


def test_one_file_for_another_is_refused_by_name(tmp_path: Path) -> None:
    np.save(tmp_path / "latents.npy", {"a.jpg": CODES[0, 0], "b.jpg": CODES[0, 0, :8]})
    with pytest.raises(ModelError, match="different shapes"):
        read_latents(tmp_path / "latents.npy")
    np.save(tmp_path / "latents.npy", {"a.jpg": [CODES[0, 0], CODES[0, 0, :8]]})
    with pytest.raises(ModelError, match="different shapes"):
        read_latents(tmp_path / "latents.npy")
    np.save(tmp_path / "boundary.npy", np.ones((1, 512), np.float32))
    for reader, cause in (
        (read_latents, "table of names"),
        (read_style_statistics, "statistics"),
        (read_channel_table, r"shape \(1, 512\)"),
    ):
        with pytest.raises(ModelError, match=cause):
            reader(tmp_path / "boundary.npy")


def test_codes_of_named_files_are_taken_by_name_and_from_the_last_step(tmp_path: Path) -> None:
    np.save(tmp_path / "latents.npy", {"in/a.jpg": list(CODES[0]), "b.jpg": list(CODES[1])})
    found = read_codes(tmp_path / "latents.npy", ["b.jpg", "a.jpg"])
    assert (found == CODES[[1, 0], -1]).all()
    for names, cause in ((["c.jpg"], "no code of c.jpg"), (None, "no column `file`")):
        with pytest.raises(ModelError, match=cause):
            read_codes(tmp_path / "latents.npy", names)
    np.save(tmp_path / "plain.npy", CODES[:, 0, 0].astype(np.float64))
    plain = read_codes(tmp_path / "plain.npy")
    assert plain.shape == (2, 1, 512) and plain.dtype == np.float32
