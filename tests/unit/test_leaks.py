"""The leak checks notice what they are for; waiting has a deadline."""

from __future__ import annotations

import asyncio
import mmap
import os
import subprocess
import sys
import threading

import pytest

from tests.leaks import snapshot, tasks_left_by_runs
from tests.support import eventually, eventually_async


def test_descriptors_and_maps() -> None:
    before = snapshot()
    fd = os.memfd_create("leak")
    os.ftruncate(fd, 4096)
    mapped = mmap.mmap(fd, 4096)
    left = snapshot() - before
    assert sum(line.startswith(f"descriptor {fd}: /memfd:leak") for line in left) == 1
    assert sum(line.startswith("map ") for line in left) == 1
    mapped.close()
    os.close(fd)
    assert not snapshot() - before


def test_children_and_threads() -> None:
    before, done = snapshot(), threading.Event()
    thread = threading.Thread(target=done.wait, name="leak")
    thread.start()
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        left = snapshot() - before
        assert f"child process {child.pid}" in left
        assert f"thread {thread.ident}: leak" in left
        child.kill()
    done.set()
    thread.join()
    assert not snapshot() - before


def test_tasks() -> None:
    async def main() -> None:
        task = asyncio.create_task(asyncio.sleep(60), name="leak")
        await asyncio.sleep(0)
        assert not task.done()

    with tasks_left_by_runs() as left:
        asyncio.run(main())
    assert [line.partition(":")[0] for line in left] == ["task leak"]


def test_eventually_returns_the_first_true_value() -> None:
    values = iter([0, None, "", "found"])
    assert eventually(lambda: next(values)) == "found"


def test_eventually_names_what_did_not_happen() -> None:
    with pytest.raises(AssertionError, match=r"not within 0.01 s: rain, last 0"):
        eventually(lambda: 0, timeout=0.01, what="rain")


def test_eventually_async_lets_the_loop_run() -> None:
    async def main() -> None:
        done = asyncio.Event()
        asyncio.get_running_loop().call_soon(done.set)
        assert await eventually_async(done.is_set)
        with pytest.raises(AssertionError, match="rain"):
            await eventually_async(lambda: False, timeout=0.01, what="rain")

    asyncio.run(main())
