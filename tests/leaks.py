"""What a test could leave behind in its process, from descriptors to tasks."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

_SELF = Path("/proc/self")
#: What asyncio.run (and uvloop.run) call at their end.
_cancel_all_tasks: Any = vars(asyncio.runners)["_cancel_all_tasks"]


def snapshot() -> frozenset[str]:
    """Everything of this process that a test could forget, one line of text each."""
    return frozenset((*_descriptors(), *_children(), *_threads(), *_memfd_maps()))


def _descriptors() -> Iterator[str]:
    for number in os.listdir(_SELF / "fd"):
        try:
            yield f"descriptor {number}: {os.readlink(_SELF / 'fd' / number)}"
        except FileNotFoundError:  # the descriptor of the listing itself
            continue


def _children() -> Iterator[str]:
    for thread in os.listdir(_SELF / "task"):
        try:
            pids = (_SELF / "task" / thread / "children").read_text().split()
        except (FileNotFoundError, ProcessLookupError):  # the thread has just ended
            continue
        yield from (f"child process {pid}" for pid in pids)


def _threads() -> Iterator[str]:
    # Python's only: the pool of libuv's own threads stays for good once it was used.
    for thread in threading.enumerate():
        yield f"thread {thread.ident}: {thread.name}"


def _memfd_maps() -> Iterator[str]:
    with open(_SELF / "maps") as lines:
        yield from (f"map {line.rstrip()}" for line in lines if "/memfd:" in line)


@contextmanager
def tasks_left_by_runs() -> Iterator[list[str]]:
    """A list that fills with the tasks `asyncio.run` finds unfinished when its main coroutine ends.

    `asyncio.run` would cancel them without a word.
    """
    left: list[str] = []

    def note_and_cancel(loop: asyncio.AbstractEventLoop) -> None:
        left.extend(
            f"task {task.get_name()}: {task.get_coro()}" for task in asyncio.all_tasks(loop)
        )
        _cancel_all_tasks(loop)

    with patch.object(asyncio.runners, "_cancel_all_tasks", note_and_cancel):
        yield left
