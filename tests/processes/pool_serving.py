"""`mpmsgr serve` as tests of the pool run it: its modules, its log, its processes."""

from __future__ import annotations

import os
import re
import select
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

import psutil

from tests.loopback import ANY_PORT
from tests.processes.marked import marked, with_argument
from tests.support import eventually

MARK = "MPMSGR_TEST_POOL"
READY = re.compile(r"^mpmsgr: ready on (\S+) \((\d+) workers\)$", re.MULTILINE)
DEADLINE_S = 20.0
IO, WORKER = "mpmsgr.messenger.io", "mpmsgr.pool.worker"


class Serve:
    """A server in a directory of its own; a context manager.

    modules: sources by name, written there; specs: what is served (all of *modules* by default);
    options: of the configuration file, as TOML text. Leaving the block stops the server and
    checks that it ended well and left nothing; after a failure it is killed.
    """

    def __init__(
        self,
        modules: dict[str, str] | None = None,
        *specs: str,
        workers: int = 2,
        toml: str = "",
        flags: tuple[str, ...] = (),
        bind: str = ANY_PORT,
        wait: bool = True,
    ) -> None:
        self._directory = tempfile.TemporaryDirectory(prefix="mp-", dir="/tmp")
        self.directory = Path(self._directory.name)
        self.run_dir = self.directory / "run"
        self.address = ""
        self.status: int | None = None
        for name, text in (modules or {}).items():
            (self.directory / f"{name}.py").write_text(textwrap.dedent(text))
        (self.directory / "mpmsgr.toml").write_text(textwrap.dedent(toml))
        self._specs = specs or tuple(modules or {})
        where = ("--bind", bind, "--run-dir", str(self.run_dir))
        self._flags = (*where, "--workers", str(workers), *flags)
        self._wait = wait
        self.process: subprocess.Popen[bytes]
        self._pidfd = -1

    # life

    def start(self) -> None:
        """Start it, again if it has ended, and wait for its line of readiness."""
        environ = {k: v for k, v in os.environ.items() if not k.startswith("MPMSGR_")}
        with (self.directory / "stderr").open("wb") as stderr:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "mpmsgr", "serve", *self._flags, *self._specs],
                stderr=stderr,
                cwd=self.directory,
                env={**environ, MARK: str(self.directory), "TMPDIR": str(self.directory)},
            )
        if self._pidfd >= 0:
            os.close(self._pidfd)
        self._pidfd = os.pidfd_open(self.process.pid)
        if self._wait:
            self.address = self.until(self._ready, "the line of readiness")

    def _ready(self) -> str:
        assert self.process.poll() is None, self.log
        found = READY.search(self.log)
        return found[1] if found else ""

    def __enter__(self) -> Serve:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        err: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if err is None and self.status is None:
                assert self.stop() == 0, self.log
            if err is None:
                assert self.children() == []
                assert not self.run_dir.exists()
            else:
                sys.stderr.write(self.log)
        finally:
            self.close()

    def signal(self, number: signal.Signals) -> None:
        """Send the supervisor a signal."""
        signal.pidfd_send_signal(self._pidfd, number)

    def wait(self, timeout_s: float = DEADLINE_S) -> int:
        """The supervisor's exit status."""
        readable, _, _ = select.select([self._pidfd], [], [], timeout_s)
        assert readable, f"still runs after {timeout_s} s: {self.log}"
        self.status = self.process.wait()
        return self.status

    def lasts(self, seconds: float) -> None:
        """Returns after *seconds* during which the supervisor did not end."""
        assert not select.select([self._pidfd], [], [], seconds)[0], self.log

    def stop(self) -> int:
        """Stop it as a service manager would; its exit status."""
        self.signal(signal.SIGTERM)
        return self.wait()

    def close(self) -> None:
        """Kill what is left."""
        if self._pidfd >= 0:
            self.process.kill()
            self.process.wait()
            os.close(self._pidfd)
            self._pidfd = -1
        for child in self.children():
            child.kill()
        self.until(lambda: not self.children(), "no children")
        self._directory.cleanup()

    # facts

    @property
    def log(self) -> str:
        """What all of its processes wrote to stderr."""
        return (self.directory / "stderr").read_text()

    def lines(self, *texts: str) -> list[str]:
        """The lines of the log that contain every one of *texts*."""
        return [line for line in self.log.splitlines() if all(text in line for text in texts)]

    def until(self, condition: Callable[[], Any], what: str, timeout_s: float = DEADLINE_S) -> Any:
        """The first true value of *condition*."""
        return eventually(condition, timeout_s, what)

    def children(self) -> list[psutil.Process]:
        """Its processes but the supervisor, whoever their parent is now; zombies are none."""
        return marked(MARK, str(self.directory), but=self.process.pid)

    def pids(self, module: str) -> list[int]:
        """Processes that run *module*: `IO` or `WORKER`."""
        return with_argument(module, self.children())

    def written(self, name: str) -> list[str]:
        """Lines a module has appended to a file in the server's directory."""
        try:
            return (self.directory / name).read_text().splitlines()
        except FileNotFoundError:
            return []


def kill(pid: int) -> float:
    """kill -9; returns when (monotonic seconds)."""
    os.kill(pid, signal.SIGKILL)
    return time.monotonic()
