"""The operator's verbs against a running server."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from mpmsgr import Message, SessionReset, sync
from mpmsgr.cli.exit_codes import ExitCode
from tests.loopback import ANY_PORT
from tests.processes.admin_asking import ask, environment, mpmsgr, refused
from tests.processes.pool_serving import IO, WORKER, Serve, kill

ECHO = 0x8001
MODULES = {
    "echoes": """
        import logging
        from mpmsgr import handles

        @handles(0x8001)
        def echo(con, m):
            logging.getLogger("echoes").debug("an echo")
            con.send_message(m.reply(front=m.front))
    """
}


@pytest.fixture(scope="module")
def server() -> Iterator[Serve]:
    """One server for the verbs that leave it as it is."""
    with Serve(MODULES) as server:
        yield server


def test_status(server: Serve) -> None:
    said = ask(server, "status")
    assert said["state"] == "serving"
    assert said["addresses"] == [server.address]
    assert said["pid"] == server.process.pid
    assert [said["io"]["pid"]] == server.pids(IO)
    assert said["workers"] == {"wanted": 2, "ready": 2, "starting": 0, "absent": 0}
    assert said["sessions"] == {}
    assert mpmsgr(server, "status").stdout.startswith("state             serving\n")


def test_workers(server: Serve) -> None:
    rows = ask(server, "workers")
    assert sorted(row["pid"] for row in rows) == server.pids(WORKER)
    assert {(row["slot"], row["generation"], row["phase"]) for row in rows} == {
        (0, 1, "ready"),
        (1, 1, "ready"),
    }
    assert all(row["rss_bytes"] > 1 << 20 for row in rows)


def test_sessions_and_kick(server: Serve) -> None:
    with sync.connect(server.address, timeout=10) as con:
        con.request(Message(ECHO, b"x"), timeout=10)
        (row,) = ask(server, "sessions --sort traffic --limit 5 --tcp")
        assert (row["in_seq"], row["out_seq"], row["state"]) == (1, 1, "open")
        assert row["tcp"]["received_bytes"] > 0
        assert str(row["id"]) in mpmsgr(server, "sessions").stdout
        assert ask(server, f"kick {row['id']}")["peer"] == row["peer"]
        with pytest.raises(SessionReset):
            con.request(Message(ECHO, b"x"), timeout=10)
    assert "there is no session 7" in refused(server, "kick 7")


def test_perf_dump(server: Serve) -> None:
    said = ask(server, "perf dump")
    assert said["supervisor"]["starts_total"] == {"io": 1, "worker": 2}
    assert said["messenger"]["hostile_total"] == 0


def test_settings_and_where_they_came_from(server: Serve) -> None:
    rows = {row["name"]: row for row in ask(server, "config show")}
    assert (rows["workers"]["value"], rows["workers"]["origin"]) == (2, "--workers")
    assert (rows["idle_timeout_s"]["value"], rows["idle_timeout_s"]["origin"]) == (900.0, "default")
    assert [r["name"] for r in ask(server, "config diff")] == [
        "bind",
        "workers",
        "run_dir",
        "modules",
    ]
    assert mpmsgr(server, "config get workers").stdout == "2\n"
    assert (rows["workers"]["change"], rows["log_level"]["change"]) == ("reload", "set")
    assert "takes a restart" in refused(server, "config set bind 127.0.0.1:1")
    assert "CPU 4095 is none of ours: " in refused(server, "config set cpu_affinity 4095")
    ran = mpmsgr(server, "config get wrokers")
    assert (ran.returncode, "nearest known name is workers" in ran.stderr) == (2, True)


def test_the_log_level_reaches_every_process() -> None:
    with Serve(MODULES) as server:
        with sync.connect(server.address, timeout=10) as con:
            con.request(Message(ECHO, b"x"), timeout=10)
            assert not server.lines("an echo")
            assert ask(server, "log level debug")["value"] == "debug"
            con.request(Message(ECHO, b"x"), timeout=10)
            server.until(lambda: server.lines("DEBUG worker", "an echo"), "the worker's line")
        rows = {row["name"]: row for row in ask(server, "config show")}
        assert (rows["log_level"]["value"], rows["log_level"]["origin"]) == (
            "debug",
            "set at run time",
        )
        # The next generation starts with it.
        kill(server.pids(WORKER)[0])
        server.until(lambda: len(server.pids(WORKER)) == 2, "a new worker")
        with sync.connect(server.address, timeout=10) as con:
            con.request(Message(ECHO, b"x"), timeout=10)


def test_a_reload_is_told_of() -> None:
    toml = "idle_timeout_s = 800\nmax_messages = 0\n"
    with Serve(MODULES, toml=toml) as server:
        before = server.pids(WORKER)
        toml = "idle_timeout_s = 700\nmax_messages = 9\ndispatch_bytes = '2MiB'\n"
        (server.directory / "mpmsgr.toml").write_text(toml)
        assert ask(server, "config set max_messages 5")["value"] == 5
        assert ask(server, "config set dispatch_bytes 1MiB")["value"] == 1 << 20
        assert bound(server) == 1 << 20, "the I/O process has it at once"
        assert ask(server, "config set handshake_timeout_s 0.1")["value"] == 0.1
        wait_until_it_hangs_up(server)
        assert setting(server, "max_messages")["origin"] == "set at run time"
        assert ask(server, "reload")["restart_needed"] == ["idle_timeout_s"]
        server.until(lambda: ask(server, "status")["state"] == "serving", "all are renewed")
        assert not set(before) & set(server.pids(WORKER))
        row = setting(server, "max_messages")
        assert (row["value"], row["origin"]) == (9, "mpmsgr.toml: max_messages")
        assert bound(server) == 2 << 20
        (server.directory / "mpmsgr.toml").write_text("workers = many\n")
        assert "must be TOML" in refused(server, "reload")
        assert "must be TOML" in ask(server, "status")["reload_error"]


def test_scale() -> None:
    with Serve(MODULES) as server:
        assert ask(server, "scale 3") == {"workers": 3, "before": 2}
        server.until(lambda: len(server.pids(WORKER)) == 3, "one more")
        assert ask(server, "scale 1") == {"workers": 1, "before": 3}
        server.until(lambda: len(ask(server, "workers")) == 1, "two less")


def test_a_lame_duck_lets_nobody_in() -> None:
    with Serve(MODULES) as server, sync.connect(server.address, timeout=10) as con:
        assert ask(server, "drain --lame-duck") == {"asked": "lame duck"}
        server.until(lambda: mpmsgr(server, "health").returncode == 1, "not ready")
        assert "[-]lets peers in failed: a lame duck" in mpmsgr(server, "health").stdout
        con.request(Message(ECHO, b"x"), timeout=10)


def wait_until_it_hangs_up(server: Serve) -> None:
    """On a peer that never shakes hands, long before the default."""
    host, _, port = server.address.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=5) as sock:
        while sock.recv(4096):
            pass


def bound(server: Serve) -> int:
    """Of messages in work, in bytes."""
    (throttle,) = ask(server, "throttles")
    most: int = throttle["max"]
    return most


def setting(server: Serve, name: str) -> dict[str, Any]:
    (row,) = [row for row in ask(server, "config show") if row["name"] == name]
    assert isinstance(row, dict)
    return row


def test_drain_stops_it() -> None:
    server = Serve(MODULES)
    with server:
        assert ask(server, "drain") == {"asked": "drain"}
        assert server.wait() == 0


def test_a_stopped_io_process_leaves_the_rest_answering() -> None:
    with Serve(MODULES) as server:
        (pid,) = server.pids(IO)
        os.kill(pid, signal.SIGSTOP)
        try:
            said = ask(server, "status --timeout 0.5")
            assert (said["state"], said["sessions"]) == ("serving", None)
            ran = mpmsgr(server, "sessions --timeout 0.5")
            assert "did not answer within 0.5 s" in ran.stderr
        finally:
            os.kill(pid, signal.SIGCONT)
        assert ask(server, "sessions") == []


def test_an_io_process_that_dies_owes_no_answer() -> None:
    with Serve(MODULES) as server:
        (pid,) = server.pids(IO)
        os.kill(pid, signal.SIGSTOP)
        with socket.socket(socket.AF_UNIX) as sock, sock.makefile("rb") as lines:
            sock.connect(str(server.run_dir / "admin.sock"))
            sock.settimeout(10)
            sock.sendall(b'{"verb":"sessions"}\n{"verb":"status"}\n')
            kill(pid)
            assert json.loads(lines.readline())["error"] == "unavailable"
            assert json.loads(lines.readline())["value"]["pid"] == server.process.pid
        server.until(lambda: mpmsgr(server, "sessions").returncode == 0, "a new I/O process")


def test_top(server: Serve) -> None:
    with sync.connect(server.address, timeout=10) as con:
        con.request(Message(ECHO, b"x"), timeout=10)
        ran = mpmsgr(server, "top --once --interval 0.1 --svg top.svg")
    assert ran.returncode == 0, ran.stderr
    svg = (server.directory / "top.svg").read_text()
    assert all(text in svg for text in ("svc.0", "Processes", "Busiest", "429496729"))


def test_top_without_rich_says_what_to_install(server: Serve) -> None:
    (server.directory / "rich.py").write_text("raise ImportError('not installed')")
    ran = mpmsgr(server, "top --once", PYTHONPATH=str(server.directory))
    assert (ran.returncode, "pip install 'mpmsgr[top]'" in ran.stderr) == (ExitCode.USAGE, True)


def test_health(server: Serve) -> None:
    assert ask(server, "health")["ok"] is True
    assert mpmsgr(server, "health").stdout.endswith("healthz check passed\n")


def test_garbage_and_silence_do_not_stop_the_service(server: Serve) -> None:
    path = str(server.run_dir / "admin.sock")
    socks = [socket.socket(socket.AF_UNIX) for _ in range(40)]
    try:
        for i, sock in enumerate(socks):
            sock.connect(path)
            if i % 2:
                sock.sendall(os.urandom(2000))
        with sync.connect(server.address, timeout=10) as con:
            con.request(Message(ECHO, b"x"), timeout=10)
        assert ask(server, "status")["state"] == "serving"
    finally:
        for sock in socks:
            sock.close()


# which server

#: `mpmsgr`, but for the servers in /tmp: there may be some that are not ours.
MPMSGR_HERE = """
from pathlib import Path
from mpmsgr.admin import client
from mpmsgr.cli.main import main

