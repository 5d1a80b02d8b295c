"""The commands of a user as processes of their own: what they print, how they end."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from mpmsgr.cli.exit_codes import ExitCode
from tests.processes.admin_asking import environment, mpmsgr
from tests.processes.pool_serving import Serve

MODULES = {
    "answers": """
        from mpmsgr import handles

        @handles(0x8001)
        def echo(con, m):
            con.send_message(m.reply(m.front, m.middle, bytes(m.data)))

        @handles(0x8002)
        def fails(con, m):
            raise RuntimeError("as it was told")

        @handles(0x8003)
        def silent(con, m):
            open(bytes(m.front), "w").close()

        @handles(0x8004)
        def wrong(con, m):
            con.send_message(m.reply(middle=b"not what was sent"))
    """
}


@pytest.fixture(scope="module")
def server() -> Iterator[Serve]:
    with Serve(MODULES, workers=1, flags=("--log-file", "log")) as server:
        yield server


@pytest.mark.parametrize(
    ("line", "code", "out", "err"),
    [
        ("ping ADDR", ExitCode.OK, "banner      ceph v027", ""),
        ("send ADDR 0x8001 front=hello", ExitCode.OK, "hello", ""),
        ("load ADDR --count 100 --clients 2 --type 0x8001", ExitCode.OK, "100", ""),
        ("load ADDR --count 1 --type 0x8004", ExitCode.FAILED, "corrupted", ""),
        ("send ADDR 0x8002", ExitCode.REMOTE_ERROR, "", "as it was told"),
        ("send ADDR 0x8003 front=a --timeout 0.2", ExitCode.TIMEOUT, "", "no reply from"),
        ("ping 127.0.0.1:1 --timeout 0.2", ExitCode.NO_CONNECTION, "", "Connection refused"),
        ("doctor", ExitCode.OK, "--workers auto", ""),
    ],
)
def test_commands(server: Serve, line: str, code: ExitCode, out: str, err: str) -> None:
    ran = mpmsgr(server, line.replace("ADDR", server.address), named=False)
    assert ran.returncode == code, ran.stderr
    assert out in ran.stdout
    assert err in ran.stderr
    assert bool(out) == bool(ran.stdout)


def test_the_log_is_opened_anew(server: Serve) -> None:
    log = server.directory / "log"
    log.rename(server.directory / "log.1")
    assert mpmsgr(server, "log reopen").stdout == f"log_file  {log}\n"
    server.until(log.exists, "a new one")


def test_ctrl_c(server: Serve) -> None:
    line = f"send {server.address} 0x8003 front=begun --timeout 60"
    with subprocess.Popen(
        [sys.executable, "-m", "mpmsgr", *line.split()],
        cwd=server.directory,
        env=environment(server.directory),
        stderr=subprocess.PIPE,
    ) as process:
        server.until((server.directory / "begun").exists, "it has asked")
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=30)
    assert (process.returncode, err) == (ExitCode.INTERRUPTED, b"\nmpmsgr send: interrupted\n")


def test_a_crash_loop_at_the_start() -> None:
    with Serve({"dies": "import os\nos._exit(1)\n"}, workers=1, wait=False) as server:
        assert server.wait() == ExitCode.CRASH_LOOP
        assert len(server.lines("mpmsgr: ", "died 3 times in a row")) == 1, server.log
