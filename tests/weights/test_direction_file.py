"""Direction files of every kind, and directions with others projected out."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save_file

from sg3cli.errors import ModelError, UsageError
from sg3cli.latents.projection import condition
from sg3cli.nets.generator_config import GeneratorConfig
from sg3cli.weights.direction_file import find_direction, is_direction_file, load_direction

R_1024 = GeneratorConfig.stylegan3_r(1024)
VECTOR = np.linspace(-1, 1, 512, dtype=np.float32)


@pytest.mark.parametrize("shape", [(512,), (1, 512), (1, 16, 512), (16, 512)])
def test_interfacegan_boundaries_of_every_shape(tmp_path: Path, shape: tuple[int, ...]) -> None:
    rows = 16 if 16 in shape else 1
    np.save(tmp_path / "age_boundary.npy", np.broadcast_to(VECTOR, (rows, 512)).reshape(shape))
    direction = load_direction(tmp_path / "age_boundary.npy")
    assert direction.name == "age" and direction.generator is None
    assert direction.vector.shape == (rows, 512) and (direction.vector[-1] == VECTOR).all()


def test_double_precision_is_taken_as_float32(tmp_path: Path) -> None:
    np.save(tmp_path / "age.npy", VECTOR.astype(np.float64))
    assert load_direction(tmp_path / "age.npy").vector.dtype == np.float32


class Bomb:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return exec, ("raise SystemExit('a direction file ran code')",)


def test_nothing_in_a_file_is_executed(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.array([Bomb()], dtype=object), allow_pickle=True)
    (tmp_path / "b.npy").write_bytes(pickle.dumps(Bomb()))
    for name in ("a.npy", "b.npy"):
        with pytest.raises(ModelError, match=r"builtins\.exec"):
            load_direction(tmp_path / name)


def test_arrays_in_pickles_object_arrays_and_torch_files(tmp_path: Path) -> None:
    np.save(tmp_path / "age_boundary.npy", np.array({"age": VECTOR[None]}, dtype=object))
    one = np.empty(1, object)
    one[0] = VECTOR
    np.save(tmp_path / "list.npy", one)
    (tmp_path / "age.pkl").write_bytes(pickle.dumps(VECTOR[None]))
    torch.save(torch.from_numpy(VECTOR), tmp_path / "age.pt")
    for name in ("age_boundary.npy", "list.npy", "age.pkl", "age.pt"):
        assert is_direction_file(name)
        assert (load_direction(tmp_path / name).vector == VECTOR[None]).all()


def test_styleclip_s_tables_are_named_for_what_they_are(tmp_path: Path) -> None:
    np.save(tmp_path / "delta_i_c.npy", np.ones((9894, 512), np.float32))
    with pytest.raises(ModelError, match=r"table of 9894x512 .* delta_i_c"):
        load_direction(tmp_path / "delta_i_c.npy")
    layers = {"input": np.ones(4), "L0_36_1024": np.ones(1024)}
    (tmp_path / "s_stats.pkl").write_bytes(pickle.dumps([{"theta": 0.0}, layers, layers]))
    with pytest.raises(ModelError, match="statistics of channels"):
        load_direction(tmp_path / "s_stats.pkl")


@pytest.mark.parametrize(
    "array", [np.zeros((2, 3, 4, 5), np.float32), np.arange(512), np.full(512, np.nan, np.float32), np.empty((0, 512))]
)
def test_what_is_not_a_direction_is_refused(tmp_path: Path, array: np.ndarray) -> None:
    np.save(tmp_path / "x.npy", array)
    with pytest.raises(ModelError, match=r"x\.npy"):
        load_direction(tmp_path / "x.npy")


def test_our_files_carry_their_name_and_generator(tmp_path: Path) -> None:
    meta = {"sg3": json.dumps({"name": "age", "generator": "sha256:abc", "unit": 2.5})}
    save_file({"direction": VECTOR[None]}, tmp_path / "x.safetensors", metadata=meta)
    direction = load_direction(tmp_path / "x.safetensors")
    assert (direction.name, direction.generator, direction.meta["unit"]) == ("age", "sha256:abc", 2.5)
    direction.check_fits(R_1024, "sha256:abc")
    with pytest.raises(ModelError, match="another generator"):
        direction.check_fits(R_1024, "sha256:def")


@pytest.mark.parametrize("content", [b"", b"not safetensors at all", None])
def test_a_broken_safetensors_file_is_refused(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "x.safetensors"
    if content is None:
        save_file({"other": VECTOR}, path)
    else:
        path.write_bytes(content)
    with pytest.raises(ModelError, match="cannot read the direction"):
        load_direction(path)


def test_a_safetensors_file_of_something_else_is_refused(tmp_path: Path) -> None:
    for array in (np.ones((2, 3, 4), np.float32), np.full(4, np.inf, np.float32), np.ones((0, 4), np.float32)):
        save_file({"direction": array}, tmp_path / "x.safetensors")
        with pytest.raises(ModelError, match=r"x\.safetensors"):
            load_direction(tmp_path / "x.safetensors")
    save_file({"direction": VECTOR}, tmp_path / "x.safetensors", metadata={"sg3": "5"})
    with pytest.raises(ModelError, match=r"x\.safetensors"):
        load_direction(tmp_path / "x.safetensors")


def test_a_direction_of_another_shape_does_not_fit(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.zeros((1, 18, 512), np.float32) + 1)
    with pytest.raises(ModelError, match="18x512"):
        load_direction(tmp_path / "x.npy").check_fits(R_1024)


def test_a_direction_of_stylespace_has_a_number_for_each_style(tmp_path: Path) -> None:
    """9894 of them in the published R generator of 1024 px."""
    meta = {"sg3": json.dumps({"space": "s"})}
    save_file({"direction": np.ones(9894, np.float32)}, tmp_path / "s.safetensors", metadata=meta)
    direction = load_direction(tmp_path / "s.safetensors")
    assert direction.space == "s" and direction.vector.shape == (1, 9894)
    direction.check_fits(R_1024)
    with pytest.raises(ModelError, match="4950 styles"):
        direction.check_fits(GeneratorConfig.stylegan3_t(1024))
    save_file({"direction": np.ones(512, np.float32)}, tmp_path / "s.safetensors", metadata=meta)
    with pytest.raises(ModelError, match="9894 styles"):
        load_direction(tmp_path / "s.safetensors").check_fits(R_1024)


def test_an_unknown_name_lists_those_known(tmp_path: Path) -> None:
    known = {"smile": tmp_path / "smile.safetensors", "age": tmp_path / "age.safetensors"}
    assert find_direction("age", known) == known["age"]
    for name in ("hat", "hat.npy"):
        with pytest.raises(UsageError) as caught:
            find_direction(name, known)
        assert "age, smile" in caught.value.hint


# ---- conditional manipulation


def unit(seed: int, rows: int = 1) -> np.ndarray:
    vectors = np.random.default_rng(seed).normal(size=(rows, 32)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@given(st.integers(0, 1000), st.integers(1, 3))
def test_nothing_of_the_conditions_is_left_and_the_length_stays(seed: int, count: int) -> None:
    direction, conditions = 3 * unit(seed), [unit(seed + 1 + i) for i in range(count)]
    rest = condition(direction, conditions)
    assert np.linalg.norm(rest) == pytest.approx(3, rel=1e-5)
    for c in conditions:
        assert float(rest[0] @ c[0]) == pytest.approx(0, abs=1e-5)


def test_one_and_two_conditions_follow_the_paper_s_closed_form() -> None:
    n, a, b = unit(1)[0], unit(2)[0], unit(3)[0]
    one = n - (n @ a) * a
    assert condition(n[None], [a[None]])[0] == pytest.approx(one / np.linalg.norm(one), abs=1e-6)
    ab = a @ b
    alpha, beta = (n @ a - (n @ b) * ab) / (1 - ab**2), (n @ b - (n @ a) * ab) / (1 - ab**2)
    two = n - alpha * a - beta * b
    assert condition(n[None], [a[None], b[None]])[0] == pytest.approx(two / np.linalg.norm(two), abs=1e-6)


def test_each_row_is_projected_on_its_own() -> None:
    direction, other = unit(4, 8), unit(5, 8)
    rest = condition(direction, [other])
    assert np.abs((rest * other).sum(axis=1)).max() < 1e-5


def test_a_direction_cannot_preserve_itself() -> None:
    with pytest.raises(UsageError):
        condition(unit(6), [unit(6)])
