"""The restricted reader gives what torch, numpy and pickle wrote, bit by bit."""

from __future__ import annotations

import hashlib
import io
import pathlib
import pickle
import zipfile
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from official_files import ENCODERS, PICKLES, STATE_DICTS, golden_bytes, golden_file, golden_json

from sg3cli.errors import ModelError
from sg3cli.weights.import_networks import flatten
from sg3cli.weights.safe_pickle import machine
from sg3cli.weights.safe_pickle.reader import read, read_bytes
from sg3cli.weights.safe_pickle.values import Array, Refused, Tensor

PROTOCOLS = (2, 3, 4, 5)


def fingerprint(tensor: Tensor) -> list[object]:
    values = tensor.array()
    return [list(values.shape), str(values.dtype), hashlib.sha256(values.tobytes()).hexdigest()[:16]]


# ---- the golden miniatures


@pytest.mark.parametrize("tag", PICKLES)
def test_every_tensor_of_the_official_pickles(tmp_path: Path, tag: str) -> None:
    """G, D and G_ema: names, order, shapes and bits."""
    tree = read(golden_file(PICKLES[tag], tmp_path))
    assert list(tree) == ["G", "D", "G_ema", "augment_pipe", "training_set_kwargs"]
    found = {f"{net}:{key}": fingerprint(t) for net in ("G", "D", "G_ema") for key, t in flatten(tree[net]).items()}
    truth = golden_json("C_truth")[tag]
    assert len(truth) == 265 and list(found) == list(truth) and found == truth
    assert tree["G_ema"].state["_init_kwargs"] == golden_json("C_truth")["init_kwargs"][tag]
    assert "module_src" not in tree["G_ema"].state and tree["G_ema"].class_name == "Generator"


@pytest.mark.parametrize("name", STATE_DICTS)
def test_every_tensor_of_the_state_dicts(tmp_path: Path, name: str) -> None:
    truth = {k.removeprefix("G_ema:"): v for k, v in golden_json("C_truth")["r"].items() if k.startswith("G_ema:")}
    found = {key: fingerprint(tensor) for key, tensor in read(golden_file(name, tmp_path)).items()}
    assert list(found) == list(truth) and found == truth


@pytest.mark.parametrize("name", ENCODERS)
def test_encoder_checkpoints_with_paths_inside(tmp_path: Path, name: str) -> None:
    tree = read(golden_file(name, tmp_path))
    assert tree["opts"]["stylegan_weights"] == "pretrained_models/sg3-r-ffhq-1024.pt"  # a str, not a path
    assert tree["opts"]["learning_rate"] == 1e-4 and tree["opts"]["checkpoint_path"] is None
    assert tree["latent_avg"].size == (512,)
    assert tree["state_dict"]["encoder.input_layer.0.weight"].size == (4,)
    if "e4e" in name:
        assert tree["global_step"] == 123 and isinstance(tree["optimizer"]["state"], dict)


# ---- what torch writes


def both_formats(value: object, folder: Path) -> list[Path]:
    paths = [folder / "new.pt", folder / "old.pt"]
    torch.save(value, paths[0])
    torch.save(value, paths[1], _use_new_zipfile_serialization=False)
    return paths


def test_views_strides_types_and_empty_tensors(tmp_path: Path) -> None:
    base = torch.arange(24.0).reshape(2, 3, 4)
    tensors = {
        "whole": base,
        "turned": base.permute(2, 0, 1),
        "part": base[1, :, ::2],
        "scalar": torch.tensor(3.5),
        "empty": torch.zeros(0, 4),
        "double": torch.linspace(0, 1, 5, dtype=torch.float64),
        "half": torch.tensor([1.5, -2.0], dtype=torch.float16),
        "brain": torch.tensor([1.5, -3e38, 1e-30], dtype=torch.bfloat16),
        "long": torch.tensor([-(2**62)]),
        "byte": torch.tensor([255], dtype=torch.uint8),
        "bool": torch.tensor([True, False]),
        "parameter": torch.nn.Parameter(torch.ones(2)),
    }
    for path in both_formats(OrderedDict(tensors), tmp_path):
        tree = read(path)
        assert list(tree) == list(tensors)
        for name, tensor in tensors.items():
            expected = tensor.detach().float() if tensor.dtype == torch.bfloat16 else tensor.detach()
            np.testing.assert_array_equal(tree[name].array(), expected.numpy(), strict=True)


