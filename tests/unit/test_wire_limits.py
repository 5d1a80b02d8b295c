"""Caps on claimed lengths (wire spec §15)."""

from __future__ import annotations

import pytest

from mpmsgr.errors import ConfigError
from mpmsgr.wire.limits import MIB, Limits


def test_defaults() -> None:
    limits = Limits()
    assert (limits.max_front, limits.max_middle) == (16 * MIB, 16 * MIB)
    assert (limits.max_data, limits.max_authorizer) == (64 * MIB, 4096)


def test_caps_whose_sum_overflows_32_bits_are_refused() -> None:
    rest = 32 * MIB
    Limits(max_data=(1 << 32) - rest - 1)
    with pytest.raises(ConfigError, match="below 2\\^32") as caught:
        Limits(max_data=(1 << 32) - rest)
    assert caught.value.value == 1 << 32
