"""Offsets within the memory of a worker slot."""

from __future__ import annotations

import pytest

from mpmsgr.pool import page
from mpmsgr.pool.layout import PAGE, SlotLayout


def test_the_parts_follow_each_other() -> None:
    layout = SlotLayout(ring_bytes=3 * PAGE, egress_bytes=10 * PAGE)
    parts = [
        (layout.page, page.SIZE),
        (layout.to_worker, layout.ring_bytes),
        (layout.to_io, layout.ring_bytes),
        (layout.egress, layout.egress_bytes),
    ]
    ends = [offset + length for offset, length in parts]
    assert [offset for offset, _ in parts] == [0, *ends[:-1]]
    assert layout.size == ends[-1]
    assert all(offset % PAGE == 0 for offset, _ in parts), "what mmap asks for"


@pytest.mark.parametrize("nbytes", [0, PAGE - 1, PAGE + 1, -PAGE])
def test_only_whole_pages(nbytes: int) -> None:
    with pytest.raises(ValueError, match="ring_bytes"):
        SlotLayout(nbytes, PAGE)
    with pytest.raises(ValueError, match="egress_bytes"):
        SlotLayout(PAGE, nbytes)
