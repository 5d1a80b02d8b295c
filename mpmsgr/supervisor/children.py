"""The living child processes, and the selector that tells of them."""

from __future__ import annotations

import logging
import selectors
import time
from collections.abc import Callable, Sequence
from typing import Any

from mpmsgr.control import Packet
from mpmsgr.errors import ProtocolError
from mpmsgr.supervisor.child import Slot
from mpmsgr.supervisor.spawn import Process, spawn

log = logging.getLogger("mpmsgr.supervisor")


class Children:
    """Processes by slot: what they say and how they end goes to callbacks, during `wait`.

    on_packet(slot, packet) raises LookupError, TypeError or ValueError for a packet that makes no
    sense; on_closed(slot): its control channel ended; on_stacks(slot, process, text): it wrote its
    stacks; on_death(slot, process, cause): it is reaped.
    """

    def __init__(
        self,
        on_packet: Callable[[Slot, Packet], None],
        on_closed: Callable[[Slot], None],
        on_stacks: Callable[[Slot, Process, str], None],
        on_death: Callable[[Slot, Process, str], None],
    ) -> None:
        self._on_packet, self._on_closed = on_packet, on_closed
        self._on_stacks, self._on_death = on_stacks, on_death
        self._processes: dict[Slot, Process] = {}
        self._selector = selectors.DefaultSelector()

    def wait(self, until: float) -> None:
        """Wait for something to happen, but not beyond the monotonic time *until*; call back."""
        until = min([until, *(process.stacks.due_at for process in self._processes.values())])
        timeout_s = None if until == float("inf") else max(0.0, until - time.monotonic())
        for key, _ in self._selector.select(timeout_s):
            # An earlier event of this turn may have been the end of what this one is about.
            if self._selector.get_map().get(key.fd) is key:
                key.data()
        now = time.monotonic()
        for slot, process in self._processes.items():
            if process.stacks.due_at <= now:
                self._take_stacks(slot, process)

    def watch(self, what: Any, call: Callable[[], None]) -> None:
        """Have `wait` call *call* whenever *what*, a file object or descriptor, is readable."""
        self._selector.register(what, selectors.EVENT_READ, call)

    @property
    def selector(self) -> selectors.BaseSelector:
        """What `wait` waits for; the data of each key is called without arguments."""
        return self._selector

    def spawn(
        self,
        slot: Slot,
        command: Sequence[str],
        options: Sequence[str],
        fds: Sequence[int] = (),
        stdin: bool = False,
    ) -> int:
        """Start the process of *slot*; see `mpmsgr.supervisor.spawn.spawn`. Returns its pid."""
        process = spawn(command, options, fds, stdin)
        self._processes[slot] = process
        self.watch(process.channel, lambda: self._packets(slot))
        self.watch(process.stacks, lambda: self._stacks(process))
        self.watch(process.pidfd, lambda: self._death(slot))
        return process.pid

    def pid(self, slot: Slot) -> int | None:
        """The process id, while there is a process."""
        process = self._processes.get(slot)
        return process.pid if process else None

    def send(self, slot: Slot, op: str, /, **fields: Any) -> None:
        """Send a packet to the process in *slot*, which must be there: see `ControlChannel`."""
        self._processes[slot].channel.send(op, **fields)
        self._watch_backlog(slot)

    def broadcast(self, op: str, /, **fields: Any) -> None:
        """Send a packet to everybody."""
        for slot in list(self._processes):
            self.send(slot, op, **fields)

    def kill(self, slot: Slot) -> None:
        """Send SIGKILL to the process in *slot*, which must be there."""
        self._processes[slot].kill()

    def dump_stacks(self, slot: Slot) -> None:
        """Have the process in *slot*, which must be there, write its stacks."""
        self._processes[slot].dump_stacks()

    def end(self) -> None:
        """Kill everybody that is left."""
        for process in self._processes.values():
            process.kill()
            process.reap()
        self._selector.close()

    def _packets(self, slot: Slot) -> None:
        channel = self._processes[slot].channel
        try:
            for packet in channel.receive():
                self._on_packet(slot, packet)
        except (ProtocolError, LookupError, TypeError, ValueError) as exc:
            name = "the I/O process" if slot is None else f"worker {slot}"
            log.error("%s broke the control channel: %r", name, exc)
            channel.eof = True
        if channel.eof:
            self._selector.unregister(channel)
            self._on_closed(slot)
        else:
            self._watch_backlog(slot)

    def _stacks(self, process: Process) -> None:
        process.stacks.read(time.monotonic())
        if process.stacks.eof:
            self._selector.unregister(process.stacks)

    def _take_stacks(self, slot: Slot, process: Process) -> None:
        if text := process.stacks.take():
            self._on_stacks(slot, process, text)

    def _death(self, slot: Slot) -> None:
        process = self._processes[slot]
        if not process.channel.eof:
            self._packets(slot)  # its last words
        if not process.channel.eof:
            self._selector.unregister(process.channel)
        if not process.stacks.eof:
            process.stacks.read(time.monotonic())
            self._selector.unregister(process.stacks)
        self._take_stacks(slot, process)
        self._selector.unregister(process.pidfd)
        self._on_death(slot, process, self._processes.pop(slot).reap())

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
