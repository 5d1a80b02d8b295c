"""The pytest plugin of mpmsgr: fixtures for tests of plugins (docs/testing.md).

Every run of pytest loads it where mpmsgr is installed: it imports nothing of mpmsgr, and does
nothing, before a test asks for one of its fixtures.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from mpmsgr.testing import LocalService, Server, VirtualService

_CONFIG = "mpmsgr.toml"


@pytest.fixture(scope="module")
def _mpmsgr_server(request: pytest.FixtureRequest) -> Iterator[Server]:
    from mpmsgr.testing import serve

    folder = _project(request)
    if folder is None:
        pytest.fail(
            f"mpmsgr_service serves what {_CONFIG} says, and there is none in"
            f" {request.path.parent} or above it; mpmsgr_serve('MODULE') needs none",
            pytrace=False,
        )
    with serve(folder=folder) as server:
        yield server


@pytest.fixture
def mpmsgr_service(_mpmsgr_server: Server) -> Iterator[Server]:
    """The server of the nearest mpmsgr.toml, with its workers; one for the tests of a module.

    Its clients end with the test.
    """
    with _mpmsgr_server.visit():
        yield _mpmsgr_server


@pytest.fixture
def mpmsgr_serve(request: pytest.FixtureRequest) -> Iterator[Callable[..., Server]]:
    """`mpmsgr.testing.serve` to be called: servers with workers, which end with the test."""
    from mpmsgr.testing import serve

    with ExitStack() as stack:
        folder = _folder(request)
        yield lambda *args, **kwargs: stack.enter_context(
            serve(*args, **{"folder": folder, **kwargs})
        )


@pytest.fixture
def mpmsgr_serve_local(request: pytest.FixtureRequest) -> Iterator[Callable[..., LocalService]]:
    """`mpmsgr.testing.serve_local` to be called: services in this process, until the test ends."""
    from mpmsgr.testing import serve_local

    with ExitStack() as stack:
        folder = _folder(request)
        yield lambda *args, **kwargs: stack.enter_context(
            serve_local(*args, **{"folder": folder, **kwargs})
        )


@pytest.fixture
def mpmsgr_serve_virtual(request: pytest.FixtureRequest) -> Iterator[Callable[..., VirtualService]]:
    """`mpmsgr.testing.serve_virtual` to be called: the same, with a clock of the test's."""
    from mpmsgr.testing import serve_virtual

    with ExitStack() as stack:
        folder = _folder(request)
        yield lambda *args, **kwargs: stack.enter_context(
            serve_virtual(*args, **{"folder": folder, **kwargs})
        )


def _project(request: pytest.FixtureRequest) -> Path | None:
    """The nearest folder with a configuration, from the test's up to the root of the run."""
    folder = request.path.parent
    for place in (folder, *folder.parents):
        if (place / _CONFIG).exists():
            return place
        if place == request.config.rootpath:
            break
    return None


def _folder(request: pytest.FixtureRequest) -> Path:
    return _project(request) or request.path.parent


# logs of servers, where a test fails


def _running() -> list[Server]:
    module = sys.modules.get("mpmsgr.testing.server")
    return [] if module is None else list(module.RUNNING)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """A test begins: what servers wrote before is not its."""
    for server in _running():
        server.mark()


@pytest.hookimpl(hookwrapper=True)  # what pytest before 8 knows: it loads us as well
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, Any, None]:
    """A failed test shows what servers wrote meanwhile."""
    report = (yield).get_result()
    if report.failed:
        for server in _running():
            report.sections.append((f"Log of {server}", server.recent_log))
