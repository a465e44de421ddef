import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sg3cli.latents.codes import Codes, between


def codes(seed: int, shift: bool = True, n: int = 3) -> Codes:
    rng = np.random.default_rng(seed)
    values = [rng.standard_normal((n, *size)).astype(np.float32) for size in ((4, 8), (10,), (3, 3))]
    return Codes(values[0], values[1] if shift else None, values[2])


@given(st.integers(0, 9), st.booleans(), st.booleans())
def test_between_is_either_s_very_own_at_its_end_and_the_mean_half_way(seed: int, one: bool, other: bool) -> None:
    plain, edited = codes(seed, one), codes(seed + 10, other)
    result = between(plain, edited, np.array([0.0, 1.0, 0.5]))
    for name in ("ws", "shift"):
        a, b, mixed = (getattr(part, name) for part in (plain, edited, result))
        if a is None and b is None:
            assert mixed is None
            continue
        a, b = (np.zeros_like(b) if a is None else a), (np.zeros_like(a) if b is None else b)
        assert (mixed[0] == a[0]).all() and (mixed[1] == b[1]).all()
        assert mixed[2] == pytest.approx((a[2] + b[2]) / 2, abs=1e-6) and mixed.dtype == np.float32
    assert result.pose is edited.pose
