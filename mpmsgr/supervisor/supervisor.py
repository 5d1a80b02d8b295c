"""The loop: waits for signals, packets and deaths, notes them as facts, carries out decisions."""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from mpmsgr import logs
from mpmsgr.config import OPTIONS, Settings, take_over
from mpmsgr.control import Packet, encode
from mpmsgr.errors import ConfigError, ProtocolError
from mpmsgr.supervisor import actions as do
from mpmsgr.supervisor.affinity import cpus_of
from mpmsgr.supervisor.child import Duty, Phase, Slot
from mpmsgr.supervisor.children import Children
from mpmsgr.supervisor.companion import Companion
from mpmsgr.supervisor.decide import decide
from mpmsgr.supervisor.exits import ExitCode
from mpmsgr.supervisor.facts import Facts
from mpmsgr.supervisor.launcher import Launcher
from mpmsgr.supervisor.limits import Limits
from mpmsgr.supervisor.measures import Handled, own_rss
from mpmsgr.supervisor.signals import Signals
from mpmsgr.supervisor.spawn import Process
from mpmsgr.supervisor.stacks import own_stacks
from mpmsgr.supervisor.watch import SourceWatch
from mpmsgr.supervisor.wear import is_measured

log = logging.getLogger("mpmsgr.supervisor")
# Somebody asked for them, so they are written at every log level.
_stacks_log = logging.getLogger("mpmsgr.stacks")
_stacks_log.setLevel(logging.WARNING)

_WORKERS = next(option for option in OPTIONS if option.name == "workers")


