"""The loop: waits for signals, packets and deaths, notes them as facts, carries out decisions."""

from __future__ import annotations

import logging
import selectors
import signal
import socket
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from mpmsgr.config import Settings
from mpmsgr.control import Packet
from mpmsgr.errors import ConfigError, ProtocolError
from mpmsgr.supervisor import actions as do
from mpmsgr.supervisor.decide import decide
from mpmsgr.supervisor.exits import ExitCode
from mpmsgr.supervisor.facts import Facts, Limits, Slot
from mpmsgr.supervisor.rundir import RunDir
from mpmsgr.supervisor.shared import SharedMemory, close_all
from mpmsgr.supervisor.signals import StopSignals
from mpmsgr.supervisor.spawn import Commands, Process, spawn

log = logging.getLogger("mpmsgr.supervisor")


class Supervisor:
    """One I/O process and its workers, from start to stop."""

    def __init__(
        self,
        settings: Settings,
        listeners: list[socket.socket],
        run_dir: RunDir,
        signals: StopSignals,
        nonce: int,
        commands: Commands,
        limits: Limits,
        shared: SharedMemory,
    ) -> None:
        """Serve *settings* on *listeners*; *nonce* is that of every incarnation (u32)."""
        self._settings = settings.as_dict()
        self._listeners = listeners
        self._run_dir = run_dir
        self._signals = signals
        self._nonce = nonce
        self._commands = commands
        self._shared = shared
        self._facts = Facts.of(settings.workers, limits)
        self._processes: dict[Slot, Process] = {}
        self._addresses: list[str] = []
        self._selector = selectors.DefaultSelector()
        self._selector.register(signals, selectors.EVENT_READ, self._on_signals)
        self._exit: ExitCode | None = None

    def run(self) -> ExitCode:
        """Serve until stopped. Nobody is left running, however this ends."""
        try:
            while True:
                wake_at = self._settle()
                if self._exit is not None:
                    return self._exit
                self._wait(wake_at)
        finally:
            for process in self._processes.values():
                process.kill()
                process.reap()
            self._selector.close()

    # What happens

    def _wait(self, wake_at: float) -> None:
        timeout_s = None if wake_at == float("inf") else max(0.0, wake_at - time.monotonic())
        for key, _ in self._selector.select(timeout_s):
            # An earlier event of this turn may have been the end of what this one is about.
            if self._selector.get_map().get(key.fd) is key:
                key.data()

    def _on_signals(self) -> None:
        for number in self._signals.read():
            again = self._facts.stop_at is not None
            log.info("%s: stopping", signal.Signals(number).name)
            self._facts.asked_to_stop(time.monotonic(), quick=again and number == signal.SIGINT)

    def _on_packets(self, slot: Slot) -> None:
        channel = self._processes[slot].channel
        try:
            for packet in channel.receive():
                self._on_packet(slot, packet)
        except (ProtocolError, LookupError, TypeError, ValueError) as exc:
            log.error("%s broke the control channel: %r", self._name(slot), exc)
            channel.eof = True
        if channel.eof:
            self._selector.unregister(channel)
            self._facts.channel_closed(slot, time.monotonic())
        else:
            self._watch_backlog(slot)

    def _on_packet(self, slot: Slot, packet: Packet) -> None:
        match packet["op"]:
            case "ready":
                self._on_ready(slot, packet)
            case "worked":
                self._facts.worked(slot)
            case "failed":
                text = str(packet["error"])
                if self._facts.announced:
                    log.error("%s cannot start: %s", self._name(slot), text)
                self._facts.failed(slot, text)
            case "drained":
                self._facts.drain_ended(int(packet["undelivered"]))
            case "recycle" if slot is None:
                which = int(packet["slot"]), int(packet["generation"])
                self._facts.wants_recycled(*which, str(packet["why"]))
            case other:
                log.debug("%s says %s", self._name(slot), other)

    def _on_ready(self, slot: Slot, packet: Packet) -> None:
        if slot is None:
            # Without the nonce: HOST:PORT is what one can type.
            self._addresses = [str(a).rpartition("/")[0] or str(a) for a in packet["addrs"]]
            self._facts.ready(slot)
        else:
            deadline_s = float(packet.get("shortest_deadline_s", 0.0))
            if deadline_s and not self._shared.slots:
                log.warning("%s: no deadline is kept without arena_bytes", self._name(slot))
                deadline_s = 0.0
            incarnation = int(packet["incarnation"])
            self._facts.ready(slot, incarnation, shortest_deadline_s=deadline_s)

    def _on_death(self, slot: Slot) -> None:
        process = self._processes[slot]
        if not process.channel.eof:
            self._on_packets(slot)  # its last words
        if not process.channel.eof:
            self._selector.unregister(process.channel)
        self._selector.unregister(process.pidfd)
        cause = self._processes.pop(slot).reap()
        running = [] if slot is None else self._shared.take_started(slot)
        stopping = self._facts.stop_at is not None
        now, number = time.monotonic(), process.signal
        self._facts.died(slot, cause, now, running=running, signal=number)
        level = logging.INFO if stopping else logging.WARNING
        cause = self._facts.child(slot).cause
        log.log(level, "%s, pid %d, ended: %s", self._name(slot), process.pid, cause)

    # What is done about it

    def _settle(self) -> float:
        """Carry out decisions until only waiting is left; returns until when."""
        while self._exit is None:
            wake_at = float("inf")
            acted = False
            for action in decide(self._facts, time.monotonic()):
                if isinstance(action, do.WakeAt):
                    wake_at = action.at
                else:
                    self._carry_out(action)
                    acted = True
            if not acted:
                return wake_at
        return 0.0

    def _carry_out(self, action: do.Action) -> None:
        match action:
            case do.StartIo():
                self._start_io()
            case do.StartWorker(slot):
                self._start_worker(slot)
            case do.TellWorkersLost():
                self._tell_workers_lost()
            case do.Link(slot):
                self._send(slot, "link", fds=self._shared.arena, **self._where())
                self._facts.workers[slot].told = self._facts.io.number
            case do.AnnounceReady():
                self._announce()
            case do.StopIo(timeout_s):
                self._send(None, "stop", timeout_s=timeout_s)
                self._facts.io.stop_sent = True
            case do.QuitIo():
                self._send(None, "quit")
                self._facts.io.quit_sent = True
            case do.StopWorker(slot):
                self._send(slot, "stop")
                self._facts.workers[slot].stop_sent = True
            case do.CloseListeners():
                close_listeners(self._listeners)
                self._facts.listeners_closed = True
            case do.Kill(slot, why):
                self._facts.kill_sent(slot, why)
                self._processes[slot].kill()
            case do.Look():
                self._look()
            case do.Dump(slot):
                self._dump(slot)
            case do.GiveUp(code, text):
                say(text)
                self._facts.give_up(code, time.monotonic())
            case do.Exit(code, text):
                if text:
                    say(text)
                self._exit = code

    def _start_io(self) -> None:
        self._facts.started(None, time.monotonic())
        number = self._facts.io.number
        fds = [listener.fileno() for listener in self._listeners]
        try:
            arena = self._shared.new_arena(number)
        except (ConfigError, OSError) as exc:
            self._not_started(None, exc)
            return
        try:
            if self._spawn(None, self._commands.io, ["--incarnation", str(number)], fds):
                self._send(
                    None,
                    "start",
                    fds=arena,
                    settings=self._settings,
                    listen_fds=fds,
                    nonce=self._nonce,
                    **self._where(),
                    **self._shared.told,
                )
                self._send_slots()
        finally:
            close_all(arena)

    def _send_slots(self) -> None:
        """Hand the I/O process the memory of every worker slot."""
        for slot, fd in enumerate(self._shared.slots):
            self._send(None, "slot_memory", fds=[fd], slot=slot)

    def _start_worker(self, slot: int) -> None:
        self._facts.started(slot, time.monotonic())
        generation = str(self._facts.workers[slot].number)
        options = ["--slot", str(slot), "--generation", generation]
        if self._spawn(slot, self._commands.worker, options):
            fds = [*self._shared.arena, *self._shared.slots[slot : slot + 1]]
            told = {**self._where(), **self._shared.told}
            self._send(slot, "start", fds=fds, settings=self._settings, **told)

    def _spawn(
        self, slot: Slot, command: Sequence[str], options: list[str], fds: Sequence[int] = ()
    ) -> bool:
        try:
            process = spawn(command, options, fds)
        except OSError as exc:
            self._not_started(slot, exc)
            return False
        self._processes[slot] = process
        self._watch(process.channel, lambda: self._on_packets(slot))
        self._watch(process.pidfd, lambda: self._on_death(slot))
        level = logging.DEBUG if self._facts.child(slot).number == 1 else logging.INFO
        log.log(level, "%s started, pid %d", self._name(slot), process.pid)
        return True

    def _not_started(self, slot: Slot, exc: Exception) -> None:
        self._facts.died(slot, f"cannot be started: {exc}", time.monotonic())
        log.error("%s cannot be started: %s", self._name(slot), exc)

    def _watch(self, what: Any, call: Callable[[], None]) -> None:
        self._selector.register(what, selectors.EVENT_READ, call)

    def _send(self, to: Slot, op: str, /, **fields: Any) -> None:
        self._processes[to].channel.send(op, **fields)
        self._watch_backlog(to)

    def _watch_backlog(self, slot: Slot) -> None:
        """Be called when there is room again, while a child is too busy to read."""
        channel = self._processes[slot].channel
        if channel.fileno() not in self._selector.get_map():
            return
        channel.flush()
        events = selectors.EVENT_READ | (selectors.EVENT_WRITE if channel.has_backlog else 0)
        key = self._selector.get_key(channel)
        if key.events != events:
            self._selector.modify(channel, events, key.data)

    def _where(self) -> dict[str, Any]:
        """The present incarnation of the I/O process and where workers reach it."""
        incarnation = self._facts.io.number
        return {"incarnation": incarnation, "endpoint": self._run_dir.endpoint(incarnation)}

    def _look(self) -> None:
        """See what workers whose handlers have deadlines run."""
        now = time.monotonic()
        seen = {
            slot: self._shared.running(slot)
            for slot, worker in enumerate(self._facts.workers)
            if worker.shortest_deadline_s
        }
        self._facts.looked(seen, now)

    def _dump(self, slot: int) -> None:
        worker = self._facts.workers[slot]
        assert worker.running is not None
        text = "%s takes long over a message of type %#x; its stacks follow"
        log.warning(text, worker.full_name, worker.running.type)
        self._processes[slot].dump_stacks()
        self._facts.dump_sent(slot)

    def _tell_workers_lost(self) -> None:
        for lost in self._facts.lost:
            self._send(
                None,
                "worker_lost",
                slot=lost.slot,
                generation=lost.generation,
                cause=lost.cause,
                running=lost.running,
                signal=lost.signal,
            )
        self._facts.lost.clear()

    def _announce(self) -> None:
        workers = len(self._facts.workers)
        say(f"ready on {','.join(self._addresses)} ({workers} workers)")
        self._facts.announced = True

    def _name(self, slot: Slot) -> str:
        return self._facts.child(slot).full_name


def close_listeners(listeners: list[socket.socket]) -> None:
    """Stop listening, also for the copies of the sockets that other processes hold."""
    for listener in listeners:
        with suppress(OSError):  # the I/O process did it before
            listener.shutdown(socket.SHUT_RDWR)
        listener.close()


def say(text: str) -> None:
    """Write a line to stderr; a closed stderr does not end the service."""
    with suppress(OSError, ValueError):
        sys.stderr.write(f"mpmsgr: {text}\n")
        sys.stderr.flush()
