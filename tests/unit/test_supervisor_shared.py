"""What of the shared memory is whose, and what the supervisor reads in it."""

from __future__ import annotations

import fcntl
import mmap
import os
from collections.abc import Iterator

import pytest

from mpmsgr.config import Settings
from mpmsgr.errors import ConfigError
from mpmsgr.pool import page
from mpmsgr.pool.mapping import Mapping
from mpmsgr.supervisor import shared as shared_module
from mpmsgr.supervisor.child import Running
from mpmsgr.supervisor.shared import SharedMemory, close_all, open_shared

SIZES = {"arena_bytes": 8192, "ring_bytes": 4096, "worker_arena_bytes": 12288}
SETTINGS = Settings.from_dict({"workers": 2, **SIZES})
SLOT_BYTES = page.SIZE + 2 * 4096 + 12288


@pytest.fixture
def shared() -> Iterator[SharedMemory]:
    shared = open_shared(SETTINGS)
    yield shared
    shared.close()


def worker_page(shared: SharedMemory, slot: int) -> page.Page:
    """As the worker of *slot* has it."""
    mapping = Mapping(shared.slots[slot], page.SIZE, writable=True)
    return page.Page(mapping.raw(0, page.SIZE))


def test_it_is_there_for_every_slot_before_anybody_starts(shared: SharedMemory) -> None:
    assert list(shared.slots) == [0, 1]
    assert [os.fstat(fd).st_size for fd in shared.slots.values()] == [SLOT_BYTES] * 2
    assert [os.fstat(fd).st_blocks * 512 for fd in shared.slots.values()] == [SLOT_BYTES] * 2
    assert shared.arena == []
    assert shared.told == {"memory": SIZES}


def test_each_io_process_has_an_arena_of_its_own(shared: SharedMemory) -> None:
    first = shared.new_arena(1)
    old_reader = os.dup(shared.arena[0])
    os.pwrite(first[0], b"old", 0)
    second = shared.new_arena(2)
    os.pwrite(second[0], b"new", 0)
    assert os.pread(old_reader, 3, 0) == b"old", "for the workers that still look at it"
    assert os.pread(shared.arena[0], 3, 0) == b"new"
    assert os.fstat(shared.arena[0]).st_size == SIZES["arena_bytes"]
    close_all([*first, *second, old_reader])


def test_workers_cannot_write_to_the_arena(shared: SharedMemory) -> None:
    writable = shared.new_arena(1)
    (fd,) = shared.arena
    assert fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY
    with pytest.raises(PermissionError):
        mmap.mmap(fd, 4096)
    close_all(writable)


@pytest.mark.parametrize("settings", [Settings(workers=0), Settings(workers=2, arena_bytes=0)])
def test_there_may_be_none(settings: Settings) -> None:
    shared = open_shared(settings)
    assert (shared.slots, shared.new_arena(1), shared.arena, shared.told) == ({}, [], [], {})
    assert shared.take_started(0) == []
    assert not shared.add_slot(2)
    assert (shared.of_slot(0), shared.handled(0)) == ([], 0)
    shared.close()


def test_what_there_must_be_room_for(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    monkeypatch.setattr(shared_module, "check_limit", lambda total, field: asked.append(total))
    open_shared(SETTINGS).close()
    assert asked == [2 * 8192 + 2 * SLOT_BYTES], "with the next I/O process's arena"


def test_memory_that_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    before = len(os.listdir("/proc/self/fd"))
    made: list[int] = []

    def create(name: str, size: int) -> int:
        if made:
            raise OSError(12, "Cannot allocate memory")
        made.append(os.memfd_create(name))
        os.ftruncate(made[0], size)
        return made[0]

    monkeypatch.setattr(shared_module, "create", create)
    with pytest.raises(ConfigError, match=rf"= {2 * 8192 + 2 * SLOT_BYTES}: cannot be had: Cannot"):
        open_shared(SETTINGS)
    assert len(os.listdir("/proc/self/fd")) == before


def test_what_runs(shared: SharedMemory) -> None:
    assert shared.running(1) is None
    cells = worker_page(shared, 1).cells
    cells[page.TYPE], cells[page.RUNNING] = 0x8001, 7
    never = float("inf")
    assert shared.running(1) == Running(7, 0x8001, never, never, 0.0)
    cells[page.STARTED_NS] = 10_000_000_000
    cells[page.SOFT_NS], cells[page.HARD_NS] = 11_500_000_000, 12_250_000_000
    assert shared.running(1) == Running(7, 0x8001, 11.5, 12.25, 2.25)
    assert shared.running(0) is None


def test_what_a_dead_worker_had_begun_is_taken_once(shared: SharedMemory) -> None:
    worker = worker_page(shared, 1)
    worker.cells[page.RUNNING] = 9
    worker.begin_async(4)
    assert shared.take_started(0) == []
    assert shared.take_started(1) == [4, 9]
    assert shared.take_started(1) == []
    assert not any(worker.cells)


def test_a_slot_more(shared: SharedMemory, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    monkeypatch.setattr(shared_module, "check_limit", lambda total, field: asked.append(total))
    assert not shared.add_slot(1)
    assert shared.add_slot(3)
    assert not shared.add_slot(3)
    assert asked == [SLOT_BYTES]
    assert list(shared.slots) == [0, 1, 3]
    assert os.fstat(shared.of_slot(3)[0]).st_size == SLOT_BYTES
    worker_page(shared, 3).cells[page.RUNNING] = 7
    assert shared.take_started(3) == [7]


def test_a_slot_more_than_there_is_room_for(
    shared: SharedMemory, monkeypatch: pytest.MonkeyPatch
) -> None:
    def check_limit(total: int, field: str) -> None:
        raise ConfigError(field, total, "only 4096 bytes are left")

    monkeypatch.setattr(shared_module, "check_limit", check_limit)
    with pytest.raises(ConfigError, match=rf"ring_bytes = {SLOT_BYTES}: only 4096"):
        shared.add_slot(2)
    assert list(shared.slots) == [0, 1]


def test_how_much_a_worker_has_handled(shared: SharedMemory) -> None:
    worker_page(shared, 1).cells[page.HANDLED] = 9
    assert (shared.handled(0), shared.handled(1)) == (0, 9)
    shared.take_started(1)
    assert shared.handled(1) == 0, "its successor has handled nothing"
