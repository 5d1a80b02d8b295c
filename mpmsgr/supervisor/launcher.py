"""Starting children: what each is handed down, where it runs, where it finds the I/O process."""

from __future__ import annotations

import logging
import random
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mpmsgr.errors import ConfigError
from mpmsgr.supervisor.affinity import bind, cpus_of, least_used
from mpmsgr.supervisor.child import Duty, Slot, Worker
from mpmsgr.supervisor.children import Children
from mpmsgr.supervisor.facts import Facts
from mpmsgr.supervisor.rundir import RunDir
from mpmsgr.supervisor.shared import SharedMemory, close_all
from mpmsgr.supervisor.spawn import Commands

log = logging.getLogger("mpmsgr.supervisor")

SettingsMap = dict[str, Any]


@dataclass
class Launcher:
    """What children are started with.

    listeners: sockets that every incarnation of the I/O process listens on, nonce: its own (u32);
    shared: the memory that is shared out.

    A child that cannot be started is recorded as one that died.
    """

    commands: Commands
    listeners: list[socket.socket]
    run_dir: RunDir
    nonce: int
    shared: SharedMemory

    def start_io(self, facts: Facts, children: Children, settings: SettingsMap) -> None:
        """Start the next incarnation of the I/O process."""
        facts.started(None, time.monotonic())
        number = facts.io.number
        fds = [listener.fileno() for listener in self.listeners]
        try:
            arena = self.shared.new_arena(number)
        except (ConfigError, OSError) as exc:
            _not_started(None, facts, exc)
            return
        try:
            command, options = self.commands.io, ["--incarnation", str(number)]
            # Without workers, handlers run there: a breakpoint in one needs the terminal.
            handles = settings["workers"] == 0
            if _spawn(None, facts, children, command, options, fds, stdin=handles):
                children.send(
                    None,
                    "start",
                    fds=arena,
                    settings=settings,
                    listen_fds=fds,
                    nonce=self.nonce,
                    **self._where(facts),
                    **self.shared.told,
                )
                for slot in self.shared.slots:
                    self._send_memory(slot, children)
        finally:
            close_all(arena)

    def start_worker(
        self, slot: int, facts: Facts, children: Children, settings: SettingsMap
    ) -> None:
        """Start the next generation of the worker in *slot*, towards a living I/O process."""
        facts.started(slot, time.monotonic())
        worker = facts.workers[slot]
        try:
            if self.shared.add_slot(slot):
                self._send_memory(slot, children)
        except (ConfigError, OSError) as exc:
            _not_started(slot, facts, exc)
            return
        options = ["--slot", str(slot), "--generation", str(worker.number)]
        if _spawn(slot, facts, children, self.commands.worker, options):
            _place(worker, facts, children, settings["cpu_affinity"])
            fds = [*self.shared.arena, *self.shared.of_slot(slot)]
            told = {**self._where(facts), **self.shared.told}
            children.send(slot, "start", fds=fds, settings=settings, **told)

    def link(self, slot: int, facts: Facts, children: Children) -> None:
        """Send the worker in *slot* to the present incarnation of the I/O process."""
        children.send(slot, "link", fds=self.shared.arena, **self._where(facts))
        facts.workers[slot].told = facts.io.number

    def _send_memory(self, slot: int, children: Children) -> None:
        children.send(None, "slot_memory", fds=self.shared.of_slot(slot), slot=slot)

    def _where(self, facts: Facts) -> dict[str, Any]:
        """The present incarnation of the I/O process and where workers reach it."""
        incarnation = facts.io.number
        return {"incarnation": incarnation, "endpoint": self.run_dir.endpoint(incarnation)}


def _spawn(
    slot: Slot,
    facts: Facts,
    children: Children,
    command: Sequence[str],
    options: list[str],
    fds: Sequence[int] = (),
    stdin: bool = False,
) -> bool:
    try:
        pid = children.spawn(slot, command, options, fds, stdin)
    except OSError as exc:
        _not_started(slot, facts, exc)
        return False
    child = facts.child(slot)
    level = logging.DEBUG if child.number == 1 and not facts.announced else logging.INFO
    log.log(level, "%s started, pid %d", child.full_name, pid)
    return True


def _not_started(slot: Slot, facts: Facts, exc: Exception) -> None:
    facts.died(slot, f"cannot be started: {exc}", time.monotonic())
    log.error("%s cannot be started: %s", facts.child(slot).full_name, exc)


def _place(worker: Worker, facts: Facts, children: Children, cpu_affinity: str) -> None:
    """Settle chance and CPU of a new *worker*: the CPU that those who stay use least."""
    worker.luck = random.random()
    going = {worker.slot, *(other.replaces for other in facts.workers)}
    staying = [w for w in facts.of_duty(Duty.SERVING) if w.slot not in going]
    try:
        cpus = cpus_of(cpu_affinity)
    except ConfigError as exc:  # they were taken from us since
        log.warning("workers are not bound: %s", exc)
        cpus = []
    worker.cpu = least_used(cpus, [w.cpu for w in staying if w.alive])
    pid = children.pid(worker.slot)
    if worker.cpu is not None and pid is not None:
        bind(pid, worker.cpu)
