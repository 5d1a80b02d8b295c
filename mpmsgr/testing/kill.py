"""kill -9 for a worker, while it runs what the test says."""

from __future__ import annotations

import os
import select
import signal
import threading
from pathlib import Path
from typing import Any

from mpmsgr.admin.client import AdminClient, worker_rows
from mpmsgr.errors import MessengerError
from mpmsgr.testing.gate import gate
from mpmsgr.testing.mishap import Mishap

_POLL_S = 0.005
#: A server that does not answer within so many seconds is stuck.
_ANSWER_S = 10.0


class Kill(Mishap):
    """The death of one worker: slot, generation and pid, once it has happened.

    during: a message type. Its messages are held back before their handlers until a worker is
    found that runs one. None: the worker that has handled most is killed at once.
    """

    def __init__(
        self, run_dir: Path, gates: Path, during: int | None, name: str, timeout_s: float
    ) -> None:
        super().__init__(timeout_s)
        self.slot = self.generation = self.pid = 0
        self._run_dir, self._during, self._name = run_dir, during, name
        self._gate = gate(gates, during) if during is not None else None
        self._given_up = threading.Event()
        self._seen = ""
        if self._gate is not None:
            self._gate.touch()
        self._thread = threading.Thread(target=self._run, name="mpmsgr.testing.kill", daemon=True)
        self._thread.start()

    def why(self) -> str:
        """See `Mishap`."""
        return self._seen or "the server does not answer"

    def cancel(self) -> None:
        """See `Mishap`."""
        super().cancel()
        self._given_up.set()
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def _run(self) -> None:
        try:
            with AdminClient(self._run_dir, _ANSWER_S) as client:
                while not self._given_up.is_set() and not self._found(client):
                    self._given_up.wait(_POLL_S)
        except (MessengerError, OSError) as error:
            self._failed(error)
        finally:
            if self._gate is not None:
                self._gate.unlink(missing_ok=True)

    def _found(self, client: AdminClient) -> bool:
        rows = worker_rows(client)
        self._seen = _told(rows)
        victim = self._choose(rows)
        return victim is not None and self._kill(client, victim)

    def _choose(self, rows: list[dict[str, Any]]) -> dict[str, Any] | None:
        rows = [row for row in rows if row["pid"] is not None and "handled" in row]
        if self._during is not None:
            rows = [row for row in rows if self._during in _types(row)]
        return max(rows, key=lambda row: row["handled"], default=None)

    def _kill(self, client: AdminClient, victim: dict[str, Any]) -> bool:
        try:
            pidfd = os.pidfd_open(victim["pid"])
        except ProcessLookupError:
            return False
        try:
            # Only now is it sure that the pid stays this worker's: is it still?
            again = self._choose([row for row in worker_rows(client) if _is_same(row, victim)])
            if again is None:
                return False
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
            ended = select.poll()  # unlike select, for descriptors of any number
            ended.register(pidfd, select.POLLIN)
            ended.poll()
        finally:
            os.close(pidfd)
        self.slot, self.generation, self.pid = (
            victim[name] for name in ("slot", "generation", "pid")
        )
        self._done()
        return True

    def __repr__(self) -> str:
        return f"kill_worker({f'during={self._name}' if self._name else ''})"


def _types(row: dict[str, Any]) -> list[int]:
    return [item["type"] for item in row.get("running") or ()]


def _is_same(row: dict[str, Any], victim: dict[str, Any]) -> bool:
    return all(row[name] == victim[name] for name in ("slot", "generation", "pid"))


def _told(rows: list[dict[str, Any]]) -> str:
    """What the workers do, in a line."""
    running = {row["slot"]: [f"{type_:#x}" for type_ in _types(row)] for row in rows}
    told = (
        f"worker {slot} runs {', '.join(types) or 'nothing'}" for slot, types in running.items()
    )
    return ", ".join(told) or "there are no workers"
