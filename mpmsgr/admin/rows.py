"""What the supervisor knows, as plain rows: its own state, processes, settings."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from typing import Any

import psutil

import mpmsgr
from mpmsgr.admin.health import state_of
from mpmsgr.config import OPTIONS, Settings
from mpmsgr.supervisor.facts import Child, Facts, Slot
from mpmsgr.supervisor.supervisor import Supervisor

Row = dict[str, Any]

#: What `config set` can change while a server runs; everything else takes a new start.
LIVE = ("log_level", "graceful_timeout_s")


def status(supervisor: Supervisor, now: float) -> Row:
    """The whole server at *now*, in a dozen facts."""
    facts = supervisor.facts
    return {
        "state": state_of(facts),
        "version": mpmsgr.__version__,
        "name": supervisor.settings["name"],
        "pid": os.getpid(),
        "up_s": round(time.time() - psutil.Process().create_time(), 1),
        "addresses": supervisor.addresses,
        "run_dir": str(supervisor.run_dir),
        "modules": supervisor.settings["modules"],
        "io": process_row(facts.io, supervisor.pid(None), now),
        "workers": worker_counts(facts),
    }


def worker_counts(facts: Facts) -> Row:
    """How many workers there are in each phase."""
    counts = dict.fromkeys(("ready", "starting", "absent"), 0)
    for worker in facts.workers:
        counts[worker.phase.value] += 1
    return counts


def worker_rows(supervisor: Supervisor, now: float) -> list[Row]:
    """One row per slot."""
    facts = supervisor.facts
    return [{"slot": w.slot, **process_row(w, supervisor.pid(w.slot), now)} for w in facts.workers]


def process_row(child: Child, pid: int | None, now: float) -> Row:
    """One process: since_s is how long it has been up, or gone; cause that of the latest death."""
    return {
        "pid": pid,
        _number_of(child.slot): child.number,
        "phase": child.phase.value,
        "since_s": round(now - child.since, 1) if child.number else None,
        "early_deaths": child.early_deaths,
        "cause": child.cause,
        **resources(pid),
    }


def _number_of(slot: Slot) -> str:
    return "incarnation" if slot is None else "generation"


def resources(pid: int | None) -> Row:
    """Memory, CPU time and descriptors of a process; None where it cannot be told."""
    try:
        process = psutil.Process(pid) if pid is not None else None
        if process is not None:
            with process.oneshot():
                cpu = process.cpu_times()
                return {
                    "rss_bytes": process.memory_info().rss,
                    "cpu_s": round(cpu.user + cpu.system, 2),
                    "fds": process.num_fds(),
                }
    except psutil.Error:
        pass
    return {"rss_bytes": None, "cpu_s": None, "fds": None}


def config_rows(settings: Mapping[str, Any], origins: Mapping[str, str]) -> list[Row]:
    """One row per option: its value, its default, who said it, and whether it can be set now."""
    defaults = Settings().as_dict()
    return [
        {
            "name": option.name,
            "value": settings[option.name],
            "default": option.unset or defaults[option.name],
            "origin": origins.get(option.name, "default"),
            "live": option.name in LIVE,
        }
        for option in OPTIONS
    ]


def counters(supervisor: Supervisor, deaths: Mapping[str, int], now: float) -> Row:
    """The supervisor's share of `perf dump`; *deaths* by role."""
    facts = supervisor.facts
    return {
        "up_s": round(time.time() - psutil.Process().create_time(), 1),
        "workers": worker_counts(facts),
        "starts_total": {"io": facts.io.number, "worker": sum(w.number for w in facts.workers)},
        "deaths_total": dict(deaths),
    }
