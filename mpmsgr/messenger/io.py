"""The I/O process: ``python -m mpmsgr.messenger.io --control-fd N --incarnation K``.

The one module of this folder that knows the pool: it is a process's main, not part of the library.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import socket
from dataclasses import replace
from functools import partial
from typing import Any

from mpmsgr import logs
from mpmsgr.admin.inspect import Inspector
from mpmsgr.config import Settings, resolve_ways
from mpmsgr.control import MAX_ERROR_TEXT, ControlChannel
from mpmsgr.dispatch.plugins import load_chain, load_io_chain
from mpmsgr.errors import PLUGIN_FAILURES
from mpmsgr.loop import relax_collector, run
from mpmsgr.messenger.accepter import check_fd_limit
from mpmsgr.messenger.fast import FastSink
from mpmsgr.messenger.messenger import Messenger
from mpmsgr.pool.fast import FastService
from mpmsgr.pool.front import PoolFront
from mpmsgr.pool.io_memory import IoMemory
from mpmsgr.pool.layout import SlotLayout
from mpmsgr.pool.quarantine import Quarantine
from mpmsgr.pool.report import Report
from mpmsgr.pool.spool import Spool
from mpmsgr.process import (
    SUPERVISOR_PID_ENV,
    die_with_parent,
    dump_stacks_on_signal,
    end_broken,
    leave_interrupts_to_parent_at_breakpoints,
    leave_signals_to_parent,
    why_not_started,
)
from mpmsgr.session.inject import Injection

log = logging.getLogger("mpmsgr.io")

Packet = dict[str, Any]


class IoProcess:
    """Owns the peer sockets: one messenger, with the pool (or its own dispatchers) behind it."""

    def __init__(self, channel: ControlChannel, incarnation: int) -> None:
        self._channel, self._incarnation = channel, incarnation
        self._messenger: Messenger | None = None
        self._front: PoolFront | None = None
        self._inspector = Inspector(channel)
        self._lame_duck = False
        self._given: dict[str, Any] | None = None  # settings, since it began
        self._memory: IoMemory | None = None
        self._memory_of_slots: dict[int, int] = {}  # descriptors that came before the rest
        self._work: asyncio.Task[None] | None = None
        self._status: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    async def run(self) -> int:
        """Serve; returns the exit status."""
        asyncio.get_running_loop().add_reader(self._channel.fileno(), self._control)
        self._control()
        return await self._status

    def _control(self) -> None:
        for packet in self._channel.receive():
            op = packet["op"]
            if op == "start":
                self._work = asyncio.ensure_future(self._start(packet))
            elif op == "slot_memory":
                self._memory_of_slots[packet["slot"]] = packet["fds"][0]
                self._add_slots()
            elif op == "worker_lost" and self._front is not None:
                self._front.worker_lost(
                    packet["slot"],
                    packet["generation"],
                    packet["cause"],
                    packet["running"],
                    packet["signal"],
                )
            elif op == "retire":
                self._retire(packet["slot"], packet["generation"])
            elif op == "stop":
                self._work = asyncio.ensure_future(self._stop(packet["timeout_s"]))
            elif op == "quit":
                self._end(0)
            elif op == "query":
                self._inspector.ask(packet)
            elif op == "lame_duck":
                self._lame_duck = True
                self._let_nobody_in()
            elif op == "reopen_logs":
                logs.reopen()
            elif op == "settings":
                logs.set_level(packet["values"]["log_level"])
                self._given = packet["values"]
                self._take_over()
        if self._channel.eof:
            os._exit(1)  # the supervisor is gone

    async def _start(self, packet: Packet) -> None:
        settings = Settings.from_dict(packet["settings"])
        try:
            logs.setup_from(packet["settings"], "io")
            await self._serve(settings, packet)
        except PLUGIN_FAILURES as err:
            self._channel.send("failed", error=why_not_started(err)[-MAX_ERROR_TEXT:])
            self._channel.drain(1.0)
            self._end(1)

    async def _serve(self, settings: Settings, packet: Packet) -> None:
        if settings.workers:
            self._memory = self._map(settings, packet)
            self._add_slots()
            self._front = PoolFront(
                packet["endpoint"],
                self._incarnation,
                credit=settings.worker_credit,
                dispatch_bytes=settings.dispatch_bytes,
                memory=self._memory,
                max_attempts=settings.max_attempts,
                quarantine=Quarantine(_spool(settings)),
                on_broken=partial(end_broken, log),
                lease_max_age_s=settings.lease_max_age_s,
                recycle=self._recycle,
                retired=self._retired,
            )
        ways = resolve_ways(settings, packet["nonce"])
        messenger = self._messenger = Messenger(
            ways.name,
            nonce=ways.nonce,
            policies=ways.policies,
            advertise=settings.advertise,
            limits=ways.limits,
            timing=ways.timing,
            protocol_version=ways.protocol_version,
            first_id=(self._incarnation << 32) + 1,
            sink=self._front,
            injection=Injection.from_table(settings.inject) if settings.inject else None,
            send_priority=ways.send_priority,
            fast_budget_s=settings.fast_budget_s,
            dispatch_bytes=settings.dispatch_bytes,
            max_sessions=settings.max_sessions,
        )
        messenger.start()
        check_fd_limit(settings.max_sessions)
        self._inspector.attach(messenger)
        if self._front is not None:
            self._front.attach(messenger.driver)
            self._tell_of(self._front)
        else:
            leave_interrupts_to_parent_at_breakpoints()
            options = settings.options_of(settings.modules)
            await messenger.use_chain(load_chain(settings.modules, options, settings.app_dir))
        if settings.io_modules:
            await self._use_io_modules(messenger, settings)
        listeners = [socket.socket(fileno=fd) for fd in packet["listen_fds"]]
        self._let_nobody_in()
        self._take_over()
        addrs = messenger.listen(listeners)
        relax_collector()
        self._channel.send("ready", addrs=[str(addr) for addr in addrs])

    def _tell_of(self, front: PoolFront) -> None:
        report = Report(front, self._memory)
        for what, provider in report.providers.items():
            self._inspector.register(what, provider)
        self._inspector.count("pool", report.counters)

    async def _use_io_modules(self, messenger: Messenger, settings: Settings) -> None:
        options = settings.options_of(settings.io_modules)
        chain = load_io_chain(settings.io_modules, options, settings.app_dir)
        fast = FastService(messenger, self._front) if self._front is not None else None
        await messenger.use_io_chain(chain, fast.connection_of if fast else None)

    @staticmethod
    def _map(settings: Settings, packet: Packet) -> IoMemory | None:
        """The memory that is shared with workers."""
        if "fds" not in packet:
            return None
        sizes = packet["memory"]
        layout = SlotLayout(sizes["ring_bytes"], sizes["worker_arena_bytes"])
        threshold = settings.arena_threshold_bytes
        return IoMemory(packet["fds"][0], sizes["arena_bytes"], layout, threshold)

    def _add_slots(self) -> None:
        if self._memory is not None:
            while self._memory_of_slots:
                self._memory.add_slot(*self._memory_of_slots.popitem())

    def _retire(self, slot: int, generation: int) -> None:
        if self._front is None:
            self._retired(slot, generation)
        else:
            self._front.retire(slot, generation)

    def _retired(self, slot: int, generation: int) -> None:
        self._channel.send("retired", slot=slot, generation=generation)

    def _let_nobody_in(self) -> None:
        if self._messenger is not None:
            self._messenger.endpoint.lame_duck = self._lame_duck

    def _take_over(self) -> None:
        """Use the settings that a running server was given, as far as they are ours."""
        if self._messenger is None or self._given is None:
            return
        given, driver = self._given, self._messenger.driver
        endpoint = self._messenger.endpoint
        if given["max_sessions"] != endpoint.max_sessions:
            endpoint.max_sessions = given["max_sessions"]
            check_fd_limit(endpoint.max_sessions)
        endpoint.timing = replace(endpoint.timing, handshake_timeout_s=given["handshake_timeout_s"])
        if driver.throttles is not None:
            driver.throttles.set_dispatch_bytes(given["dispatch_bytes"])
        if isinstance(driver.sink, FastSink):
            driver.sink.budget_s = given["fast_budget_s"]
        if self._front is not None:
            self._front.upkeep.lease_max_age_s = given["lease_max_age_s"]
            self._front.work.max_attempts = given["max_attempts"]

    def _recycle(self, slot: int, generation: int, why: str) -> None:
        self._channel.send("recycle", slot=slot, generation=generation, why=why)

    async def _stop(self, timeout_s: float) -> None:
        undelivered, unfinished = 0, False
        if self._messenger is not None:
            undelivered = await self._messenger.shutdown(timeout_s)
            unfinished = self._messenger.unfinished
            for reset in self._messenger.undelivered:
                log.warning("%s, tids %s", reset, ", ".join(map(str, reset.tids[:20])))
        if self._front is not None:
            self._front.close()
        self._channel.send("drained", undelivered=undelivered, unfinished=unfinished)
        self._channel.drain(1.0)
        self._end(0)

    def _end(self, status: int) -> None:
        self._inspector.close()
        if not self._status.done():
            self._status.set_result(status)


def _spool(settings: Settings) -> Spool | None:
    if settings.quarantine_dir is None:
        return None
    spool = Spool(settings.quarantine_dir, settings.quarantine_bytes)
    spool.prepare()
    return spool


async def _serve(args: argparse.Namespace) -> int:
    return await IoProcess(ControlChannel.from_fd(args.control_fd), args.incarnation).run()


def main() -> int:
    """Start as a child of the supervisor."""
    die_with_parent(int(os.environ[SUPERVISOR_PID_ENV]))
    leave_signals_to_parent()
    parser = argparse.ArgumentParser(prog="mpmsgr.messenger.io")
    for option in ("--control-fd", "--stacks-fd", "--incarnation"):
        parser.add_argument(option, type=int, required=True)
    args = parser.parse_args()
    dump_stacks_on_signal(args.stacks_fd)
    return run(_serve(args))


if __name__ == "__main__":
    raise SystemExit(main())
