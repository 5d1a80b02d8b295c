"""A worker's own arena: who may write, who looks, and when a slot is free again."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mpmsgr.pool.arena import PAGE
from mpmsgr.pool.egress import Egress, Range
from mpmsgr.pool.mapping import Mapping
from mpmsgr.supervisor.memory import create

SIZE = 16 * PAGE


@pytest.fixture
def fd() -> Iterator[int]:
    fd = create("test", SIZE)
    yield fd
    os.close(fd)


def opened(fd: int, *occupied: tuple[int, int]) -> Egress:
    """The arena of 16 pages; *occupied* by an earlier generation."""
    made = Egress(Mapping(fd, SIZE, writable=True))
    made.open(occupied)
    return made


def allocated(egress: Egress, nbytes: int) -> memoryview:
    view = egress.allocate(nbytes)
    assert view is not None
    return view


def stored(egress: Egress, data: bytes) -> memoryview:
    view = egress.store(data)
    assert view is not None
    return view


# views of its own


def test_a_slot_lives_as_long_as_a_view_of_it(fd: int) -> None:
    egress = opened(fd)
    view = allocated(egress, 5000)
    assert (len(view), view.readonly, egress.used) == (5000, False, 2 * PAGE)
    part = view[100:200]
    del view
    assert egress.used == 2 * PAGE
    del part
    assert egress.used == 0


def test_stored_bytes_are_a_copy_that_nobody_can_write_to(fd: int) -> None:
    egress = opened(fd)
    data = bytearray(b"abc" * 1000)
    view = stored(egress, data)  # type: ignore[arg-type]
    data[:3] = b"xyz"
    assert view.readonly
    assert bytes(view) == b"abc" * 1000


def test_without_room_there_is_no_view(fd: int) -> None:
    egress = opened(fd)
    views = [allocated(egress, 4 * PAGE) for _ in range(4)]
    assert egress.allocate(1) is None
    assert egress.store(b"x") is None
    del views[2]
    assert allocated(egress, 4 * PAGE)


# frozen


def test_what_is_frozen_can_be_written_to_no_more(fd: int) -> None:
    egress = opened(fd)
    view = allocated(egress, PAGE)
    view[:4] = b"data"
    frozen = egress.freeze(view)
    assert frozen is not None
    assert (memoryview(frozen).readonly, bytes(frozen[:4]), egress.used) == (True, b"data", PAGE)
    with pytest.raises(ValueError, match="released"):
        view[:4] = b"late"
    del view
    assert egress.used == PAGE
    del frozen
    assert egress.used == 0


def test_part_of_it_may_be_frozen(fd: int) -> None:
    egress = opened(fd)
    view = allocated(egress, PAGE)
    view[:8] = b"01234567"
    frozen = egress.freeze(view[2:6])
    assert bytes(frozen or b"") == b"2345"
    with pytest.raises(ValueError, match="released"):
        view[:4] = b"late"


@pytest.mark.parametrize("other", [np.asarray, lambda view: view[1:], memoryview])
def test_where_others_can_write_it_is_a_copy(fd: int, other: Any) -> None:
    egress = opened(fd)
    view = allocated(egress, PAGE)
    view[:] = b"1" * PAGE
    writes = memoryview(other(view))
    frozen = egress.freeze(view)
    assert frozen is not None
    writes[:2] = b"22"
    assert set(bytes(frozen)) == set(b"1")


def test_where_others_can_write_and_there_is_no_room_it_is_bytes(fd: int) -> None:
    egress = opened(fd)
    view = allocated(egress, SIZE)
    view[:] = b"1" * SIZE
    part = view[:10]
    frozen = egress.freeze(view)
    assert type(frozen) is bytes
    part[:2] = b"22"
    assert set(frozen) == set(b"1")


def test_what_is_frozen_stays_as_it_is_when_it_is_sent_again(fd: int) -> None:
    egress = opened(fd)
    view = allocated(egress, PAGE)
    view[:] = b"1" * PAGE
    for sent in (egress.freeze(view), stored(egress, b"2" * PAGE)):
        assert isinstance(sent, memoryview)
        assert egress.freeze(sent) is sent
        assert len(set(sent)) == 1


def test_what_lies_elsewhere_is_not_frozen(fd: int) -> None:
    egress = opened(fd)
    data = memoryview(bytearray(100))
    assert egress.freeze(data) is None
    data[:1] = b"x"
    assert egress.tell(data) is None


# what the I/O process is told


def test_a_slot_is_kept_for_the_io_process(fd: int) -> None:
    egress = opened(fd)
    view = stored(egress, b"x" * 5000)
    place = egress.tell(view[1000:2000])
    assert place == Range(1000, 1000, 0, 2 * PAGE)
    del view
    assert egress.used == 2 * PAGE
    egress.freed([place.slot])
    assert egress.used == 0


def test_it_says_once_for_each_time_it_was_told(fd: int) -> None:
    egress = opened(fd)
    view = stored(egress, b"x" * PAGE)
    for _ in range(3):
        assert egress.tell(view) == Range(0, PAGE, 0, PAGE)
    del view
    egress.freed([0, 0])
    assert egress.used == PAGE
    egress.freed([0])
    assert egress.used == 0
    egress.freed([0])
    egress.freed([PAGE])


def test_what_can_be_written_to_is_not_told(fd: int) -> None:
    egress = opened(fd)
    view = allocated(egress, PAGE)
    assert egress.tell(view) is None
    frozen = egress.freeze(view)
    assert egress.tell(frozen or b"") == Range(0, PAGE, 0, PAGE)


def test_empty_parts(fd: int) -> None:
    egress = opened(fd)
    view = stored(egress, b"x" * PAGE)
    assert egress.tell(view[:0]) in (None, Range(0, 0, 0, PAGE))
    assert egress.tell(b"") is None


# generations


def test_the_next_generation_starts_with_what_is_still_in_use(fd: int) -> None:
    before = opened(fd)
    places = [before.tell(stored(before, b"%d" % n * PAGE)) for n in range(4)]
    occupied = [(place.slot, place.slot_length) for place in places[1:3] if place is not None]
    egress = opened(fd, *occupied)
    assert egress.used == 2 * PAGE
    views = [stored(egress, b"new" * 1000) for _ in range(14)]
    assert egress.allocate(1) is None
    assert bytes(Mapping(fd, SIZE).raw(PAGE, 2 * PAGE)) == b"1" * PAGE + b"2" * PAGE
    egress.freed([PAGE])
    assert egress.used == SIZE - PAGE
    views.clear()
    egress.freed([2 * PAGE])
    assert egress.used == 0


def test_another_io_process_refers_to_nothing_of_what_the_earlier_one_did(fd: int) -> None:
    egress = opened(fd)
    told, kept = stored(egress, b"1" * PAGE), stored(egress, b"2" * PAGE)
    for view in (told, kept):
        egress.tell(view)
    del told, view
    egress.open([])
    assert egress.used == PAGE, "what a handler still looks at"
    assert bytes(kept) == b"2" * PAGE
    egress.tell(kept)
    del kept
    egress.freed([PAGE])
    assert egress.used == 0


# any order

_STEPS = st.lists(
    st.tuples(
        st.sampled_from(["allocate", "store", "freeze", "tell", "free", "drop"]),
        st.integers(0, 9),
        st.integers(1, 3 * PAGE),
    ),
    max_size=40,
)


@settings(max_examples=150)
@given(_STEPS)
def test_nothing_overlaps_and_nothing_is_lost(steps: list[tuple[str, int, int]]) -> None:
    fd = create("test", SIZE)
    try:
        egress, reader = opened(fd), Mapping(fd, SIZE)
        views: list[tuple[Any, bytes]] = []
        told: list[tuple[Range, bytes]] = []
        for number, (step, which, nbytes) in enumerate(steps):
            mark = bytes([number + 1])
            if step == "allocate" and (view := egress.allocate(nbytes)) is not None:
                view[:] = mark * nbytes
                views.append((view, mark))
            elif step == "store" and (view := egress.store(mark * nbytes)) is not None:
                views.append((view, mark))
            elif step == "freeze" and views:
                view, its = views.pop(which % len(views))
                frozen = egress.freeze(view) if not view.readonly else view
                assert frozen is not None
                views.append((frozen, its))
            elif step == "tell" and views:
                view, its = views[which % len(views)]
                place = egress.tell(view) if type(view) is memoryview else None
                if place is not None:
                    told.append((place, its))
            elif step == "free" and told:
                place, _ = told.pop(which % len(told))
                egress.freed([place.slot])
            elif step == "drop" and views:
                del views[which % len(views)]
            view = None
            assert all(set(bytes(one)) == set(its) for one, its in views)
            for place, its in told:
                assert set(reader.raw(place.offset, place.length)) == set(its)
        for place, _ in told:
            egress.freed([place.slot])
        views.clear()
        view = frozen = None
        assert egress.used == 0
    finally:
        os.close(fd)
