"""serve: a server under test, its workers killed, its end, whatever happens to the test."""

from __future__ import annotations

import os
import select
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from mpmsgr import Message
from mpmsgr.dispatch.payload import unpack
from mpmsgr.errors import ServiceError
from mpmsgr.sync import SyncConnection
from mpmsgr.testing import Server, serve
from tests.support import eventually

COUNT, SLOW, NEVER = 0x8001, 0x8002, 0x9001
PLUGIN = """
import os, time
from pathlib import Path
from mpmsgr import handles

@handles(0x8001)
def count(con, m, state):
    state["sum"] = state.get("sum", 0) + 1
    return state["sum"], m.attempt, os.getpid()

@handles(0x8002)
def slow(con, m):
    path = Path(bytes(m.front).decode())
    with path.open("a") as begun:
        print(m.attempt, file=begun)
    while m.attempt == 1:
        time.sleep(0.01)
    return m.attempt
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("served")
    (folder / "plugin.py").write_text(PLUGIN)
    return folder


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[Server]:
    with serve("plugin", workers=2, folder=folder) as server:
        yield server


@pytest.fixture
def con(server: Server) -> Iterator[SyncConnection]:
    with server.visit():
        yield server.connect(timeout=30)


def count(con: SyncConnection) -> list[int]:
    """[sum of the session, attempt, pid of the worker]."""
    reply: list[int] = unpack(con.request(Message(COUNT), timeout=30))
    return reply


def test_a_worker_dies_during_the_quickest_handler(server: Server, con: SyncConnection) -> None:
    _, _, pid = count(con)
    with server.kill_worker(during=COUNT, timeout=30) as kill:
        total, attempt, other = count(con)
    assert (total, attempt) == (2, 2)
    assert kill.pid == pid != other
    assert not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    assert count(con)[:2] == [3, 1], "and nobody else"


def test_a_worker_dies_in_the_midst_of_a_handler(
    server: Server, con: SyncConnection, tmp_path: Path
) -> None:
    begun = tmp_path / "begun"
    reply = con.submit(Message(SLOW, bytes(begun)), timeout=30)
    eventually(begun.exists, 30)
    server.kill_worker(during=SLOW, timeout=30).wait()
    assert unpack(reply.result()) == 2
    assert begun.read_text() == "1\n2\n"


def test_the_busiest_worker_dies(server: Server, con: SyncConnection) -> None:
    pids = [count(con)[2] for _ in range(50)]
    kill = server.kill_worker(timeout=30)
    assert kill.wait().pid == max(pids, key=pids.count)
    assert count(con)[0] == 51


def test_nothing_of_the_type_runs(server: Server, con: SyncConnection) -> None:
    idle = "worker 0 runs nothing, worker 1 runs nothing"
    kill = server.kill_worker(during=NEVER, timeout=60)
    eventually(lambda: kill.why() == idle, 30, kill.why())
    assert count(con)[0] == 1, "others are not held"
    kill.cancel()
    told = r"^kill_worker\(during=0x9001\): not within 0 s, "
    with pytest.raises(AssertionError, match=told), server.kill_worker(during=NEVER, timeout=0):
        assert count(con)[0] == 2


def processes(server: Server) -> list[int]:
    """Pids of all."""
    pid = int((server.run_dir / "lock").read_text())
    return [pid, *(child.pid for child in psutil.Process(pid).children(recursive=True))]


def test_nothing_is_left_of_one_whose_test_fails(
    folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    def fail() -> None:
        with serve("plugin", workers=1, folder=folder) as server:
            pids.extend(processes(server))
            directories.append(server.run_dir.parent)
            raise ZeroDivisionError

    pids: list[int] = []
    directories: list[Path] = []
    with pytest.raises(ZeroDivisionError):
        fail()
    assert len(pids) == 3
    assert not [pid for pid in pids if psutil.pid_exists(pid)]
    assert not directories[0].exists()
    assert "mpmsgr: ready on" in capfd.readouterr().err


def test_one_that_does_not_end_in_order_fails(folder: Path, tmp_path: Path) -> None:
    begun = tmp_path / "begun"

    def leave() -> None:
        flags = ("--graceful-timeout", "0.1")
        with serve("plugin", workers=1, folder=folder, flags=flags) as server:
            server.connect().submit(Message(SLOW, bytes(begun)))
            eventually(begun.exists, 30)

    with pytest.raises(
        ServiceError, match=r"^mpmsgr serve plugin: ended with exit status 4; its log"
    ):
        leave()


def test_one_that_does_not_start(folder: Path) -> None:
    (folder / "wrong.py").write_text("7 / 0\n")
    with pytest.raises(ServiceError, match="exit status 3 before it was ready") as error:
        serve("wrong", workers=1, folder=folder).__enter__()
    assert error.value.what == "mpmsgr serve wrong"
    assert "7 / 0" in error.value.log


HOLDS = """
import sys
from mpmsgr.testing import serve
from tests.processes.test_testing_server import processes

with serve("plugin", workers=1, folder=sys.argv[1]) as server:
    print(*processes(server), server.run_dir.parent, flush=True)
    sys.stdin.read()
"""


def test_the_death_of_the_tests_is_its_end(folder: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLDS, str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as tests:
        assert tests.stdout is not None
        *pids, directory = tests.stdout.readline().split()
        fds = [os.pidfd_open(int(pid)) for pid in pids]
        tests.send_signal(signal.SIGKILL)
    try:
        for fd in fds:
            assert select.select([fd], [], [], 30)[0], "still runs"
    finally:
        for fd in fds:
            os.close(fd)
        shutil.rmtree(directory)  # files are all that is left
