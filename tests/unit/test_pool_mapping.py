"""Views of a mapping: what they show, when the last one is gone, what they keep mapped."""

from __future__ import annotations

import array
import asyncio
import ctypes
import gc
import io
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mpmsgr.pool.mapping import Mapping

PAGE = 4096
SIZE = 16 * PAGE
NAME = "mpmsgr-test-mapping"


@pytest.fixture
def fd() -> Iterator[int]:
    """A memfd of SIZE bytes; each page is filled with its number."""
    fd = os.memfd_create(NAME)
    os.write(fd, b"".join(bytes([number]) * PAGE for number in range(SIZE // PAGE)))
    yield fd
    os.close(fd)


@pytest.fixture
def mapping(fd: int) -> Iterator[Mapping]:
    mapping = Mapping(fd, SIZE)
    yield mapping
    mapping.close()


def maps() -> int:
    """How many mappings of the test's memfd this process has."""
    return Path("/proc/self/maps").read_text().count(NAME)


def nobody(offset: int) -> None:
    """Waits for the end of a lease."""


# What is seen


def test_a_view_shows_the_bytes_of_the_file(mapping: Mapping) -> None:
    assert bytes(mapping.raw(2 * PAGE - 1, 3)) == b"\1\2\2"
    assert bytes(mapping.lease(3 * PAGE - 1, 2, nobody)) == b"\2\3"


def test_what_is_written_later_is_seen(fd: int, mapping: Mapping) -> None:
    view = mapping.raw(0, 4)
    os.pwrite(fd, b"news", 0)
    assert bytes(view) == b"news"


def test_writable_views_write_to_the_file(fd: int) -> None:
    mapping = Mapping(fd, SIZE, writable=True)
    mapping.raw(0, 2)[:] = b"ab"
    mapping.lease(PAGE, 2, nobody, writable=True)[:] = b"cd"
    assert os.pread(fd, 2, 0) + os.pread(fd, 2, PAGE) == b"abcd"


def test_a_section_starts_at_its_offset(fd: int) -> None:
    assert bytes(Mapping(fd, PAGE, offset=5 * PAGE).raw(0, 1)) == b"\5"


def test_views_are_bytes_to_index(mapping: Mapping) -> None:
    view = mapping.lease(PAGE, 3, nobody)
    assert (view.format, view.itemsize, view.ndim, view[0], len(view)) == ("B", 1, 1, 1, 3)


def test_leases_are_read_only_unless_asked(fd: int, mapping: Mapping) -> None:
    assert mapping.raw(0, 1).readonly
    assert mapping.lease(0, 1, nobody).readonly
    assert Mapping(fd, SIZE, writable=True).lease(0, 1, nobody).readonly
    with pytest.raises(ValueError, match="read-only"):
        mapping.lease(0, 1, nobody, writable=True)


@pytest.mark.parametrize(
    ("offset", "length"), [(-1, 1), (0, -1), (0, SIZE + 1), (SIZE, 1), (SIZE + 1, 0)]
)
def test_no_view_outside(mapping: Mapping, offset: int, length: int) -> None:
    with pytest.raises(ValueError, match=f"of a mapping of {SIZE}"):
        mapping.raw(offset, length)


def test_an_empty_view_at_the_end(mapping: Mapping) -> None:
    assert len(mapping.raw(SIZE, 0)) == 0


def test_a_read_only_descriptor_is_not_mapped_writable(fd: int) -> None:
    other = os.open(f"/proc/self/fd/{fd}", os.O_RDONLY)
    with pytest.raises(PermissionError):
        Mapping(other, SIZE, writable=True)
    assert bytes(Mapping(other, SIZE).raw(PAGE, 1)) == b"\1"
    os.close(other)


# When a lease ends


KEEPERS: dict[str, Callable[[memoryview], object]] = {
    "itself": lambda view: view,
    "slice": lambda view: view[100:200],
    "slice of a slice": lambda view: view[100:200][:10],
    "memoryview": lambda view: memoryview(view),
    "cast": lambda view: view.cast("Q"),
    "cast back": lambda view: view.cast("Q")[3:].cast("B"),
    "iterator": iter,
    "numpy": lambda view: np.frombuffer(view, dtype=np.uint32),
    "numpy slice": lambda view: np.frombuffer(view, dtype=np.uint8)[10:20:2],
    "numpy matrix": lambda view: np.asarray(view).reshape(64, 64).T,
    "view of numpy": lambda view: np.asarray(view).data[5:],
    "a method of it": lambda view: view.tobytes,
}
COPIERS: dict[str, Callable[[memoryview], object]] = {
    "bytes": bytes,
    "BytesIO": io.BytesIO,
    "array": lambda view: array.array("B", view),
    "from_buffer_copy": lambda view: (ctypes.c_ubyte * PAGE).from_buffer_copy(view),
    "numpy copy": lambda view: np.frombuffer(view, dtype=np.uint8).copy(),
}


@pytest.mark.parametrize("keep", KEEPERS.values(), ids=KEEPERS)
def test_whatever_looks_at_the_bytes_keeps_the_lease(
    mapping: Mapping, keep: Callable[[memoryview], object]
) -> None:
    ended: list[int] = []
    kept = [keep(mapping.lease(PAGE, PAGE, ended.append))]
    gc.collect()
    assert not ended
    kept.clear()
    assert ended == [PAGE]


@pytest.mark.parametrize("copy", COPIERS.values(), ids=COPIERS)
def test_a_copy_does_not(mapping: Mapping, copy: Callable[[memoryview], object]) -> None:
    ended: list[int] = []
    copied = copy(mapping.lease(PAGE, PAGE, ended.append))
    assert ended == [PAGE]
    assert copied is not None


def test_numpy_cannot_write_to_a_lease(mapping: Mapping) -> None:
    numbers = np.frombuffer(mapping.lease(PAGE, PAGE, nobody), dtype=np.uint8)
    assert numbers.sum() == PAGE
    with pytest.raises(ValueError, match="WRITEABLE"):
        numbers.flags.writeable = True


def test_releasing_the_view_ends_the_lease(mapping: Mapping) -> None:
    ended: list[int] = []
    view = mapping.lease(PAGE, PAGE, ended.append)
    part = view[1:]
    view.release()
    assert not ended
    part.release()
    assert ended == [PAGE]


def test_leases_of_one_offset_end_one_by_one(mapping: Mapping) -> None:
    ended: list[str] = []

    def note(name: str, offset: int) -> None:
        ended.append(name)

    views = [mapping.lease(0, 10, partial(note, name)) for name in "ab"]
    del views[0]
    assert ended == ["a"]
    del views[0]
    assert ended == ["a", "b"]


def test_a_lease_ends_in_the_thread_that_drops_it(mapping: Mapping) -> None:
    threads: list[int] = []
    views = [mapping.lease(0, 10, lambda offset: threads.append(threading.get_ident()))]
    thread = threading.Thread(target=views.clear)
    thread.start()
    thread.join()
    assert threads == [thread.ident]


def test_an_error_that_drops_the_view_goes_on_unchanged(mapping: Mapping) -> None:
    ended: list[int] = []

    def handler() -> None:
        view = mapping.lease(PAGE, 8, ended.append)
        raise LookupError(view[0])

    with pytest.raises(LookupError, match="1") as caught:
        handler()
    assert not ended, "the traceback refers to the frame, and that to the view"
    del caught
    assert ended == [PAGE]


# Views in garbage that only the collector can find


class Garbage:
    """Refers to itself; its finalizer looks at the view once more and gives it to *last*."""

    def __init__(self, view: memoryview, last: Callable[[memoryview], object]) -> None:
        self.me, self.view, self.last = self, view, last

    def __del__(self) -> None:
        self.last(self.view)


def test_a_finalizer_sees_the_view_before_the_lease_ends(mapping: Mapping) -> None:
    story: list[Any] = []
    Garbage(mapping.lease(PAGE, 8, story.append), lambda view: story.append(bytes(view)))
    assert not story
    gc.collect()
    assert story == [b"\1" * 8, PAGE]


def test_a_view_stored_away_by_a_finalizer_keeps_the_lease(mapping: Mapping) -> None:
    ended: list[int] = []
    stored: list[memoryview] = []
    Garbage(mapping.lease(PAGE, 8, ended.append), stored.append)
    gc.collect()
    gc.collect()
    assert (bytes(stored[0]), ended) == (b"\1" * 8, [])
    stored.clear()
    gc.collect()
    assert ended == [PAGE]


def test_a_coroutine_that_is_dropped_sees_the_view_to_its_end(mapping: Mapping) -> None:
    story: list[Any] = []

    async def handler() -> None:
        view = mapping.lease(PAGE, 8, story.append)
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            story.append(bytes(view))

    async def drop() -> None:
        task = handler()
        task.send(None)
        circle = [task]
        circle.append(circle)  # type: ignore[arg-type]

    asyncio.run(drop())
    gc.collect()
    assert story == [b"\1" * 8, PAGE]


def test_a_mapping_in_garbage_stays_mapped_for_finalizers(fd: int) -> None:
    seen: list[bytes] = []
    mapping = Mapping(fd, SIZE)
    garbage = Garbage(mapping.raw(PAGE, 2), lambda view: seen.append(bytes(view)))
    garbage.mapping = mapping  # type: ignore[attr-defined]
    del garbage, mapping
    gc.collect()
    assert (seen, maps()) == ([b"\1\1"], 0)


# How long the memory stays


def test_closing_without_views_unmaps(fd: int) -> None:
    mapping = Mapping(fd, SIZE)
    assert maps() == 1
    mapping.close()
    mapping.close()
    assert maps() == 0
    with pytest.raises(ValueError, match="closed"):
        mapping.raw(0, 1)


@pytest.mark.parametrize("kind", ["raw", "lease"])
def test_a_view_outlives_close(fd: int, kind: str) -> None:
    ended: list[int] = []
    mapping = Mapping(fd, SIZE)
    view = mapping.raw(PAGE, 2) if kind == "raw" else mapping.lease(PAGE, 2, ended.append)
    mapping.close()
    assert bytes(view) == b"\1\1"
    assert (maps(), ended) == (1, [])
    del view
    assert (maps(), ended) == (0, [] if kind == "raw" else [PAGE])


def test_a_view_outlives_the_mapping_nobody_closed(fd: int) -> None:
    view = Mapping(fd, SIZE).raw(PAGE, 2)
    gc.collect()
    assert bytes(view) == b"\1\1"
    del view
    assert maps() == 0


def test_what_cannot_be_mapped(fd: int) -> None:
    with pytest.raises(OSError, match="Invalid argument"):
        Mapping(fd, SIZE, offset=1)
    with pytest.raises(OSError, match="Bad file descriptor"):
        Mapping(-1, SIZE)


def test_the_interpreter_ends_quietly_with_views_alive() -> None:
    script = f"""if True:
        import os, weakref
        from mpmsgr.pool.mapping import Mapping
        fd = os.memfd_create("{NAME}")
        os.ftruncate(fd, 4096)
        mapping = Mapping(fd, 4096)
        view = mapping.lease(0, 10, print)
        circle = [mapping.lease(0, 10, print), mapping]
        circle.append(circle)
        del circle, mapping
    """
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, timeout=60)
    assert (run.returncode, run.stderr) == (0, b"")