def test_shared_storages_stay_shared(tmp_path: Path) -> None:
    base = torch.arange(6.0)
    tensors = {"a": base, "b": base[2:4], "c": base.clone()}
    paths = both_formats(tensors, tmp_path)
    (tmp_path / "plain.pkl").write_bytes(pickle.dumps(tensors))  # the nested streams of NVIDIA's pickles
    for path in paths:
        tree = read(path)
        assert np.shares_memory(tree["a"].array(), tree["b"].array())
        assert not np.shares_memory(tree["a"].array(), tree["c"].array())
        assert tree["a"].storage is tree["b"].storage and tree["b"].array().tolist() == [2, 3]
    plain = read(tmp_path / "plain.pkl")
    assert plain["b"].array().tolist() == [2, 3] and not plain["a"].array().flags.writeable


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_plain_pickles_of_tensors(tmp_path: Path, protocol: int) -> None:
    value = {"w": torch.randn(3, 2, generator=torch.Generator().manual_seed(0)), "n": [1, -1, 2**40, 1e-3, None, True]}
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(value, protocol))
    tree = read(tmp_path / "a.pkl")
    assert (tree["w"].array() == value["w"].numpy()).all() and tree["n"] == value["n"]


@pytest.mark.parametrize("path", [pathlib.PurePosixPath("/a/b.pt"), pathlib.PureWindowsPath("a\\b.pt")])
def test_paths_become_text(path: pathlib.PurePath) -> None:
    assert read_bytes(memoryview(pickle.dumps([path]))) == [path.as_posix()]


# ---- what numpy writes


@pytest.mark.parametrize("protocol", PROTOCOLS)
@given(
    array=hnp.arrays(
        st.sampled_from(["f2", "<f4", ">f4", "f8", "i4", "i8", "u1", "?"]), hnp.array_shapes(min_dims=0, min_side=0)
    ),
    fortran=st.booleans(),
)
def test_pickled_arrays_of_every_type(array: np.ndarray, protocol: int, fortran: bool) -> None:
    array = np.asfortranarray(array) if fortran else array
    read_back = read_bytes(memoryview(pickle.dumps({"x": array}, protocol)))["x"]
    assert isinstance(read_back, Array)
    np.testing.assert_array_equal(read_back.array(), array, strict=True)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_scalars_and_sets(protocol: int) -> None:
    value = {"a": np.float64(0.1), "b": np.int64(-7), "c": np.float32(1.5), "d": np.bool_(True), "e": {"x", "y"}}
    assert read_bytes(memoryview(pickle.dumps(value, protocol))) == value


def test_old_module_names_of_numpy() -> None:
    stream = pickle.dumps(np.arange(3.0), 2)
    for name in (b"numpy._core", b"numpy.core"):
        old = stream.replace(b"numpy._core", name).replace(b"numpy.core", name)
        assert read_bytes(memoryview(old)).array().tolist() == [0, 1, 2]


@pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)])
@pytest.mark.parametrize("shape", [(512,), (1, 512), (2, 3, 4), (), (0, 4)])
@pytest.mark.parametrize("order", ["C", "F"])
def test_npy_files(tmp_path: Path, version: tuple[int, int], shape: tuple[int, ...], order: str) -> None:
    array = np.asarray(np.random.default_rng(0).normal(size=shape), np.float32, order=order)
    with (tmp_path / "a.npy").open("wb") as file:
        np.lib.format.write_array(file, array, version)
    np.testing.assert_array_equal(read(tmp_path / "a.npy"), array, strict=True)


def test_npy_files_of_objects(tmp_path: Path) -> None:
    arrays = {"0001.jpg": np.ones((16, 4), np.float32), "0002.jpg": np.zeros((16, 4), np.float32)}
    np.save(tmp_path / "dict.npy", arrays)
    tree = read(tmp_path / "dict.npy")
    assert list(tree) == list(arrays) and (tree["0001.jpg"].array() == 1).all()
    several = np.empty(2, object)
    several[:] = [np.ones(2), "two"]
    np.save(tmp_path / "list.npy", several)
    first, second = read(tmp_path / "list.npy")
    assert first.array().tolist() == [1, 1] and second == "two"


# ---- limits: what a file claims is compared with what it has, before anything of that size is made


def refused(data: bytes | Path) -> str:
    """Why a file or its bytes are not read."""
    with pytest.raises((ModelError, Refused)) as caught:
        read(data) if isinstance(data, Path) else read_bytes(memoryview(data))
    return str(caught.value)


