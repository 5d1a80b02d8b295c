"""The other end of the admin socket, for commands: blocking, with time-outs."""

from __future__ import annotations

import json
import socket
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from mpmsgr.admin.lines import SOCKET_NAME
from mpmsgr.errors import AdminError, NoServerError
from mpmsgr.supervisor.rundir import places

TIMEOUT_S = 5.0


class AdminClient:
    """A connection to the server of *run_dir*. Raises NoServerError where none runs."""

    def __init__(self, run_dir: Path, timeout_s: float = TIMEOUT_S) -> None:
        self.run_dir = run_dir
        self._timeout_s = timeout_s
        self._sock = _connect(run_dir)
        self._lines = self._sock.makefile("rb")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Hang up."""
        self._lines.close()
        self._sock.close()

    def call(self, verb: str, /, **args: Any) -> Any:
        """The answer to *verb*: a value, or all rows of a list.

        Raises AdminError: the server's refusal, or its silence.
        """
        self._deadline = time.monotonic() + self._timeout_s
        rows: list[Any] = []
        try:
            self._sock.settimeout(self._timeout_s)
            self._sock.sendall(json.dumps({"verb": verb, "args": args}).encode() + b"\n")
            while True:
                said = self._next()
                if "error" in said:
                    raise AdminError(said["error"], said["text"])
                if not said["more"]:
                    value = said["value"]
                    return rows + value if isinstance(value, list) else value
                rows += said["value"]
        except TimeoutError:
            text = f"the server in {self.run_dir} did not answer within {self._timeout_s:g} s"
            raise AdminError("silent", text) from None
        except OSError as exc:
            raise AdminError("gone", f"the server in {self.run_dir} hung up: {exc}") from None

    def _next(self) -> dict[str, Any]:
        left_s = self._deadline - time.monotonic()
        self._sock.settimeout(max(left_s, 0.001))
        line = self._lines.readline()
        if not line.endswith(b"\n"):
            raise AdminError("gone", f"the server in {self.run_dir} ended before it answered")
        said: dict[str, Any] = json.loads(line)
        return said

    def ask(self, verb: str, /, **args: Any) -> Any:
        """As `call`, but None where the server has no answer to that."""
        try:
            return self.call(verb, **args)
        except AdminError as exc:
            if exc.kind != "unavailable":
                raise
            return None


def worker_rows(client: AdminClient) -> list[dict[str, Any]]:
    """What the supervisor knows of each worker, and what the I/O process does, if it answers."""
    rows: list[dict[str, Any]] = client.call("workers")
    try:
        loads = client.ask("load") or []
    except AdminError:
        loads = []
    by_worker = {(load["slot"], load["generation"]): load for load in loads}
    return [row | by_worker.get((row["slot"], row["generation"]), {}) for row in rows]


def find_server() -> Path:
    """The run directory of the only server of this user that runs. Raises NoServerError."""
    found = [path for path in places() if _answers(path)]
    if len(found) == 1:
        return found[0]
    if not found:
        raise NoServerError("no server of this user runs; say --run-dir if it is elsewhere")
    listed = ", ".join(map(str, found))
    raise NoServerError(f"{len(found)} servers run, say which with --run-dir: {listed}")


def _answers(run_dir: Path) -> bool:
    try:
        _connect(run_dir).close()
    except NoServerError:
        return False
    return True


def _connect(run_dir: Path) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.settimeout(TIMEOUT_S)
        sock.connect(str(run_dir / SOCKET_NAME))
    except OSError as exc:
        sock.close()
        why = exc.strerror or exc
        raise NoServerError(f"no server runs in {run_dir}: {SOCKET_NAME}: {why}") from None
    return sock
