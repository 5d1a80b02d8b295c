"""The counters page: its table, and what it says about items that have begun."""

from __future__ import annotations

import random

import pytest

from mpmsgr.pool import page
from mpmsgr.pool.page import (
    BEGUN,
    CELLS,
    HANDLED,
    OVERFLOW,
    RECALL,
    RUNNING,
    STARTED,
    STARTED_COUNT,
    Page,
)


@pytest.fixture
def memory() -> memoryview:
    return memoryview(bytearray(page.SIZE))


def test_the_table_gives_every_cell_its_own_place() -> None:
    taken = [cell.index for cell in CELLS] + list(range(STARTED + 1, STARTED + STARTED_COUNT))
    assert len(set(taken)) == len(taken)
    assert min(taken) >= 0
    assert max(taken) < page.SIZE // 8


def test_the_table_names_the_module_s_constants() -> None:
    assert all(getattr(page, cell.name) == cell.index for cell in CELLS)


def test_no_cache_line_has_two_writers() -> None:
    lines = {(cell.index // 8, cell.writer) for cell in CELLS}
    assert len({line for line, _ in lines}) == len(lines)


def test_another_process_reads_what_was_stored(memory: memoryview) -> None:
    Page(memory).cells[BEGUN] = 1 << 63
    assert Page(memory).cells[BEGUN] == 1 << 63
    assert memory[BEGUN * 8 + 7] == 0x80  # little-endian here; one cell, nothing beside it
    assert memory.tobytes().count(0) == page.SIZE - 1


def test_a_page_in_a_larger_memory() -> None:
    memory = memoryview(bytearray(3 * page.SIZE))
    assert len(Page(memory).cells) == page.SIZE // 8


def test_nothing_has_begun(memory: memoryview) -> None:
    assert Page(memory).started() == []


def test_started_are_running_and_asynchronous_items(memory: memoryview) -> None:
    worker, reader = Page(memory), Page(memory)
    cells = [worker.begin_async(number) for number in (9, 2, 5)]
    worker.cells[RUNNING] = 7
    assert reader.started() == [2, 5, 7, 9]
    worker.end_async(cells[1])
    worker.cells[RUNNING] = 9
    assert reader.started() == [5, 9]


def test_items_without_a_cell_are_counted_while_they_run(memory: memoryview) -> None:
    worker, reader = Page(memory), Page(memory)
    cells = [worker.begin_async(number) for number in range(1, STARTED_COUNT + 1)]
    assert sorted(cells) == list(range(STARTED, STARTED + STARTED_COUNT))
    assert [worker.begin_async(number) for number in (1000, 1001)] == [-1, -1]
    assert reader.cells[OVERFLOW] == 2
    assert reader.started() == list(range(1, STARTED_COUNT + 1))

    worker.end_async(cells.pop())
    worker.end_async(-1)
    assert reader.cells[OVERFLOW] == 1
    assert worker.begin_async(1002) >= STARTED
    assert 1002 in reader.started()


def test_any_order_of_ends(memory: memoryview) -> None:
    worker, random_ = Page(memory), random.Random(4)
    running: dict[int, int] = {}
    for number in range(1, 3000):
        if running and random_.random() < 0.5:
            worker.end_async(running.pop(random_.choice(list(running))))
        elif len(running) < STARTED_COUNT:
            running[number] = worker.begin_async(number)
        assert worker.started() == sorted(running)


def test_a_new_generation_starts_from_nothing(memory: memoryview) -> None:
    worker = Page(memory)
    for number in range(1, STARTED_COUNT + 3):
        worker.begin_async(number)
    worker.cells[RUNNING] = worker.cells[HANDLED] = worker.cells[RECALL] = 3

    supervisor = Page(memory)
    supervisor.reset()
    assert not any(memory)
    assert supervisor.begin_async(1) == STARTED
    supervisor.reset()
    assert supervisor.begin_async(1) == STARTED


def test_cells_hold_no_negative_number(memory: memoryview) -> None:
    with pytest.raises(ValueError, match="format 'Q'"):
        Page(memory).end_async(-1)