def test_a_tensor_may_not_reach_beyond_its_storage() -> None:
    stream = pickle.dumps(torch.arange(6.0)[2:4], 2)
    size = b"K\x02\x85"
    for new in (b"K\x05\x85", b"J\xff\xff\xff\x7f\x85", b"J\xff\xff\xff\xff\x85"):
        assert "size" in refused(stream.replace(size, new, 1))
    one = pickle.dumps(torch.arange(6.0)[5:], 4)
    at = one.rindex(b"K\x05K\x01\x85")
    assert "reaches beyond" in refused(one[:at] + b"K\x06" + one[at + 2 :])


def test_an_expanded_tensor_is_no_way_to_fill_the_memory() -> None:
    assert "reaches beyond" in refused(pickle.dumps(torch.zeros(1).expand(1 << 40)))


def test_a_storage_may_not_be_larger_than_the_file(tmp_path: Path) -> None:
    torch.save(torch.zeros(300), tmp_path / "a.pt", _use_new_zipfile_serialization=False)
    data = (tmp_path / "a.pt").read_bytes()
    assert data.count(b"M,\x01") == 2
    assert "1200000000 bytes" in refused(data.replace(b"M,\x01N", b"J\x00\xa3\xe1\x11N", 1))
    assert "is cut off" in refused(data[:-1])
    assert "301 elements" in refused(data.replace(b"\x2c\x01" + bytes(6), b"\x2d\x01" + bytes(6)))


def test_numbers_in_headers_are_compared_with_the_file(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.zeros((4, 4)))
    data = (tmp_path / "a.npy").read_bytes()
    assert "has 128 of" in refused(data.replace(b"(4, 4)", b"(9, 9)"))
    assert "header" in refused(data.replace(b"'<f8'", b"'O,8'")) and "not numbers" in refused(
        data.replace(b"'<f8'", b"'<U8'")
    )
    assert "header is said" in refused(data[:8] + b"\xff\xff" + data[10:])
    assert "header" in refused(data.replace(b"(4, 4)", b"exit()"))
    assert "shape" in refused(data.replace(b"(4, 4), }", b"(" + b"9" * 40 + b",)}"))


@pytest.mark.parametrize(
    ("stream", "cause"),
    [
        (b"\x80\x02\x8e" + (1 << 60).to_bytes(8, "little") + b".", "bytes follow"),
        (b"\x80\x04\x95" + (1 << 60).to_bytes(8, "little") + b".", "bytes follow"),
        (b"\x80\x02\x8b\xff\xff\xff\x7f.", "an integer of"),
        (b"\x80\x02]r\xff\xff\xff\xff.", None),  # a memo of four billion places is one entry here
        (b"\x80\x02j\xff\xff\xff\xff.", "has not stored"),
        (b"\x80\x02" + b"(" * 100_000 + b".", "untidy"),
        (b"\x80\x02" + b"]" * 100_000 + b"a" * 99_999 + b".", None),  # deep, but nothing walks into it
        (b"\x80\x02" + b"]q\x00" + b"h\x00h\x00\x86q\x00" * 500 + b"0.", "untidy"),  # two to the five hundredth
        (b"\x80\x01].", "protocol 1"),
        (b"\x80\x06].", "protocol 6"),
        (b"\x80\x02}]]s.", "for a key"),
        (b"\x80\x02}\x8a\x08" + bytes(7) + b"\x10]s.", "for a key"),
        (b"\x80\x02(", "cut off"),
        (b"\x80\x02.", "untidy"),
        (b"\x80\x020.", "empty stack"),
        (b"\x80\x02t.", "lacks a MARK"),
        (b"\x80\x02X\x01\x00\x00\x00\xff.", "UTF-8"),
        (b"\x80\x02cos", "without end"),
        (b"\x80\x02\xfe.", "no pickle opcode"),
    ],
)
def test_abused_pickles(stream: bytes, cause: str | None) -> None:
    if cause is None:
        read_bytes(memoryview(stream))
    else:
        assert cause in refused(stream)


def test_work_is_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "MAX_STEPS", 1000)
    monkeypatch.setattr(machine, "MAX_STACK", 500)
    monkeypatch.setattr(machine, "MAX_OBJECTS", 100)
    assert "more than 1000 steps" in refused(b"\x80\x02" + b"N0" * 600 + b"N.")
    assert "more than 500 values" in refused(b"\x80\x02" + b"N" * 600 + b".")
    assert "more than 100 objects" in refused(b"\x80\x02" + b"]" * 101 + b".")


