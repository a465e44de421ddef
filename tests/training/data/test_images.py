"""Images to train on: every source, and bad data one kind at a time."""

from __future__ import annotations

import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest

from sg3cli.drawing.images import decode
from sg3cli.errors import InputError
from sg3cli.training.data import images as module
from sg3cli.training.data.images import open_images

SIZE = 16


def image(seed: int, size: int = SIZE, width: int | None = None) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 255, (size, width or size, 3), dtype=np.uint8)


def write(path: Path, image: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), image[..., ::-1] if image.ndim == 3 and image.shape[-1] == 3 else image)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for k in (0, 1, 2, 10):
        write(tmp_path / "faces" / f"{k}.png", image(k))
    write(tmp_path / "faces" / "more" / "a.png", image(3))
    (tmp_path / "faces" / "notes.txt").write_text("not a picture")
    return tmp_path / "faces"


def test_a_folder_is_read_in_the_order_of_its_numbers(folder: Path) -> None:
    images = open_images(folder, None, print)
    assert images.names == ("0.png", "1.png", "2.png", "10.png", "more/a.png") and images.resolution == SIZE
    batch = images.batch(np.array([3, 0]), mirror=np.array([True, False]))
    expected = image(10)[:, ::-1].astype(np.float32) / 127.5 - 1
    assert batch.shape == (2, 3, SIZE, SIZE) and np.allclose(batch[0].permute(1, 2, 0), expected, atol=1e-6)


def test_a_zip_and_images_too_many_to_hold_give_the_same(folder: Path, tmp_path: Path, monkeypatch) -> None:
    with zipfile.ZipFile(tmp_path / "faces.zip", "w") as archive:
        for path in folder.rglob("*"):
            archive.write(path, path.relative_to(folder))
    monkeypatch.setattr(module, "HELD", 0)
    a, b = open_images(folder, None, print), open_images(tmp_path / "faces.zip", None, print)
    rows = np.arange(len(a))
    assert a.names == b.names and (a.batch(rows) == b.batch(rows)).all()


def test_damaged_images_are_dropped_by_name(folder: Path) -> None:
    write(folder / "20.jpg", image(20))
    whole = (folder / "20.jpg").read_bytes()
    (folder / "20.jpg").write_bytes(whole[: len(whole) // 2])
    (folder / "21.png").write_bytes(b"hello")
    (folder / "22.png").write_bytes(b"")
    (folder / "23.png").write_bytes((folder / "0.png").read_bytes()[:200])
    said: list[str] = []
    images = open_images(folder, None, said.append)
    assert [d.name for d in images.dropped] == ["20.jpg", "21.png", "22.png", "23.png"] and len(images) == 5
    assert "dropped 20.jpg" in said[0] and "4 of 9" in said[-1]


@pytest.mark.parametrize("kind", ["empty", "all damaged", "no such", "a file", "a broken zip"])
def test_nothing_to_train_on_is_an_error_that_names_it(tmp_path: Path, kind: str) -> None:
    path = tmp_path / ("data.zip" if kind == "a broken zip" else "data")
    if kind == "a file" or kind == "a broken zip":
        path.write_bytes(b"PK hello")
    elif kind != "no such":
        path.mkdir()
    if kind == "all damaged":
        (path / "a.png").write_bytes(b"no")
    with pytest.raises(InputError, match="data"):
        open_images(path, None, print)


def test_mixed_sizes_are_refused_by_name_and_reduced_when_asked(folder: Path) -> None:
    write(folder / "30.png", image(30, 2 * SIZE))
    with pytest.raises(InputError, match=r"30\.png .* is 32x32, not 16x16"):
        open_images(folder, None, print)
    images = open_images(folder, SIZE, print)
    reduced = cv2.resize(image(30, 2 * SIZE), (SIZE, SIZE), interpolation=cv2.INTER_AREA)
    assert (images.image(images.names.index("30.png")) == reduced).all()
    write(folder / "31.png", image(31, SIZE, 2 * SIZE))
    with pytest.raises(InputError, match=r"31\.png .* is 32x16, not square"):
        open_images(folder, SIZE, print)


def test_grey_deep_and_transparent_images_become_rgb(folder: Path) -> None:
    grey = image(40)[..., 0]
    write(folder / "40.png", grey)
    write(folder / "41.png", grey.astype(np.uint16) * 257)
    write(folder / "42.png", np.dstack([image(42)[..., ::-1], np.full((SIZE, SIZE), 128, np.uint8)]))
    images = open_images(folder, None, print)
    read = {name: images.image(k) for k, name in enumerate(images.names)}
    assert (read["40.png"] == grey[..., None]).all() and (read["41.png"] == grey[..., None]).all()
    assert np.abs(read["42.png"] - image(42) * (128 / 255)).max() <= 1


def test_a_cmyk_jpeg_keeps_its_colours() -> None:
    Image = pytest.importorskip("PIL.Image")
    import io

    file = io.BytesIO()
    rgb = np.zeros((SIZE, SIZE, 3), np.uint8) + np.array([200, 60, 30], np.uint8)
    Image.fromarray(rgb).convert("CMYK").save(file, "JPEG", quality=95)
    image = decode(file.getvalue())
    assert image is not None and np.abs(image.astype(int) - rgb).max() < 12