everywhere = client.places
client.places = lambda: [path for path in everywhere() if path.parent == Path.cwd()]
main()
"""


@pytest.fixture
def folder() -> Iterator[Path]:
    """With a short name: there are sockets in its directories."""
    with tempfile.TemporaryDirectory(prefix="mp-", dir="/tmp") as name:
        yield Path(name)


def test_the_only_server_needs_no_name(folder: Path) -> None:
    ran = run_in(folder, "status")
    assert ran.returncode == ExitCode.NO_CONNECTION
    assert "no server of this user runs; say --run-dir" in ran.stderr
    with unnamed(folder) as one:
        assert run_in(folder, "status").returncode == 0
        with unnamed(folder) as other:
            ran = run_in(folder, "status")
            assert ran.returncode == ExitCode.NO_CONNECTION
            assert "2 servers run, say which with --run-dir" in ran.stderr
            found = list(folder.glob("mpmsgr-*"))
            assert len(found) == 2
            assert all(str(path) in ran.stderr for path in found)
            stop(other)
        stop(one)


def test_the_configured_server(server: Serve) -> None:
    (server.directory / "mine.toml").write_text(f'run_dir = "{server.run_dir}"\n')
    ran = mpmsgr(server, "status -c mine.toml", named=False)
    assert (ran.returncode, str(server.run_dir) in ran.stdout) == (0, True)


def test_a_run_dir_without_server(tmp_path: Path) -> None:
    ran = run_in(tmp_path, f"status --run-dir {tmp_path}")
    assert ran.returncode == ExitCode.NO_CONNECTION
    assert f"no server runs in {tmp_path}" in ran.stderr


def run_in(folder: Path, line: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", MPMSGR_HERE, *line.split()],
        capture_output=True,
        text=True,
        cwd=folder,
        timeout=30,
        env=environment(folder),
    )


def unnamed(folder: Path) -> subprocess.Popen[str]:
    """A server that has made its own run directory, ready."""
    (folder / "nothing.py").write_text(
        "from mpmsgr import handles\n@handles(0x8001)\ndef f(c, m): ...\n"
    )
    serve = f"serve --bind {ANY_PORT} --workers 0 nothing"
    process = subprocess.Popen(
        [sys.executable, "-m", "mpmsgr", *serve.split()],
        cwd=folder,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(folder),
    )
    assert process.stderr is not None
    line = process.stderr.readline()
    assert "ready on" in line, line
    return process


def stop(process: subprocess.Popen[str]) -> None:
    psutil.Process(process.pid).terminate()
    process.communicate(timeout=30)
    assert process.returncode == 0
