"""Feature bits, negotiation masks and incarnations (wire spec §12)."""

from __future__ import annotations

import pytest

from mpmsgr.wire import features
from mpmsgr.wire.features import NAMES, feature_names, has_feature, sanitize

JEWEL = 0x07FFFFFFEFDFBFFF
LUMINOUS = 0x3FFDDFF8EEACFFFB
OCTOPUS = 0x3F01CFB8FFEDFFFF
PACIFIC_AS_SEEN = 0x3F01CFBDFFFDFFFF


@pytest.mark.parametrize(
    ("name", "mask"),
    [
        ("NOSRCADDR", 0x2),
        ("RECONNECT_SEQ", 0x40),
        ("MSG_AUTH", 0x800000),
        ("MSGR_KEEPALIVE2", 0x40000000000),
        ("MSG_ADDR2", 0x800000000000000),
        ("CEPHX_V2", 0x2000000000000000),
        ("SERVER_JEWEL", 0x200000000000000),
        ("SERVER_KRAKEN", 1 << 14 | 1 << 57),
        ("SERVER_LUMINOUS", 1 << 21 | 1 << 57),
        ("SERVER_MIMIC", 0x200000010000000),
        ("SERVER_NAUTILUS", 0x200000010000004),
        ("SERVER_OCTOPUS", 1 << 16 | 1 << 57 | 1 << 28),
        ("SERVER_PACIFIC", 1 << 20 | 1 << 57 | 1 << 28),
        ("SERVER_QUINCY", 1 << 33 | 1 << 57 | 1 << 28),
        ("SERVER_REEF", 1 << 31 | 1 << 57 | 1 << 28),
    ],
)
def test_masks(name: str, mask: int) -> None:
    assert NAMES[name] == mask


def test_sets() -> None:
    assert features.SUPPORTED == 0x40000800042
    assert features.CEPH_PACIFIC == PACIFIC_AS_SEEN


def test_a_recycled_bit_needs_its_incarnations_marker() -> None:
    kraken, nautilus = NAMES["SERVER_KRAKEN"], NAMES["SERVER_NAUTILUS"]
    assert not has_feature(1 << 14, kraken)
    assert not has_feature(1 << 57, kraken)
    assert has_feature(1 << 14 | 1 << 57, kraken)
    # a Luminous peer with bit 2 means the old feature of that bit: bit 28 is missing
    assert not has_feature(1 << 2 | 1 << 57, nautilus)
    assert not has_feature(1 << 2 | 1 << 28, nautilus)
    assert has_feature(1 << 2 | 1 << 28 | 1 << 57, nautilus)


@pytest.mark.parametrize(
    ("offered", "newest", "missing"),
    [
        (JEWEL, "SERVER_JEWEL", "SERVER_KRAKEN"),
        (LUMINOUS, "SERVER_LUMINOUS", "SERVER_MIMIC"),
        (OCTOPUS, "SERVER_OCTOPUS", "SERVER_PACIFIC"),
        (PACIFIC_AS_SEEN, "SERVER_PACIFIC", "SERVER_QUINCY"),
    ],
    ids=["jewel", "luminous", "octopus", "pacific"],
)
def test_releases_by_their_default_sets(offered: int, newest: str, missing: str) -> None:
    present = feature_names(offered)
    assert newest in present
    assert missing not in present
    assert {"NOSRCADDR", "RECONNECT_SEQ", "MSG_AUTH", "MSGR_KEEPALIVE2"} <= set(present)


def test_names_of_nothing_and_of_the_minimum() -> None:
    assert feature_names(0) == []
    assert feature_names(features.SUPPORTED) == [
        "NOSRCADDR",
        "RECONNECT_SEQ",
        "MSG_AUTH",
        "MSGR_KEEPALIVE2",
    ]


def test_bit_63_leaves_the_low_33_bits() -> None:
    assert sanitize(0xFFFFFFFFFFFFFFFF) == 0x1FFFFFFFF
    assert sanitize(PACIFIC_AS_SEEN) == PACIFIC_AS_SEEN
