"""`mpmsgr serve` as a child of a test."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from types import TracebackType

from tests.loopback import ANY_PORT
from tests.support import eventually

REPOSITORY = Path(__file__).resolve().parents[2]
READY = re.compile(r"^mpmsgr: ready on (\S+) \(2 workers\)$", re.MULTILINE)
START_S = STOP_S = 20.0


class Serving:
    """A server named *name* with two workers, on a free loopback port, in a context.

    *toml* is its configuration; *directory* takes that and what the server writes to stderr.
    """

    def __init__(self, directory: Path, name: str, *modules: str, toml: str = "") -> None:
        self.directory, self.name, self.modules, self.toml = directory, name, modules, toml
        self.address = ""
        self.process: subprocess.Popen[bytes]

    @property
    def log(self) -> str:
        """What it wrote to stderr."""
        return (self.directory / "stderr").read_text()

    def __enter__(self) -> Serving:
        """Start it and wait for its line of readiness."""
        config = self.directory / "mpmsgr.toml"
        config.write_text(self.toml)
        flags = ["-c", str(config), "--name", self.name, "--bind", ANY_PORT, "--workers", "2"]
        with (self.directory / "stderr").open("wb") as stderr:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "mpmsgr", "serve", *flags, *self.modules],
                stderr=stderr,
                cwd=REPOSITORY,
                env={k: v for k, v in os.environ.items() if not k.startswith("MPMSGR_")},
            )
        try:
            self.address = eventually(self._ready, START_S, "the line of readiness")
        except BaseException:
            self._end(signal.SIGKILL)
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        err: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop it as a service manager would; it must end well."""
        status = self._end(signal.SIGTERM)
        if err is None:
            assert status == 0, self.log

    def _ready(self) -> str:
        assert self.process.poll() is None, self.log
        found = READY.search(self.log)
        return found[1] if found else ""

    def _end(self, sign: signal.Signals) -> int:
        self.process.send_signal(sign)
        try:
            return self.process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise
