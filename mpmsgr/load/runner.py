"""One load run over several processes: start them, let them go together, merge what they found."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any, NoReturn

from mpmsgr.errors import ConnectError, MessengerError
from mpmsgr.load.plan import LoadPlan
from mpmsgr.load.report import LoadReport
from mpmsgr.supervisor.spawn import child_environment

# -P: modules in the current directory that are named like ours are not ours.
_COMMAND = (sys.executable, "-P", "-m", "mpmsgr.load.process")


@dataclass(frozen=True)
class Progress:
    """How far a run is; handed to the progress callback about four times a second."""

    elapsed_s: float
    fraction: float
    """Part of the count or duration that is done, 0 to 1."""
    sent: int
    answered: int
    errors: int
    """Error replies among the answered."""


class Interrupted(KeyboardInterrupt):
    """Ctrl-C: no more requests were sent, the replies to the others are in *report*."""

    def __init__(self, report: LoadReport) -> None:
        super().__init__()
        self.report = report


def run(plan: LoadPlan, progress: Callable[[Progress], None] | None = None) -> LoadReport:
    """Run *plan*, blocking, and return what was found.

    The clients live in processes of their own, all connected before the first request leaves.
    Raises ConnectError if not every client gets a session within `plan.connect_timeout_s`,
    MessengerError if a load process ends without its report, and Interrupted after the first
    Ctrl-C while requests are sent; a second one does not wait for replies.
    """
    return _Run(plan, progress).main()


class _Run:
    """The parent's side: the lines of all children, their last known counts, the merged report."""

    def __init__(self, plan: LoadPlan, progress: Callable[[Progress], None] | None) -> None:
        self._plan = plan
        self._progress = progress
        self._lines: _Lines = SimpleQueue()
        self._counts: dict[_Child, dict[str, int]] = {}
        self._report = LoadReport(plan)
        self._started_at = 0.0

    def main(self) -> LoadReport:
        with ExitStack() as stack:
            children = [
                stack.enter_context(_Child(shard, self._lines)) for shard in self._plan.shards()
            ]
            self._until("connected", children)
            self._started_at = time.monotonic()
            for child in children:
                child.tell("go")
            try:
                self._until("report", children)
            except KeyboardInterrupt:
                self._stop(children)
        return self._report

    def _stop(self, children: list[_Child]) -> NoReturn:
        """End the run early."""
        for child in children:
            child.tell("stop")
        self._until("report", [child for child in children if not child.reported])
        raise Interrupted(self._report)

    def _until(self, op: str, children: list[_Child]) -> None:
        """Take lines until each child has said *op*."""
        waiting = set(children)
        while waiting:
            child, line = self._lines.get()
            if line is None:
                self._ended(child, child in waiting)
            else:
                self._take(child, line)
                if line["op"] == op:
                    waiting.discard(child)

    def _ended(self, child: _Child, too_soon: bool) -> None:
        if too_soon:
            status = child.process.wait()
            raise MessengerError(f"a load process ended without a report (exit status {status})")

    def _take(self, child: _Child, line: dict[str, Any]) -> None:
        match line["op"]:
            case "progress":
                self._note(child, line["counts"])
            case "report":
                child.reported = True
                self._report.merge(LoadReport.from_wire(child.plan, line["report"]))
            case "failed":
                raise ConnectError(self._plan.address, line["attempts"], line["cause"])

    def _note(self, child: _Child, counts: dict[str, int]) -> None:
        """Keep the child's counts; the first child's beat is the beat of the callback."""
        self._counts[child] = counts
        if self._progress is None or child is not next(iter(self._counts)):
            return
        total = {
            name: sum(known[name] for known in self._counts.values())
            for name in ("sent", "answered", "errors")
        }
        elapsed_s = time.monotonic() - self._started_at
        self._progress(Progress(elapsed_s, self._fraction(total, elapsed_s), **total))

    def _fraction(self, total: dict[str, int], elapsed_s: float) -> float:
        if self._plan.count is not None:
            return total["answered"] / self._plan.count
        assert self._plan.duration_s is not None
        return min(1.0, elapsed_s / self._plan.duration_s)


class _Child:
    """One load process; JSON lines both ways (see `mpmsgr.load.process`). Leaving it ends it."""

    def __init__(self, plan: LoadPlan, lines: _Lines) -> None:
        self.plan = plan
        self.reported = False
        with _ctrl_c_blocked():
            self.process = subprocess.Popen(
                _COMMAND,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                env=child_environment(os.environ.copy()),
            )
        self._reader = threading.Thread(target=self._read, args=(lines,), daemon=True)

    def __enter__(self) -> _Child:
        self._reader.start()
        self.tell(json.dumps(self.plan.as_dict()))
        return self

    def __exit__(self, *exc_info: object) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.kill()
        self.process.wait()
        self._reader.join()
        self.process.stdout.close()
        with suppress(BrokenPipeError):
            self.process.stdin.close()

    def tell(self, line: str) -> None:
        """Write one line; if the process has ended, the end of its output says so."""
        assert self.process.stdin is not None
        with suppress(BrokenPipeError):
            self.process.stdin.write(line + "\n")
            self.process.stdin.flush()

    def _read(self, lines: _Lines) -> None:
        """Hand on every line, then None."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            lines.put((self, json.loads(line)))
        lines.put((self, None))


@contextmanager
def _ctrl_c_blocked() -> Iterator[None]:
    """A process started in here never sees the terminal's Ctrl-C: the signal mask is inherited."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


_Lines = SimpleQueue[tuple[_Child, dict[str, Any] | None]]
