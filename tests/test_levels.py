"""Levels and the range of the networks: exact at both ends, the same for arrays and tensors."""

from __future__ import annotations

import numpy as np
import torch

from sg3cli.levels import tensor_to_signed, tensor_to_uint8, to_levels, to_signed, to_uint8

ALL = np.arange(256, dtype=np.uint8)


def test_every_level_comes_back() -> None:
    signed = to_signed(ALL)
    assert signed.dtype == np.float32 and signed[0] == -1 and signed[-1] == 1
    assert np.array_equal(to_uint8(signed), ALL)
    assert np.abs(to_levels(signed) - ALL).max() < 1e-4


def test_what_lies_outside_is_clipped_and_halves_go_to_the_even_level() -> None:
    values = np.array([-7, -1.001, 1.001, 7, 100.5 / 127.5 - 1, 101.5 / 127.5 - 1])
    assert to_uint8(values).tolist() == [0, 0, 255, 255, 100, 102]
    assert tensor_to_uint8(torch.from_numpy(values)).tolist() == [0, 0, 255, 255, 100, 102]


def test_tensors_have_the_bits_of_arrays() -> None:
    values = np.random.default_rng(0).normal(0, 0.7, (64, 64)).astype(np.float32)
    assert np.array_equal(tensor_to_uint8(torch.from_numpy(values)).numpy(), to_uint8(values))
    assert np.array_equal(tensor_to_signed(torch.from_numpy(ALL)).numpy(), to_signed(ALL))


def test_a_given_tensor_stays_as_it_is() -> None:
    levels = torch.tensor([0.0, 255.0])
    tensor_to_signed(levels)
    assert levels.tolist() == [0, 255]
