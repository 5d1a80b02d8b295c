"""The counters page: its table, and what it says about items that have begun."""

from __future__ import annotations

import random
from dataclasses import fields

import pytest

from mpmsgr.config import Settings
from mpmsgr.config.kinds import Whole
from mpmsgr.dispatch.lanes import EXTRA
from mpmsgr.pool import page
from mpmsgr.pool.page import (
    BEGUN,
    CELLS,
    HANDLED,
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


def test_there_is_a_cell_for_all_that_a_worker_can_be_given(memory: memoryview) -> None:
    (kind,) = (f.metadata["option"].kind for f in fields(Settings) if f.name == "worker_credit")
    assert isinstance(kind, Whole)
    assert kind.high is not None
    assert 2 * kind.high + EXTRA <= STARTED_COUNT
    worker, reader = Page(memory), Page(memory)
    cells = [worker.begin_async(number) for number in range(1, STARTED_COUNT + 1)]
    assert sorted(cells) == list(range(STARTED, STARTED + STARTED_COUNT))
    assert reader.started() == list(range(1, STARTED_COUNT + 1))
    worker.end_async(worker.begin_async(6000))  # those of an earlier I/O process have them all
    assert reader.started() == list(range(1, STARTED_COUNT + 1))
    worker.end_async(cells.pop())
    worker.begin_async(5000)
    assert reader.started() == [*range(1, STARTED_COUNT), 5000]


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
    for number in range(1, STARTED_COUNT + 1):
        worker.begin_async(number)
    worker.cells[RUNNING] = worker.cells[HANDLED] = worker.cells[RECALL] = 3

    supervisor = Page(memory)
    supervisor.reset()
    assert not any(memory)
    assert supervisor.begin_async(1) == STARTED
    supervisor.reset()
    assert supervisor.begin_async(1) == STARTED
