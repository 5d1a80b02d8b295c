"""A server under test: `mpmsgr serve` with its workers, as in production."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import psutil

from mpmsgr.config import DEFAULT_FILE, load_settings
from mpmsgr.config.settings import ENV_PREFIX
from mpmsgr.dispatch.payload import type_of
from mpmsgr.errors import ConfigError, ServiceError
from mpmsgr.testing.gate import GATE_ENV
from mpmsgr.testing.kill import Kill
from mpmsgr.testing.service import TIMEOUT_S, Service

#: Servers that run now, for whoever reports of tests.
RUNNING: list[Server] = []

_READY = re.compile(r"^mpmsgr: ready on (\S+) \(\d+ workers\)$", re.MULTILINE)
_START_S, _STOP_S = 30.0, 15.0
_POLL_S = 0.005
_GATE = "mpmsgr.testing.gate"


class Server(Service):
    """A running `mpmsgr serve`, made by `serve`. run_dir: its run directory, for the verbs."""

    def __init__(self, modules: Sequence[str], flags: Sequence[str], folder: Path) -> None:
        super().__init__()
        self.modules = tuple(modules)
        self._directory = tempfile.TemporaryDirectory(prefix="mp-test-")
        self._here = Path(self._directory.name)
        self.run_dir = self._here / "run"
        self._gates = self._here / "gates"
        self._gates.mkdir()
        self._log = self._here / "log"
        self._mark = 0
        try:
            self._process = self._started(flags, folder)
        except OSError:
            self._directory.cleanup()
            raise
        RUNNING.append(self)

    def _started(self, flags: Sequence[str], folder: Path) -> subprocess.Popen[bytes]:
        # The death that it is told of is that of the thread that starts it.
        is_main = threading.current_thread() is threading.main_thread()
        command = [sys.executable, "-m", "mpmsgr.testing", str(os.getpid() if is_main else 0)]
        command += ["serve", "--bind", "127.0.0.1:0", "--run-dir", str(self.run_dir), *flags]
        with self._log.open("wb") as log:
            return subprocess.Popen(
                [*command, _GATE, *self.modules],
                cwd=folder,
                env=self._environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def _environment(self) -> dict[str, str]:
        """Ours, but for settings; what the tests can import, the server can."""
        environ = {k: v for k, v in os.environ.items() if not k.startswith(ENV_PREFIX)}
        path = os.pathsep.join(os.path.abspath(entry) for entry in sys.path)
        return environ | {"PYTHONPATH": path, GATE_ENV: str(self._gates)}

    def wait_ready(self) -> None:
        """Return when it can answer. Raises ServiceError if it ends instead."""
        deadline = time.monotonic() + _START_S
        while not (ready := _READY.search(self.log)):
            status = self._process.poll()
            if status is not None:
                raise self._error(f"ended with exit status {status} before it was ready")
            if time.monotonic() > deadline:
                raise self._error(f"was not ready within {_START_S:g} s")
            time.sleep(_POLL_S)
        self.address = ready[1]

    @property
    def log(self) -> str:
        """What all of its processes wrote to stdout and stderr."""
        return self._log.read_text(errors="replace")

    @property
    def recent_log(self) -> str:
        """What they wrote since the latest `mark`."""
        return self.log[self._mark :]

    def mark(self) -> None:
        """A test begins."""
        self._mark = len(self.log)

    def kill_worker(self, *, during: int | type | None = None, timeout: float = TIMEOUT_S) -> Kill:
        """kill -9 for a worker: while it runs a message of type *during*, or at once.

        Returns at once: see `Mishap`. From now on messages of the type wait before their handlers,
        until the first of them has cost a worker its life; a handler that is running is met where
        it is. None: the worker that has handled most.
        """
        number = None if during is None else type_of(during)
        name = (
            during.__name__ if isinstance(during, type) else "" if number is None else hex(number)
        )
        kill = Kill(self.run_dir, self._gates, number, name, timeout)
        self._mishaps.append(kill)
        return kill

    def stop(self) -> None:
        """End it in order. Raises ServiceError unless its exit status is 0."""
        self._stack.close()
        self._process.terminate()
        try:
            status = self._process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            raise self._error(f"did not end within {_STOP_S:g} s") from None
        if status:
            raise self._error(f"ended with exit status {status}")

    def close(self) -> None:
        """End it at once, whatever it does, and leave nothing."""
        RUNNING.remove(self)
        self._stack.close()
        if self._process.poll() is None:
            children = psutil.Process(self._process.pid).children(recursive=True)
            self._process.kill()
            self._process.wait()
            psutil.wait_procs(children, timeout=_STOP_S)  # they end with their parent
        self._directory.cleanup()

    def _error(self, text: str) -> ServiceError:
        return ServiceError(str(self), text, self.log)

    def __str__(self) -> str:
        return f"mpmsgr serve {' '.join(self.modules)}"


@contextmanager
def serve(
    *modules: str,
    workers: int | None = None,
    flags: Sequence[str] = (),
    folder: Path | str = ".",
    config: Path | str | None = None,
) -> Iterator[Server]:
    """``with serve("shop.orders", workers=2) as service``: `mpmsgr serve`, ready for clients.

    It gets a port and a run directory of its own, and finds what the test can import. What is not
    said is as its configuration has it, *config* or the ``mpmsgr.toml`` in *folder*, where it runs;
    flags: further ones of `mpmsgr serve`. Raises ServiceError if it does not start or does not stop
    in order. If the block raises, it is killed, and its log written to stderr.
    """
    folder = Path(folder)
    said = [] if config is None else ["--config", str(Path(config).absolute())]
    said += [] if workers is None else ["--workers", str(workers)]
    server = Server(modules or _configured(config, folder), [*said, *flags], folder)
    try:
        server.wait_ready()
        with server.visit():
            yield server
        server.stop()
    except ServiceError:
        raise
    except BaseException:
        sys.stderr.write(server.log)
        raise
    finally:
        server.close()


def _configured(config: Path | str | None, folder: Path) -> list[str]:
    """The modules that the configuration names. Raises ConfigError."""
    file = None if config is None else Path(config).absolute()
    modules = load_settings({}, {}, file, auto_workers=lambda: 1, cwd=folder).modules
    if not modules:
        where = file or folder / DEFAULT_FILE
        raise ConfigError("modules", modules, f"must be said to serve(), or in {where}")
    return modules
