"""CPUs of workers: which there are to share, and which one the next worker is bound to."""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Iterable, Sequence

from mpmsgr.config.kinds import cpu_numbers
from mpmsgr.errors import ConfigError

log = logging.getLogger("mpmsgr.supervisor")


def cpus_of(setting: str) -> list[int]:
    """CPUs of ``auto``, ``none`` or ``0,2-5``; empty: workers are not bound.

    Raises ConfigError for a CPU that this process may not use.
    """
    if setting == "none" or not hasattr(os, "sched_getaffinity"):
        return []
    allowed = os.sched_getaffinity(0)
    cpus = sorted(allowed) if setting == "auto" else cpu_numbers(setting)
    if strange := [cpu for cpu in cpus if cpu not in allowed]:
        may = ", ".join(map(str, sorted(allowed)))
        raise ConfigError("cpu_affinity", setting, f"CPU {strange[0]} is none of ours: {may}")
    return cpus


def least_used(cpus: Sequence[int], in_use: Iterable[int | None]) -> int | None:
    """The one of *cpus* that is *in_use* least, the first of several; None if there are none."""
    uses = Counter(in_use)
    return min(cpus, key=lambda cpu: uses[cpu], default=None)


def bind(pid: int, cpu: int) -> None:
    """Bind process *pid*, which has one thread still, to *cpu*; failing is no disaster."""
    try:
        os.sched_setaffinity(pid, {cpu})
    except OSError as exc:
        log.warning("pid %d cannot be bound to CPU %d: %s", pid, cpu, exc)
