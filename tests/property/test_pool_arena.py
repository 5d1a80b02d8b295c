"""The arena against a model of its pages: nothing overlaps, nothing is lost, free runs join."""

from __future__ import annotations

from itertools import groupby

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mpmsgr.pool.arena import PAGE, Arena

PAGES = 20

steps = st.lists(
    st.one_of(
        st.tuples(st.just("allocate"), st.integers(1, 5 * PAGE)),
        st.tuples(st.just("free"), st.integers(0, 100)),
        st.tuples(st.just("next generation"), st.just(0)),
    ),
    max_size=80,
)


class Model:
    """An arena, and for each of its pages the offset of the slot it belongs to, or None."""

    def __init__(self) -> None:
        self.arena = Arena(PAGES * PAGE)
        self.pages: list[int | None] = [None] * PAGES

    def free_runs(self) -> list[tuple[int, int]]:
        """(pages, first page), sorted."""
        runs, page = [], 0
        for owner, members in groupby(self.pages):
            length = len(list(members))
            if owner is None:
                runs.append((length, page))
            page += length
        return sorted(runs)

    def slots(self) -> list[tuple[int, int]]:
        """(offset, length), sorted."""
        owners = sorted({owner for owner in self.pages if owner is not None})
        return [(owner, self.pages.count(owner) * PAGE) for owner in owners]

    def step(self, kind: str, argument: int) -> None:
        if kind == "allocate":
            self.allocate(argument)
        elif kind == "free" and (slots := self.slots()):
            self.free(*slots[argument % len(slots)])
        elif kind == "next generation":
            self.arena = Arena(PAGES * PAGE, reversed(self.arena.occupied))
        self.check()

    def allocate(self, nbytes: int) -> None:
        pages = -(-nbytes // PAGE)
        fitting = [page for length, page in self.free_runs() if length >= pages]
        offset = self.arena.allocate(nbytes)
        if offset is None:
            assert not fitting
        else:
            assert offset == fitting[0] * PAGE, "the shortest that fits, the lowest of equals"
            first = offset // PAGE
            assert self.pages[first : first + pages] == [None] * pages
            self.pages[first : first + pages] = [offset] * pages

    def free(self, offset: int, length: int) -> None:
        assert self.arena.free(offset) == length
        self.pages = [None if owner == offset else owner for owner in self.pages]

    def check(self) -> None:
        arena, slots, runs = self.arena, self.slots(), self.free_runs()
        assert arena.occupied == slots
        assert arena.slots == len(slots)
        assert arena.used == sum(length for _, length in slots)
        assert arena.free_bytes + arena.used == arena.size
        assert arena.largest == (runs[-1][0] * PAGE if runs else 0)
        assert all(arena.length_of(offset) == length for offset, length in slots)


@given(steps)
def test_any_order_of_allocations_ends_and_generations(steps: list[tuple[str, int]]) -> None:
    model = Model()
    for step in steps:
        model.step(*step)
    for slot in model.slots():
        model.free(*slot)
        model.check()
    assert model.arena.allocate(PAGES * PAGE) == 0


@given(st.permutations(range(12)))
def test_everything_freed_is_one_run_again(order: list[int]) -> None:
    arena = Arena(12 * PAGE)
    offsets = [arena.allocate(PAGE) for _ in range(12)]
    assert arena.allocate(1) is None
    for index in order:
        offset = offsets[index]
        assert offset is not None
        arena.free(offset)
    assert (arena.largest, arena.used, arena.occupied) == (12 * PAGE, 0, [])


def test_a_slot_is_whole_pages() -> None:
    arena = Arena(8 * PAGE)
    assert [arena.allocate(1), arena.allocate(PAGE), arena.allocate(PAGE + 1)] == [
        0,
        PAGE,
        2 * PAGE,
    ]
    assert arena.occupied == [(0, PAGE), (PAGE, PAGE), (2 * PAGE, 2 * PAGE)]


def test_occupied_lengths_are_rounded_as_they_were_when_allocated() -> None:
    assert Arena(8 * PAGE, [(2 * PAGE, 5)]).occupied == [(2 * PAGE, PAGE)]


@pytest.mark.parametrize("offset", [0, PAGE, 2 * PAGE + 1, 3 * PAGE, -PAGE, 100 * PAGE])
def test_an_offset_without_a_slot(offset: int) -> None:
    arena = Arena(8 * PAGE, [(2 * PAGE, 2 * PAGE)])
    with pytest.raises(KeyError):
        arena.free(offset)
    with pytest.raises(KeyError):
        arena.length_of(offset)
    assert (arena.used, arena.largest) == (2 * PAGE, 4 * PAGE)


def test_a_slot_is_freed_once() -> None:
    arena = Arena(8 * PAGE)
    arena.allocate(PAGE)
    arena.free(0)
    with pytest.raises(KeyError):
        arena.free(0)
    assert arena.free_bytes == 8 * PAGE


@pytest.mark.parametrize(
    "occupied",
    [
        [(0, 2 * PAGE), (PAGE, PAGE)],
        [(0, PAGE), (0, PAGE)],
        [(1, PAGE)],
        [(-PAGE, PAGE)],
        [(0, 0)],
        [(7 * PAGE, PAGE + 1)],
        [(8 * PAGE, 1)],
    ],
)
def test_occupied_lists_that_cannot_be(occupied: list[tuple[int, int]]) -> None:
    with pytest.raises(ValueError, match="slot"):
        Arena(8 * PAGE, occupied)


@pytest.mark.parametrize("size", [0, -PAGE, PAGE - 1, PAGE + 1])
def test_sizes_that_cannot_be(size: int) -> None:
    with pytest.raises(ValueError, match="whole pages"):
        Arena(size)


@pytest.mark.parametrize("nbytes", [0, -1])
def test_nothing_is_not_allocated(nbytes: int) -> None:
    with pytest.raises(ValueError, match="a slot of"):
        Arena(PAGE).allocate(nbytes)
