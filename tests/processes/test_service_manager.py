"""Under a service manager: sockets it listens at, notes it is sent."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from mpmsgr import Message, sync
from mpmsgr.cli.exit_codes import ExitCode
from tests.loopback import ANY_PORT, HOST
from tests.support import eventually

DEADLINE_S = 20.0
PLUGIN = "from mpmsgr import handles\n@handles(0x8001)\ndef f(con, m):\n    return bytes(m.front)\n"
#: Execs into the server: a service manager tells the pid of the very process it starts.
STARTER = """
import os, sys
os.environ["LISTEN_PID"] = os.environ["WATCHDOG_PID"] = str(os.getpid())
for i, fd in enumerate(map(int, sys.argv[1].split(",") if sys.argv[1] else [])):
    os.dup2(fd, 3 + i, inheritable=True)
os.execv(sys.executable, [sys.executable, "-m", "mpmsgr", *sys.argv[2:]])
"""


class Manager:
    """A service manager with a socket for notes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.notes: list[str] = []
        self.address = str(folder / "notify")
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.sock.bind(self.address)
        self.sock.setblocking(False)
        (folder / "plain.py").write_text(PLUGIN)

    @contextmanager
    def started(
        self, *listeners: socket.socket, flags: str = "", **environ: str
    ) -> Iterator[subprocess.Popen[str]]:
        fds = [listener.fileno() for listener in listeners]
        serve = ["serve", "--run-dir", str(self.folder / "run"), "--workers", "1", *flags.split()]
        process = subprocess.Popen(
            [sys.executable, "-c", STARTER, ",".join(map(str, fds)), *serve, "plain"],
            pass_fds=fds,
            cwd=self.folder,
            stderr=subprocess.PIPE,
            text=True,
            env={
                **os.environ,
                "NOTIFY_SOCKET": self.address,
                "LISTEN_FDS": str(len(fds)),
                **environ,
            },
        )
        try:
            yield process
        finally:
            process.terminate()
            _, err = process.communicate(timeout=DEADLINE_S)
        assert process.returncode == 0, err

    def noted(self, note: str) -> bool:
        """Has *note* (a line of a note) come?"""
        try:
            while True:
                self.notes += self.sock.recv(4096).decode().splitlines()
        except BlockingIOError:
            return note in self.notes

    def wait(self, note: str) -> None:
        eventually(lambda: self.noted(note), DEADLINE_S, note)


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Manager]:
    manager = Manager(tmp_path)
    with manager.sock:
        yield manager


def test_readiness_and_the_stop_are_noted(manager: Manager) -> None:
    with manager.started(flags=f"--bind {ANY_PORT}") as process:
        manager.wait("READY=1")
        assert any(n.startswith(f"STATUS=serving at {HOST}:") for n in manager.notes)
        assert "STATUS=starting at nowhere yet, 0 of 1 workers ready" in manager.notes
        assert "STOPPING=1" not in manager.notes
        assert process.poll() is None
    manager.wait("STOPPING=1")
    assert manager.notes.count("READY=1") == manager.notes.count("STOPPING=1") == 1
    assert "WATCHDOG=1" not in manager.notes


def test_a_reload_is_noted_from_begin_to_end(manager: Manager) -> None:
    with manager.started(flags=f"--bind {ANY_PORT}") as process:
        manager.wait("READY=1")
        manager.notes.clear()
        process.send_signal(signal.SIGHUP)
        manager.wait("READY=1")
        said = [note.partition("=")[0] for note in manager.notes if "STATUS" not in note]
        assert said == ["RELOADING", "MONOTONIC_USEC", "READY"]


def test_a_reload_that_cannot_be_ends_at_once(manager: Manager) -> None:
    with manager.started(flags=f"--bind {ANY_PORT}") as process:
        manager.wait("READY=1")
        manager.notes.clear()
        (manager.folder / "mpmsgr.toml").write_text("workers = many")
        process.send_signal(signal.SIGHUP)
        manager.wait("READY=1")
        assert manager.notes[0] == "RELOADING=1"


def test_the_watchdog_is_fed_twice_as_often_as_it_wants(manager: Manager) -> None:
    with manager.started(flags=f"--bind {ANY_PORT}", WATCHDOG_USEC="1000000"):
        manager.wait("READY=1")
        began, fed = time.monotonic(), manager.notes.count("WATCHDOG=1")
        eventually(
            lambda: manager.noted("") or manager.notes.count("WATCHDOG=1") >= fed + 4, DEADLINE_S
        )
        assert time.monotonic() - began > 1.0, "not at every turn of the loop"


def test_a_watchdog_of_another_process(manager: Manager) -> None:
    with manager.started(flags=f"--bind {ANY_PORT}"):
        manager.wait("READY=1")
    assert "WATCHDOG=1" not in manager.notes


def test_a_socket_of_the_manager_serves_again_and_again(manager: Manager) -> None:
    # By number, as a unit file has it: a port the kernel chose is not that of a second listen().
    with socket.create_server((HOST, 0)) as free:
        address = free.getsockname()
    with socket.create_server(address) as listener:
        place = "{}:{}".format(*address)
        for _ in range(2):
            manager.notes.clear()
            with manager.started(listener):
                manager.wait("READY=1")
                with sync.connect(place, timeout=DEADLINE_S) as con:
                    assert con.request(Message(0x8001, b"x"), timeout=DEADLINE_S).front
            # Between two runs one may connect, and waits.
            socket.create_connection(address, timeout=5).close()


def test_children_know_nothing_of_the_manager(manager: Manager) -> None:
    (manager.folder / "plain.py").write_text(
        PLUGIN
        + "import os\n"
        + "told = [k for k in os.environ if k.startswith(('LISTEN_', 'NOTIFY_', 'WATCHDOG_'))]\n"
        + "open('told', 'w').write(' '.join(told))\n"
    )
    with manager.started(flags=f"--bind {ANY_PORT}"):
        manager.wait("READY=1")
    assert (manager.folder / "told").read_text() == ""


@pytest.mark.parametrize(
    ("kind", "why"),
    [
        ("file", "must be a socket"),
        ("unix", "must be a TCP socket that listens"),
        ("deaf", "must be a TCP socket that listens"),
        ("open", "is reachable from other hosts"),
    ],
)
def test_sockets_that_cannot_be_served(manager: Manager, kind: str, why: str) -> None:
    made: socket.socket | None = None
    if kind == "file":
        fd = os.open(os.devnull, os.O_RDONLY)
    else:
        made = socket.socket(socket.AF_UNIX if kind == "unix" else socket.AF_INET)
        if kind == "open":
            made = _everywhere(made)
        fd = made.fileno()
    try:
        ran = subprocess.run(
            [sys.executable, "-c", STARTER, str(fd), "serve", "plain"],
            pass_fds=[fd],
            cwd=manager.folder,
            capture_output=True,
            text=True,
            timeout=DEADLINE_S,
            env={**os.environ, "LISTEN_FDS": "1"},
        )
    finally:
        if made is not None:
            made.close()
        else:
            os.close(fd)
    assert (ran.returncode, why in ran.stderr) == (ExitCode.USAGE, True), ran.stderr


def _everywhere(sock: socket.socket) -> socket.socket:
    """Listens at every address, but for as long as the refusal takes."""
    sock.bind(("0.0.0.0", 0))
    sock.listen()
    return sock


def test_a_manager_that_is_gone_is_no_trouble(manager: Manager) -> None:
    with manager.started(flags=f"--bind {ANY_PORT}") as process:
        manager.wait("READY=1")
        os.unlink(manager.address)
        process.send_signal(signal.SIGTERM)
