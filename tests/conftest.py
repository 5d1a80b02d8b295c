"""For every test: nothing may be left behind; turns; Hypothesis without deadlines and files."""

from __future__ import annotations

import gc
import os
import sys
import tempfile
import time
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import configuration, settings

from mpmsgr.dispatch import payload
from tests.leaks import snapshot, tasks_left_by_runs
from tests.turns import Turns

configuration.set_hypothesis_home_dir(os.path.join(tempfile.gettempdir(), "mpmsgr-hypothesis"))
settings.register_profile("default", deadline=None, database=None)
settings.register_profile("ci", settings.get_profile("default"), derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "default")

_PASSED = pytest.StashKey[bool]()
_TURNS = pytest.StashKey[Turns]()
_FOLDER = pytest.StashKey[tempfile.TemporaryDirectory[str]]()
#: What ends by itself right after a test (a child being reaped, a thread on its way out) may do so.
_GRACE_S = 2.0


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Where the processes of pytest-xdist, one of which is *node*, take turns."""
    stash = node.config.stash
    if _FOLDER not in stash:
        stash[_FOLDER] = tempfile.TemporaryDirectory(prefix="mpmsgr-turns-")
        node.config.add_cleanup(stash[_FOLDER].cleanup)
    node.workerinput["turns"] = stash[_FOLDER].name


def pytest_configure(config: pytest.Config) -> None:
    """Take turns, if we are one of those."""
    if folder := getattr(config, "workerinput", {}).get("turns"):
        config.stash[_TURNS] = Turns(Path(folder))
        config.add_cleanup(config.stash[_TURNS].close)


def pytest_collection_finish() -> None:
    """What thousands of tests consist of is garbage to nobody: `gc.collect` need not look at it.

    In the unit layer it took 150 ms at the end of a test that needs it, a third of all.
    """
    gc.collect()
    gc.freeze()


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Fixtures of the test belong to its turn; waiting for it is not part of its timeout."""
    turns = item.config.stash.get(_TURNS, None)
    if turns is None:
        return (yield)
    with turns.turn(alone=item.get_closest_marker("alone") is not None):
        return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Remember whether the test's body passed: a failed one need not clean up as well."""
    report = yield
    if report.when == "call":
        item.stash[_PASSED] = report.passed
    return report


@pytest.fixture(scope="session", autouse=True)
def _uvloop_is_warm() -> None:
    # libuv opens a signal pipe with its first loop and keeps it.
    if sys.platform == "linux":
        import uvloop

        uvloop.new_event_loop().close()


@pytest.fixture(autouse=True)
def _nothing_is_left_behind(request: pytest.FixtureRequest) -> Iterator[None]:
    if sys.platform != "linux":
        yield
        return
    before = snapshot()
    with tasks_left_by_runs() as tasks:
        yield
    if not request.node.stash.get(_PASSED, False):
        return
    if tasks:
        pytest.fail("unfinished when asyncio.run ended:\n" + "\n".join(tasks), pytrace=False)
    if snapshot() - before:
        gc.collect()
        _wait_for_stragglers(before)


@pytest.fixture(autouse=True)
def _message_classes_end_with_their_test() -> Iterator[None]:
    """A class that a test registered for a type would decode the messages of the next ones."""
    before = dict(payload._classes)
    yield
    payload._classes.clear()
    payload._classes.update(before)


def _wait_for_stragglers(before: frozenset[str]) -> None:
    deadline = time.monotonic() + _GRACE_S
    while left := snapshot() - before:
        if time.monotonic() > deadline:
            pytest.fail("left behind:\n" + "\n".join(sorted(left)), pytrace=False)
        time.sleep(0.005)
