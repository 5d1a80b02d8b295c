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
from pathlib import Path
from typing import Any

from mpmsgr.config import Settings
from mpmsgr.control import Packet
from mpmsgr.errors import ProtocolError
from mpmsgr.supervisor import actions as do
from mpmsgr.supervisor.companion import Companion
from mpmsgr.supervisor.decide import decide
from mpmsgr.supervisor.exits import ExitCode
from mpmsgr.supervisor.facts import Facts, Limits, Slot
from mpmsgr.supervisor.rundir import RunDir
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
    ) -> None:
        """Serve *settings* on *listeners*; *nonce* is that of every incarnation (u32)."""
        self._settings = settings.as_dict()
        self._listeners = listeners
        self._run_dir = run_dir
        self._signals = signals
        self._nonce = nonce
        self._commands = commands
        self._facts = Facts.of(settings.workers, limits)
        self._processes: dict[Slot, Process] = {}
        self._addresses: list[str] = []
        self._selector = selectors.DefaultSelector()
        self._selector.register(signals, selectors.EVENT_READ, self._on_signals)
        self._exit: ExitCode | None = None
        self.companions: list[Companion] = []

    def run(self) -> ExitCode:
        """Serve until stopped. Nobody is left running, however this ends."""
        try:
            while True:
                wake_at = self._settle()
                if self._exit is not None:
                    return self._exit
                now = time.monotonic()
                self._wait(min([wake_at, *(c.settled(now) for c in self.companions)]))
        finally:
            for companion in self.companions:
                companion.close()
            for process in self._processes.values():
                process.kill()
                process.reap()
            self._selector.close()

    # What companions see and do

    @property
    def facts(self) -> Facts:
        """What is known; not theirs to change, but for `Facts.limits`."""
        return self._facts

    @property
    def settings(self) -> dict[str, Any]:
        """What the next child is started with; a change here reaches that."""
        return self._settings

    @property
    def addresses(self) -> list[str]:
        """HOST:PORT of what is listened at, once the I/O process was ready."""
        return self._addresses

    @property
    def run_dir(self) -> Path:
        """The run directory."""
        return self._run_dir.path

    @property
    def selector(self) -> selectors.BaseSelector:
        """What the loop waits for; the data of each key is called without arguments."""
        return self._selector

    def pid(self, slot: Slot) -> int | None:
        """The process in *slot*, None if there is none."""
        process = self._processes.get(slot)
        return None if process is None else process.pid

    def tell(self, slot: Slot, op: str, /, **fields: Any) -> bool:
        """Send a packet to the child in *slot*; False: there is none."""
        if slot not in self._processes:
            return False
        self._send(slot, op, **fields)
        return True

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
            case _:
                for companion in self.companions:
                    companion.told(slot, packet)

    def _on_ready(self, slot: Slot, packet: Packet) -> None:
        if slot is None:
            # Without the nonce: HOST:PORT is what one can type.
            self._addresses = [str(a).rpartition("/")[0] or str(a) for a in packet["addrs"]]
            self._facts.ready(slot)
        else:
            self._facts.ready(slot, int(packet["incarnation"]))

    def _on_death(self, slot: Slot) -> None:
        process = self._processes[slot]
        if not process.channel.eof:
            self._on_packets(slot)  # its last words
        if not process.channel.eof:
            self._selector.unregister(process.channel)
        self._selector.unregister(process.pidfd)
        cause = self._processes.pop(slot).reap()
        stopping = self._facts.stop_at is not None
        self._facts.died(slot, cause, time.monotonic())
        level = logging.INFO if stopping else logging.WARNING
        cause = self._facts.child(slot).cause
        log.log(level, "%s, pid %d, ended: %s", self._name(slot), process.pid, cause)
        for companion in self.companions:
            companion.ended(slot)

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
                self._send(slot, "link", **self._where())
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
            case do.GiveUp(code, text):
                say(text)
                self._facts.give_up(code, time.monotonic())
            case do.Exit(code, text):
                if text:
                    say(text)
                self._exit = code

    def _start_io(self) -> None:
        self._facts.started(None, time.monotonic())
        incarnation = str(self._facts.io.number)
        fds = [listener.fileno() for listener in self._listeners]
        if self._spawn(None, self._commands.io, ["--incarnation", incarnation], fds):
            self._send(
                None,
                "start",
                settings=self._settings,
                listen_fds=fds,
                nonce=self._nonce,
                **self._where(),
            )

    def _start_worker(self, slot: int) -> None:
        self._facts.started(slot, time.monotonic())
        generation = str(self._facts.workers[slot].number)
        options = ["--slot", str(slot), "--generation", generation]
        if self._spawn(slot, self._commands.worker, options):
            self._send(slot, "start", settings=self._settings, **self._where())

    def _spawn(
        self, slot: Slot, command: Sequence[str], options: list[str], fds: Sequence[int] = ()
    ) -> bool:
        try:
            process = spawn(command, options, fds)
        except OSError as exc:
            self._facts.died(slot, f"cannot be started: {exc}", time.monotonic())
            log.error("%s cannot be started: %s", self._name(slot), exc)
            return False
        self._processes[slot] = process
        self._watch(process.channel, lambda: self._on_packets(slot))
        self._watch(process.pidfd, lambda: self._on_death(slot))
        level = logging.DEBUG if self._facts.child(slot).number == 1 else logging.INFO
        log.log(level, "%s started, pid %d", self._name(slot), process.pid)
        return True

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

    def _tell_workers_lost(self) -> None:
        for lost in self._facts.lost:
            self._send(
                None,
                "worker_lost",
                slot=lost.slot,
                generation=lost.generation,
                cause=lost.cause,
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
