"""What every benchmark needs: CPU time of processes, spreads, and the line that says where."""

from __future__ import annotations

import os
import platform
import shlex
import statistics
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_SCHEDULER_CLOCK = 2


def cpu_s(pids: Iterable[int]) -> float:
    """Seconds of CPU, user and system, that *pids* have used, all their threads together.

    From the scheduler's own count in nanoseconds. Raises OSError if one of them is gone.
    """
    return sum(time.clock_gettime(_cpu_clock(pid)) for pid in pids)


def _cpu_clock(pid: int) -> int:
    """The clock id of clock_getcpuclockid(3), made as Linux does (include/linux/posix-timers.h)."""
    return ~pid << 3 | _SCHEDULER_CLOCK


class Others:
    """The CPU that other processes of the machine take, from its making on.

    Ours are this process, its children, and *pids*, which outlive the measurement.
    """

    def __init__(self, pids: Iterable[int]) -> None:
        self._pids = list(pids)
        self._began = time.perf_counter()
        self._before_s = self._theirs_s()

    def cores(self) -> float:
        """So many cores they kept busy, on average."""
        spent_s = max(0.0, self._theirs_s() - self._before_s)  # the clocks differ by ticks
        return spent_s / (time.perf_counter() - self._began)

    def _theirs_s(self) -> float:
        user, nice, system, _idle, _iowait, irq, softirq, steal = _machine_ticks()
        busy = user + nice + system + irq + softirq + steal
        return busy / _TICKS_PER_S - sum(os.times()[:4]) - cpu_s(self._pids)


def _machine_ticks() -> list[int]:
    """The machine's CPU time by kind (proc(5), /proc/stat), without the guests' in it."""
    with Path("/proc/stat").open() as lines:
        return [int(ticks) for ticks in lines.readline().split()[1:9]]


@dataclass(frozen=True)
class Spread:
    """Smallest, middle and largest of a series."""

    low: float
    median: float
    high: float

    @classmethod
    def of(cls, values: Iterable[float]) -> Spread:
        """The spread of *values* (at least one)."""
        series = sorted(values)
        return cls(series[0], statistics.median(series), series[-1])

    def text(self, digits: int = 2) -> str:
        """``min / median / max``."""
        return " / ".join(f"{value:.{digits}f}" for value in (self.low, self.median, self.high))


def machine() -> str:
    """The machine, the versions and the date, in one line."""
    return (
        f"{_cpu_model()}, {os.cpu_count()} cores, Linux {platform.release()}, "
        f"Python {platform.python_version()}, {time.strftime('%Y-%m-%d %H:%M')}"
    )


def command(module: str) -> str:
    """The command that repeats this run."""
    return shlex.join(["python", "-m", module, *sys.argv[1:]])


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()