def test_one_text_cannot_be_made_bytes_without_end() -> None:
    text = b"X" + (1 << 20).to_bytes(4, "little") + b"a" * (1 << 20) + b"q\x00"
    encode = b"c_codecs\nencode\nq\x01h\x00X\x06\x00\x00\x00latin1\x86q\x02R"
    again = b"0h\x01h\x02R"
    assert "memory" in refused(b"\x80\x02" + text + b"0" + encode + again * 20 + b".")


def test_a_state_of_what_is_no_array_is_refused() -> None:
    assert "sets the state of a list" in refused(b"\x80\x02]}b.")
    assert "sets the state of a reference to numpy.dtype" in refused(b"\x80\x02cnumpy\ndtype\n}b.")


# ---- archives


def rewritten(source: Path, target: Path, **changes: object) -> Path:
    """The archive again, its entries changed or compressed."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w", changes.pop("compression", 0)) as new:
        for name in old.namelist():
            content = changes.pop(name.rpartition("/")[2].replace(".", "_"), old.read(name))
            if content is not None:
                new.writestr(name, content)
    assert not changes
    return target


def test_archives_that_torch_did_not_write(tmp_path: Path) -> None:
    good, bad = tmp_path / "good.pt", tmp_path / "bad.pt"
    torch.save({"w": torch.zeros(100)}, good)
    assert read(rewritten(good, bad))["w"].size == (100,)  # as another zip writer lays it out
    assert "compressed" in refused(rewritten(good, bad, compression=zipfile.ZIP_DEFLATED))
    assert "big-endian" in refused(rewritten(good, bad, byteorder=b"big"))
    assert "holds no data.pkl" in refused(rewritten(good, bad, data_pkl=None))
    assert "has 8 bytes" in refused(rewritten(good, bad, **{"0": b"12345678"}))
    assert "is missing" in refused(rewritten(good, bad, **{"0": None}))


def test_a_flipped_bit_in_the_weights_is_found(tmp_path: Path) -> None:
    data = bytearray(golden_bytes(STATE_DICTS[0]))
    with zipfile.ZipFile(golden_file(STATE_DICTS[0], tmp_path)) as archive:
        entry = max(archive.infolist(), key=lambda info: info.file_size if "/data/" in info.filename else 0)
    data[entry.header_offset + 100 + len(entry.filename)] ^= 4
    assert "checksum" in refused(bytes(data))


def test_entries_may_not_overlap(tmp_path: Path) -> None:
    """Many names for the same bytes make a small archive large."""
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("a/data.pkl", b"\x80\x02N.")
        for number in range(20):
            archive.writestr(f"a/data/{number}", bytes(1000))
    data = (tmp_path / "a.zip").read_bytes()
    local = data.index(b"a/data/0") - 30
    out, at = bytearray(data), data.index(b"PK\1\2")
    while (at := data.find(b"PK\1\2", at + 1)) > 0:
        out[at + 42 : at + 46] = local.to_bytes(4, "little")
        out[at + 20 : at + 28] = (12_000).to_bytes(4, "little") * 2
    assert "overlap" in refused(bytes(out))


def test_large_archives_with_64_bit_fields(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.pt", "w") as archive, archive.open("a/data.pkl", "w", force_zip64=True) as entry:
        entry.write(pickle.dumps([1, 2], 2))
    assert read(tmp_path / "a.pt") == [1, 2]


@pytest.mark.parametrize("content", [b"", b"PK\3\4", b"hello", b"\x93NUMPY", b"\x80", b"PK\5\6" + bytes(18)])
def test_stumps_of_files(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.pt").write_bytes(content)
    assert str(tmp_path / "x.pt") in refused(tmp_path / "x.pt")


def test_absent_files_and_folders(tmp_path: Path) -> None:
    assert "no such file" in refused(tmp_path / "absent.pkl")
    assert "no such file" in refused(tmp_path)


def test_nested_streams_have_a_budget() -> None:
    """A storage's bytes may be named again and again; each time costs its length, up to four times the file's."""
    stream = io.BytesIO()
    torch.save(torch.zeros(300_000)._typed_storage(), stream, _use_new_zipfile_serialization=False)
    text = b"B" + len(stream.getvalue()).to_bytes(4, "little") + stream.getvalue() + b"q\x01"
    start = b"\x80\x03ctorch.storage\n_load_from_bytes\nq\x00" + b"0" + text + b"0"
    once = b"h\x00h\x01\x85R"
    read_bytes(memoryview(start + (once + b"0") * 3 + once + b"."))
    assert "_load_from_bytes would take much more memory" in refused(start + (once + b"0") * 5 + once + b".")
