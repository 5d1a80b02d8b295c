"""What the supervisor knows, as plain rows: its own state, processes, settings."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from typing import Any

import psutil

import mpmsgr
from mpmsgr.admin.health import state_of
from mpmsgr.config import OPTIONS, Option, Settings
from mpmsgr.supervisor.child import Child, Duty, Slot, Worker
from mpmsgr.supervisor.facts import Facts
from mpmsgr.supervisor.supervisor import Supervisor

Row = dict[str, Any]


def status(supervisor: Supervisor, now: float) -> Row:
    """The whole server at *now*, in a dozen facts."""
    facts = supervisor.facts
    return {
        "state": state_of(facts, now),
        "version": mpmsgr.__version__,
        "name": supervisor.settings["name"],
        "pid": os.getpid(),
        "up_s": round(time.time() - psutil.Process().create_time(), 1),
        "addresses": supervisor.addresses,
        "run_dir": str(supervisor.run_dir),
        "modules": supervisor.settings["modules"],
        "io": process_row(facts.io, supervisor.pid(None), now),
        "workers": {"wanted": facts.target, **worker_counts(facts)},
        "reload_error": facts.reload_error,
        "restart_needed": supervisor.restart_needed,
    }


def worker_counts(facts: Facts) -> Row:
    """How many workers there are in each phase."""
    counts = dict.fromkeys(("ready", "starting", "absent"), 0)
    for worker in _workers(facts):
        counts[worker.phase.value] += 1
    return counts


def _workers(facts: Facts) -> list[Worker]:
    return [worker for worker in facts.workers if worker.duty is not Duty.NONE]


def worker_rows(supervisor: Supervisor, now: float) -> list[Row]:
    """One row per slot that is in use; duty is serving or retiring."""
    return [
        {
            "slot": worker.slot,
            "duty": worker.duty.value,
            **process_row(worker, supervisor.pid(worker.slot), now),
        }
        for worker in _workers(supervisor.facts)
    ]


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


def change_takes(option: Option) -> str:
    """What a change of *option* takes: nothing (``set``), a reload, a restart."""
    return "set" if option.live else "reload" if option.of_workers else "restart"


def config_rows(settings: Mapping[str, Any], origins: Mapping[str, str]) -> list[Row]:
    """One row per option: its value, its default, who said it, what a change takes."""
    defaults = Settings().as_dict()
    return [
        {
            "name": option.name,
            "value": settings[option.name],
            "default": option.unset or defaults[option.name],
            "origin": origins.get(option.name, "default"),
            "change": change_takes(option),
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
