"""The supervisor with the real I/O process and real workers."""

from __future__ import annotations

import asyncio
import re
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from mpmsgr import ConnectError, Message, Messenger, connect, sync
from mpmsgr.messenger.connection import MessengerConnection
from mpmsgr.supervisor import ExitCode
from tests.processes.supervisor_harness import Running, until

ECHO = 0x8001
PLUGINS = {
    "echoes": """
        from mpmsgr import handles
        @handles(0x8001)
        def echo(con, m):
            con.send_message(m.reply(front=m.front))
    """,
    # One call into C that holds the GIL for longer than any test lasts.
    "spins": """
        import re
        from mpmsgr import handles
        @handles(0x8001)
        def spin(con, m):
            re.match(r"(a+)+$", "a" * 60 + "b")
    """,
    "queue": "raise RuntimeError('a module of this name is in the current directory')",
}


@pytest.fixture
def app_dir(tmp_path: Path) -> str:
    """A directory with the plugins."""
    for name, text in PLUGINS.items():
        lines = text.strip("\n").splitlines()
        indent = len(lines[0]) - len(lines[0].lstrip())
        (tmp_path / f"{name}.py").write_text("\n".join(line[indent:] for line in lines))
    return str(tmp_path)


@pytest.fixture
def server(app_dir: str, request: pytest.FixtureRequest) -> Iterator[Running]:
    """Serves the plugins named by the parameter."""
    running = Running.real(request.param, app_dir=app_dir, cwd=app_dir, log_level="warning")
    yield running
    running.close()


def processes(running: Running, module: str) -> list[int]:
    return [child.pid for child in running.children_with(module)]


def echo(address: tuple[str, int], text: bytes) -> bytes:
    with sync.connect("{}:{}".format(*address), timeout=10.0) as con:
        return bytes(con.request(Message(ECHO, text), timeout=10.0).front)


@pytest.mark.parametrize("server", ["echoes"], indirect=True)
def test_it_serves_through_deaths_and_stops_cleanly(server: Running) -> None:
    address = server.wait_ready()
    assert echo(address, b"one") == b"one"
    (io,) = processes(server, "mpmsgr.messenger.io")
    server.kill_child(io)
    assert echo(address, b"two") == b"two"
    before = processes(server, "mpmsgr.pool.worker")
    server.kill_child(before[0])
    until(
        lambda: len(set(processes(server, "mpmsgr.pool.worker")) - set(before)) == 1,
        "a new worker",
    )
    assert echo(address, b"three") == b"three"
    assert server.stop() == ExitCode.CLEAN
    assert server.children() == []
    assert not server.run_dir.exists()


@pytest.mark.parametrize("server", ["spins"], indirect=True)
def test_a_worker_inside_c_does_not_outlive_a_killed_supervisor(server: Running) -> None:
    address = server.wait_ready()
    with sync.connect("{}:{}".format(*address), timeout=10.0) as con:
        con.send_message(Message(ECHO, b""))
        until(lambda: any(child.cpu_times().user > 1.0 for child in server.children()), "it spins")
        server.signal(signal.SIGKILL)
        server.wait()
        until(lambda: not server.children(), "nobody is left", 2.0)


@pytest.mark.parametrize("server", ["spins"], indirect=True)
def test_quit_shows_where_a_worker_is_stuck(server: Running) -> None:
    address = server.wait_ready()
    with sync.connect("{}:{}".format(*address), timeout=10.0) as con:
        con.send_message(Message(ECHO, b""))
        until(lambda: any(child.cpu_times().user > 1.0 for child in server.children()), "it spins")
        server.signal(signal.SIGQUIT)
        assert server.wait() == ExitCode.UNFINISHED
    assert any(re.search(r'spins.py", line \d+ in spin$', line) for line in server.lines)
    assert server.children() == []


@pytest.mark.parametrize("server", ["echoes"], indirect=True)
def test_a_lame_duck_serves_who_is_there(server: Running) -> None:
    address = server.wait_ready()
    asyncio.run(lame_duck(server, "{}:{}".format(*address)))
    assert server.stop() == ExitCode.CLEAN