class Supervisor:
    """One I/O process and its workers, from start to stop.

    facts: what it knows; for others to read. children: what else its loop is to watch goes there.
    companions: who is told what goes on.
    restart_needed: settings that the latest reload found changed and only a restart changes.
    """

    def __init__(
        self,
        settings: Settings,
        launcher: Launcher,
        signals: Signals,
        limits: Limits,
        reread: Callable[[], Settings] | None,
        handled: Handled,
    ) -> None:
        """Serve *settings* with what *launcher* starts.

        reread: what a reload calls for settings, which raises ConfigError; None: they never change.
        handled: messages the present worker of a slot has handled.
        """
        # By revision: those in force, and those of a reload.
        self._settings = {0: settings.as_dict()}
        self._launcher = launcher
        self._shared = launcher.shared
        self._signals = signals
        self._limits = limits
        self._reread = reread
        self._handled = handled
        self._addresses: list[str] = []
        self._exit: ExitCode | None = None
        self.restart_needed: list[str] = []
        self.facts = Facts.of(settings.workers, limits.of(settings))
        self.children = Children(self._on_packet, self._on_closed, self._on_stacks, self._on_death)
        self.children.watch(signals, self._on_signals)
        self.companions: list[Companion] = []

    def run(self) -> ExitCode:
        """Serve until stopped. Nobody is left running, however this ends."""
        try:
            while True:
                wake_at = self._settle()
                if self._exit is not None:
                    return self._exit
                now = time.monotonic()
                self.children.wait(min([wake_at, *(c.settled(now) for c in self.companions)]))
        finally:
            for companion in self.companions:
                companion.close()
            self.children.end()

    # What others see of it

    @property
    def settings(self) -> dict[str, Any]:
        """Those in force, by name; a change here reaches the next child that is started."""
        return self._settings[self.facts.revision]

    @property
    def addresses(self) -> list[str]:
        """HOST:PORT of what is listened at, once the I/O process was ready."""
        return self._addresses

    @property
    def run_dir(self) -> Path:
        """The run directory."""
        return self._launcher.run_dir.path

    def pid(self, slot: Slot) -> int | None:
        """The process in *slot*, None if there is none."""
        return self.children.pid(slot)

    # What the operator asks for, by signal or otherwise; it is done when the loop comes to it

    def stop(self, *, quick: bool = False) -> None:
        """Stop gracefully; *quick*: at once."""
        self.facts.asked_to_stop(time.monotonic(), quick=quick)

    def reload(self) -> None:
        """Read the configuration again and renew the workers, without a gap.

        How it ends is logged, and in the facts. Raises ConfigError, and changes nothing, if the
        configuration is wrong or this is no time for it.
        """
        for companion in self.companions:
            companion.reloading()
        if self.facts.stop_at is not None or not self.facts.announced:
            when = "stopping" if self.facts.announced else "starting"
            raise ConfigError("reload", when, "there is none while the server starts or stops")
        try:
            running = Settings.from_dict(self.settings)
            read = self._read() or running
            settings, self.restart_needed = take_over(running, read)
            check_size(settings)
            cpus_of(settings.cpu_affinity)
        except ConfigError as exc:
            self.facts.reload_error = str(exc)
            raise
        changed = settings.workers != running.workers
        revision = self.facts.asked_to_reload(settings.workers if changed else self.facts.target)
        self._settings = {self.facts.revision: self.settings, revision: settings.as_dict()}
        log.info("reloading")
        if self.restart_needed:
            log.warning("only a restart changes %s", ", ".join(self.restart_needed))

    def _read(self) -> Settings | None:
        try:
            return self._reread() if self._reread else None
        except OSError as exc:
            raise ConfigError("reload", str(exc), "the configuration cannot be read") from None

    def reload_with(self, watch: SourceWatch) -> None:
        """Reload whenever *watch* sees a change."""

        def changed() -> None:
            if files := watch.read():
                log.info("changed: %s", ", ".join(files))
                self._try(self.reload)

        self.children.watch(watch, changed)

    def scale(self, workers: int) -> None:
        """Have so many *workers* until told otherwise. Raises ConfigError if that cannot be."""
        if not self.settings["workers"]:
            raise ConfigError("workers", workers, "handlers run in the I/O process: restart it")
        number = _WORKERS.read(workers, "workers")
        if number < 1:
            raise ConfigError("workers", workers, "must be at least 1 while running")
        if number != self.facts.target:
            log.info("%d workers instead of %d", number, self.facts.target)
        self.facts.target = self.facts.candidate_target = number

    def let_nobody_in(self) -> None:
        """Lame duck: no new sessions, old ones go on."""
        if not self.facts.lame_duck:
            log.warning("nobody is let in any more")
        self.facts.lame_duck = True

    def dump_stacks(self) -> None:
        """Write the stacks of every process to the log, then stop at once."""
        _log_stacks("the supervisor", os.getpid(), own_stacks())
        for child in self.facts.children:
            if child.alive:
                self.children.dump_stacks(child.slot)
        self.stop(quick=True)

    def reopen_logs(self) -> None:
        """Have every process open its log file anew."""
        logs.reopen()
        self.children.broadcast("reopen_logs")

    def _on_signals(self) -> None:
        for number in self._signals.read():
            log.info("got %s", signal.Signals(number).name)
            self._try(partial(self._on_signal, number))

    def _try(self, what: Callable[[], None]) -> None:
        """What an operator asks for without waiting for an answer."""
        try:
            what()
        except ConfigError as exc:
            log.error("%s", exc)

    def _on_signal(self, number: int) -> None:
        match number:
            case signal.SIGTERM:
                self.stop()
            case signal.SIGINT:
                self.stop(quick=self.facts.stop_at is not None)
            case signal.SIGQUIT:
                self.dump_stacks()
            case signal.SIGHUP if self._signals.hung_up:
                log.warning("stopping: the terminal is gone")
                self.stop()
            case signal.SIGHUP:
                self.reload()
            case signal.SIGUSR1:
                self.reopen_logs()
            case signal.SIGUSR2:
                self.let_nobody_in()
            case signal.SIGTTIN:
                self.scale(self.facts.target + 1)
            case signal.SIGTTOU:
                self.scale(self.facts.target - 1)

    # What children do

    def _on_packet(self, slot: Slot, packet: Packet) -> None:
        match packet["op"]:
            case "ready":
                self._on_ready(slot, packet)
            case "worked":
                self.facts.worked(slot)
            case "failed":
                text = str(packet["error"])
                if self.facts.announced:
                    log.error("%s cannot start: %s", self._name(slot), text)
                self.facts.failed(slot, text)
            case "drained":
                self.facts.drain_ended(int(packet["undelivered"]), bool(packet["unfinished"]))
            case "retired" if slot is None:
                self.facts.retire_ended(int(packet["slot"]), int(packet["generation"]))
            case "recycle" if slot is None:
                which = int(packet["slot"]), int(packet["generation"])
                self.facts.wants_recycled(*which, str(packet["why"]))
            case _:
                for companion in self.companions:
                    companion.told(slot, packet)

    def _on_ready(self, slot: Slot, packet: Packet) -> None:
        if slot is None:
            # Without the nonce: HOST:PORT is what one can type.
            self._addresses = [str(a).rpartition("/")[0] or str(a) for a in packet["addrs"]]
            self.facts.ready(slot)
        else:
            deadline_s = float(packet.get("shortest_deadline_s", 0.0))
            if deadline_s and not self._shared.slots:
                log.warning("%s: no deadline is kept without arena_bytes", self._name(slot))
                deadline_s = 0.0
            incarnation = int(packet["incarnation"])
            self.facts.ready(slot, incarnation, shortest_deadline_s=deadline_s)
            level = logging.INFO if self.facts.announced else logging.DEBUG
            log.log(level, "%s is ready", self._name(slot))
            self._measure_one(slot)

    def _on_closed(self, slot: Slot) -> None:
        self.facts.channel_closed(slot, time.monotonic())

    def _on_stacks(self, slot: Slot, process: Process, text: str) -> None:
        _log_stacks(self._name(slot), process.pid, text)

    def _on_death(self, slot: Slot, process: Process, cause: str) -> None:
        child = self.facts.child(slot)
        expected = child.stop_sent or self.facts.stop_at is not None
        running = [] if slot is None else self._shared.take_started(slot)
        now, number = time.monotonic(), process.signal
        self.facts.died(slot, cause, now, running=running, signal=number)
        level = logging.INFO if expected else logging.WARNING
        log.log(level, "%s ended: %s, pid %d", child.full_name, child.cause, process.pid)
        for companion in self.companions:
            companion.ended(slot)
        limits = self.facts.limits
        if slot is not None and child.early_deaths == limits.breaker_limit:
            log.error(
                "%s died %d times in a row before it did any work: started every %g s only, until"
                " it works or a reload mends it",
                child.name,
                child.early_deaths,
                limits.backoff_max_s,
            )

    # What is done about it

    def _settle(self) -> float:
        """Carry out decisions until only waiting is left; returns until when."""
        while self._exit is None:
            wake_at = float("inf")
            acted = False
            for action in decide(self.facts, time.monotonic()):
                if isinstance(action, do.WakeAt):
                    wake_at = action.at
                else:
                    self._carry_out(action)
                    acted = True
            if not acted:
                return wake_at
        return 0.0

    def _carry_out(self, action: do.Action) -> None:
        facts, children = self.facts, self.children
        match action:
            case do.StartIo():
                self._launcher.start_io(facts, children, self.settings)
            case do.StartWorker(slot):
                settings = self._settings[facts.starting_revision]
                self._launcher.start_worker(slot, facts, children, settings)
            case do.TellWorkersLost():
                self._tell_workers_lost()
            case do.Link(slot):
                self._launcher.link(slot, facts, children)
            case do.AnnounceReady():
                self._announce()
            case do.Hire() | do.Dismiss() | do.Retire():
                self._change_duty(action)
            case do.CommitReload() | do.AbandonReload() | do.EndReload():
                self._go_on_reloading(action)
            case do.Measure():
                self._measure()
            case do.LetNobodyIn():
                children.send(None, "lame_duck")
                facts.lame_sent = True
            case do.StopIo(timeout_s):
                children.send(None, "stop", timeout_s=timeout_s)
                facts.io.stop_sent = True
            case do.QuitIo():
                children.send(None, "quit")
                facts.io.quit_sent = True
            case do.StopWorker(slot):
                children.send(slot, "stop")
                facts.workers[slot].stop_sent = True
            case do.CloseListeners():
                close_listeners(self._launcher.listeners)
                facts.listeners_closed = True
            case do.Kill(slot, why):
                facts.kill_sent(slot, why)
                children.kill(slot)
            case do.Look():
                self._look()
            case do.DumpLate(slot):
                self._dump_late(slot)
            case do.GiveUp(code, text):
                say(text)
                facts.give_up(code, time.monotonic())
            case do.Exit(code, text):
                if text:
                    say(text)
                self._exit = code

    def _change_duty(self, action: do.Hire | do.Dismiss | do.Retire) -> None:
        match action:
            case do.Hire(slot, replaces, why):
                self.facts.hired(slot, replaces)
                if replaces is not None:
                    log.info("worker %d is to replace worker %d: %s", slot, replaces, why)
            case do.Dismiss(slot):
                log.info("%s is to go", self._name(slot))
                self.facts.dismissed(slot, time.monotonic())
            case do.Retire(slot):
                worker = self.facts.workers[slot]
                self.children.send(None, "retire", slot=slot, generation=worker.number)
                worker.retire_sent = True

    def _go_on_reloading(self, action: do.CommitReload | do.AbandonReload | do.EndReload) -> None:
        facts = self.facts
        match action:
            case do.CommitReload():
                facts.reload_committed()
                self.apply(Settings.from_dict(self.settings))
            case do.AbandonReload(text):
                facts.reload_abandoned(text, time.monotonic())
                why = text.strip().rpartition("\n")[2]  # a traceback was logged where it came from
                log.error("the reload is given up, the workers from before it stay: %s", why)
            case do.EndReload():
                facts.reloading = False
                log.info("reloaded, %d workers", facts.target)

    def apply(self, settings: Settings) -> None:
        """Have *settings* in force here and in the I/O process; workers start with them."""
        self.facts.limits = self._limits.of(settings)
        logs.set_level(settings.log_level)
        if self.facts.io.alive:
            live = {o.name: getattr(settings, o.name) for o in OPTIONS if o.live}
            self.children.send(None, "settings", values=live)

    def _measure(self) -> None:
        self.facts.measured_at = time.monotonic()
        for worker in self.facts.of_duty(Duty.SERVING):
            if worker.phase is Phase.READY:
                self._measure_one(worker.slot)

    def _measure_one(self, slot: int) -> None:
        pid = self.children.pid(slot)
        if pid is not None and is_measured(self.facts.limits):
            self.facts.measured(slot, self._handled(slot), own_rss(pid))

    def _look(self) -> None:
        """See what workers whose handlers have deadlines run."""
        now = time.monotonic()
        watched = [w.slot for w in self.facts.workers if w.alive and w.shortest_deadline_s]
        self.facts.looked({slot: self._shared.running(slot) for slot in watched}, now)

    def _dump_late(self, slot: int) -> None:
        worker = self.facts.workers[slot]
        assert worker.running is not None
        text = "%s takes long over a message of type %#x; its stacks follow"
        log.warning(text, worker.full_name, worker.running.type)
        self.children.dump_stacks(slot)
        self.facts.dump_sent(slot)

    def _tell_workers_lost(self) -> None:
        for lost in self.facts.lost:
            self.children.send(
                None,
                "worker_lost",
                slot=lost.slot,
                generation=lost.generation,
                cause=lost.cause,
                running=lost.running,
                signal=lost.signal,
            )
        self.facts.lost.clear()

    def _announce(self) -> None:
        say(f"ready on {','.join(self._addresses)} ({self.facts.target} workers)")
        self.facts.announced = True

    def _name(self, slot: Slot) -> str:
        return self.facts.child(slot).full_name


def check_size(settings: Settings) -> None:
    """Raise ConfigError if children could not be sent *settings*."""
    try:
        encode("start", settings=settings.as_dict(), room="." * 4096)
    except ProtocolError as exc:
        raise ConfigError("options", "...", f"are too long: {exc.allowed} altogether") from None


def close_listeners(listeners: list[socket.socket]) -> None:
    """Stop listening, also for the copies of the sockets that other processes hold."""
    for listener in listeners:
        with suppress(OSError):  # the I/O process did it before
            listener.shutdown(socket.SHUT_RDWR)
        listener.close()


def _log_stacks(name: str, pid: int, text: str) -> None:
    _stacks_log.warning("stacks of %s, pid %d:\n%s", name, pid, text)


def say(text: str) -> None:
    """Write a line to stderr; a closed stderr does not end the service."""
    if sys.stderr is None:  # it was closed before we began
        return
    with suppress(OSError, ValueError):
        sys.stderr.write(f"mpmsgr: {text}\n")
        sys.stderr.flush()
