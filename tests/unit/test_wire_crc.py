"""Ceph's crc against the table of wire spec §9."""

from __future__ import annotations

import pytest

from mpmsgr.wire.crc import raw_crc


@pytest.mark.parametrize(
    ("data", "seed", "crc"),
    [
        (b"foo bar baz", 0, 4119623852),
        (b"foo bar baz", 1234, 881700046),
        (b"whiz bang boom", 0, 2360230088),
        (b"whiz bang boom", 5678, 3743019208),
        (b"\x01" * 5, 0, 2715569182),
        (b"\x01" * 35, 0, 440531800),
        (b"\x01" * 4096000, 0, 31583199),
        (b"123456789", 0, 0x58E3FA20),
        (b"123456789", 0xFFFFFFFF, 0x1CF96D7C),
        (b"", 0, 0),
        (b"", 1234, 1234),
    ],
    ids=lambda value: f"{len(value)}B" if isinstance(value, bytes) else f"{value:x}",
)
def test_table(data: bytes, seed: int, crc: int) -> None:
    assert raw_crc(data, seed) == crc


def test_standard_check_value() -> None:
    assert raw_crc(b"123456789", 0xFFFFFFFF) ^ 0xFFFFFFFF == 0xE3069283


def test_previous_result_is_the_seed_of_the_next_buffer() -> None:
    whole = b"whiz bang boom"
    for cut in range(len(whole) + 1):
        assert raw_crc(whole[cut:], raw_crc(whole[:cut], 5678)) == 3743019208


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_reads_any_buffer_in_place(kind: type[bytes | bytearray | memoryview]) -> None:
    assert raw_crc(kind(b"foo bar baz")) == 4119623852