async def lame_duck(server: Running, address: str) -> None:
    """A session that loses its connection comes back, nobody else gets in."""
    async with Messenger("client.?") as messenger:
        con = messenger.get_connection(address)
        assert isinstance(con, MessengerConnection)
        assert (await con.request(Message(ECHO, b"one"), timeout=10.0)).front == b"one"
        server.signal(signal.SIGUSR2)
        await asyncio.to_thread(server.wait_line, "nobody is let in any more")
        await is_refused(address)
        before = con.session.connect_seq
        assert con.session.pipe is not None
        messenger.endpoint.lost(con.session.pipe, "cut", messenger.now())
        messenger.driver.run()
        assert (await con.request(Message(ECHO, b"two"), timeout=10.0)).front == b"two"
        assert con.session.connect_seq > before
        (io,) = processes(server, "mpmsgr.messenger.io")
        server.kill_child(io)
        server.wait_line("I/O process (incarnation 1) ended")
        server.until(lambda: processes(server, "mpmsgr.messenger.io"), "a new one")
        await is_refused(address)


async def is_refused(address: str) -> None:
    """A new session is not to be had. The server may learn that it is a lame duck meanwhile."""
    deadline = time.monotonic() + 20.0
    while time.monotonic() < deadline:
        try:
            async with connect(address, timeout=0.5):
                pass
        except (ConnectError, TimeoutError):
            return
    raise AssertionError("it still lets people in")


@pytest.mark.parametrize("server", ["nowhere"], indirect=True)
def test_a_module_that_is_not_there(server: Running) -> None:
    assert server.wait() == ExitCode.PLUGIN
    assert "nowhere" in server.said[0]
    assert server.children() == []


@pytest.mark.parametrize("server", ["echoes"], indirect=True)
def test_a_stop_refuses_connections_and_says_nothing(server: Running) -> None:
    address = server.wait_ready()
    assert server.stop() == ExitCode.CLEAN
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(address, timeout=5.0)
    assert len(server.lines) == 1, "the ready line alone"


def test_log_files_are_opened_anew_by_everybody(app_dir: str, tmp_path: Path) -> None:
    file, old = tmp_path / "log", tmp_path / "log.1"
    more = {"app_dir": app_dir, "cwd": app_dir, "log_file": str(file), "log_level": "debug"}
    running = Running.real("echoes", **more)
    try:
        running.wait_ready()
        worker = processes(running, "mpmsgr.pool.worker")[0]
        until(lambda: str(file) in open_files(worker), "it writes there")
        file.rename(old)
        running.signal(signal.SIGUSR1)
        everybody = [running.process.pid, *(child.pid for child in running.children())]
        until(lambda: all(str(file) in open_files(pid) for pid in everybody), "the new file")
        assert not [pid for pid in everybody if str(old) in open_files(pid)]
        assert running.stop() == ExitCode.CLEAN
    finally:
        running.close()


def open_files(pid: int) -> list[str]:
    return [file.path for file in psutil.Process(pid).open_files()]


def test_a_syntax_error_leaves_the_old_workers_at_work(app_dir: str) -> None:
    plugin = Path(app_dir, "echoes.py")
    good = plugin.read_text()
    more = {"app_dir": app_dir, "cwd": app_dir, "workers": 1, "reload": True}
    running = Running.real("echoes", **more)
    try:
        address = running.wait_ready()
        with sync.connect("{}:{}".format(*address), timeout=10.0) as con:
            plugin.write_text(good + "\nand now nonsense\n")
            line = running.wait_line("the reload is given up, the workers from before it stay: ")
            assert "SyntaxError" in line
            assert con.request(Message(ECHO, b"one"), timeout=10.0).front == b"one"
        until(lambda: len(processes(running, "mpmsgr.pool.worker")) == 1, "the old one alone")
        assert running.stop() == ExitCode.CLEAN
    finally:
        running.close()


def test_a_corrected_plugin_heals_a_crash_loop_under_a_living_session(app_dir: str) -> None:
    plugin = Path(app_dir, "echoes.py")
    good = plugin.read_text()
    running = Running.real("echoes", app_dir=app_dir, cwd=app_dir, workers=1)
    try:
        address = running.wait_ready()
        with sync.connect("{}:{}".format(*address), timeout=10.0) as con:
            plugin.write_text("import nowhere\n")
            running.kill_child(processes(running, "mpmsgr.pool.worker")[0])
            running.wait_line("died 5 times in a row")
            plugin.write_text(good)
            running.signal(signal.SIGHUP)
            running.wait_line("reloaded, 1 workers")
            assert con.request(Message(ECHO, b"one"), timeout=10.0).front == b"one"
        assert len(running.said) == 1, "it was never started anew"
        assert running.stop() == ExitCode.CLEAN
    finally:
        running.close()
