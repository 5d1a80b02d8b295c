"""A running `mpmsgr serve`, as the benchmarks and the demo use it."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import IO

import psutil

REPOSITORY = Path(__file__).resolve().parent.parent

_READY = "mpmsgr: ready on "
_IO, _WORKER = "mpmsgr.messenger.io", "mpmsgr.pool.worker"
_STOP_TIMEOUT_S = 45.0


class Server:
    """The supervisor and its children, on a free port of the loopback.

    *toml* is the text of its configuration file. *checkout* is another copy of this repository
    whose code and virtual environment to run. A context manager: leaving stops it.
    """

    def __init__(
        self, *modules: str, workers: int, toml: str = "", checkout: Path | None = None
    ) -> None:
        python = python_of(checkout) if checkout else Path(sys.executable)
        directory = checkout or REPOSITORY
        self._directory = tempfile.TemporaryDirectory(prefix="mpmsgr-")
        settings = Path(self._directory.name, "mpmsgr.toml")
        settings.write_text(toml)
        self._process = subprocess.Popen(
            [
                *(str(python), "-m", "mpmsgr", "serve", "-c", str(settings)),
                *("--bind", "127.0.0.1:0", "--workers", str(workers)),
                *("--app-dir", str(directory), "--log-level", "warning", *modules),
            ],
            stderr=subprocess.PIPE,
            text=True,
            cwd=directory,
        )
        assert self._process.stderr is not None
        self.address = _ready_address(self._process.stderr)
        self._log = threading.Thread(target=_pass_on, args=(self._process.stderr,), daemon=True)
        self._log.start()

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.stop()

    def io_pid(self) -> int:
        """The I/O process."""
        return self._children(_IO)[0]

    def worker_pids(self) -> list[int]:
        """The workers that exist now."""
        return self._children(_WORKER)

    def family(self) -> list[psutil.Process]:
        """The supervisor and all that came from it."""
        parent = psutil.Process(self._process.pid)
        return [parent, *parent.children(recursive=True)]

    def stop(self) -> int:
        """Stop it as a service manager would and return its exit status; idempotent."""
        if self._process.returncode is None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(_STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._log.join()
            assert self._process.stderr is not None
            self._process.stderr.close()
            self._directory.cleanup()
        return self._process.returncode

    def _children(self, module: str) -> list[int]:
        return [process.pid for process in self.family()[1:] if module in _command(process)]


def python_of(checkout: Path) -> Path:
    """The interpreter of a checkout's .venv, which must have the checkout's own mpmsgr in it.

    A server's children see what is installed and not where they run. Raises RuntimeError.
    """
    python = checkout / ".venv/bin/python"
    if not python.exists():
        raise RuntimeError(f"{python} is not there: run `make venv` in {checkout}")
    tell = [str(python), "-P", "-c", "import mpmsgr; print(mpmsgr.__file__)"]
    found = subprocess.run(tell, capture_output=True, text=True).stdout
    if not Path(found).is_relative_to(checkout.resolve()):
        raise RuntimeError(f"{python} does not run what is in {checkout}: run `make venv` there")
    return python


def kill(pid: int) -> None:
    """kill -9, if it is still there."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def _command(process: psutil.Process) -> list[str]:
    try:
        command: list[str] = process.cmdline()
    except psutil.Error:
        return []
    return command


def _ready_address(stderr: IO[str]) -> str:
    """HOST:PORT from the line the server writes when it can answer."""
    for line in stderr:
        if line.startswith(_READY):
            return line.removeprefix(_READY).split()[0]
        sys.stderr.write(line)
    raise RuntimeError("the server ended before it was ready")


def _pass_on(lines: Iterable[str]) -> None:
    for line in lines:
        sys.stderr.write(line)
