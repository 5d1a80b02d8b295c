"""Ceph's crc: CRC-32C without inversion before or after (wire spec §9)."""

from __future__ import annotations

from crc32c import crc32c

__all__ = ["ALL_ONES", "Bytes", "crc32c", "raw_crc"]

#: What may hold bytes: anything with the buffer protocol that the crc library reads in place.
Bytes = bytes | bytearray | memoryview

#: Undoes the inversions of the standard function: ``crc32c(data, ALL_ONES) ^ ALL_ONES`` is
#: `raw_crc(data)` without a call, for the places where one per message counts.
ALL_ONES = 0xFFFFFFFF


def raw_crc(data: Bytes, seed: int = 0) -> int:
    """Return the raw CRC-32C (u32) of *data*, continuing from *seed* (0 on the wire)."""
    return crc32c(data, seed ^ ALL_ONES) ^ ALL_ONES
