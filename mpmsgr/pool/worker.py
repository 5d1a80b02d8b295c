"""The worker process: ``python -m mpmsgr.pool.worker --control-fd N --slot S --generation G``."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
from functools import partial
from typing import Any

from mpmsgr import logs
from mpmsgr.config import Settings, resolve_ways
from mpmsgr.control import MAX_ERROR_TEXT, ControlChannel
from mpmsgr.dispatch.plugins import load_chain
from mpmsgr.errors import PLUGIN_FAILURES
from mpmsgr.loop import relax_collector, run
from mpmsgr.pool.layout import SlotLayout
from mpmsgr.pool.runtime import Runtime
from mpmsgr.pool.worker_memory import WorkerMemory
from mpmsgr.process import (
    SUPERVISOR_PID_ENV,
    die_with_parent,
    dump_stacks_on_signal,
    end_broken,
    leave_signals_to_parent,
    refuse_breakpoints,
    why_not_started,
)

log = logging.getLogger("mpmsgr.worker")

Packet = dict[str, Any]


class WorkerProcess:
    """Loads the modules, serves one I/O process after the other, stops when told."""

    def __init__(self, channel: ControlChannel, slot: int, generation: int) -> None:
        self._channel, self._slot, self._generation = channel, slot, generation
        self._runtime: Runtime | None = None
        self._where: Packet = {}  # the latest packet that says where the I/O process is
        self._memory: WorkerMemory | None = None
        self._arena_bytes = 0
        self._work: asyncio.Task[None] | None = None
        self._status: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    async def run(self) -> int:
        """Serve; returns the exit status."""
        loop = asyncio.get_running_loop()
        loop.add_reader(self._channel.fileno(), self._control)
        self._control()
        return await self._status

    def _control(self) -> None:
        for packet in self._channel.receive():
            op = packet["op"]
            if op in ("start", "link"):
                self._close_arena()
                self._where = packet
            if op == "start":
                self._work = asyncio.ensure_future(self._start(packet))
            elif op == "link":
                self._link()
            elif op == "log_level":
                logs.set_level(packet["level"])
            elif op == "stop":
                self._work = asyncio.ensure_future(self._stop())
            elif op == "reopen_logs":
                logs.reopen()
        if self._channel.eof:
            os._exit(1)  # the supervisor is gone

    async def _start(self, packet: Packet) -> None:
        settings = Settings.from_dict(packet["settings"])
        try:
            logs.setup_from(packet["settings"], f"worker {self._slot}")
            options = settings.options_of(settings.modules)
            chain = load_chain(settings.modules, options, settings.app_dir)
            ways = resolve_ways(settings, 0)
            self._memory = self._map(packet, settings)
            runtime = Runtime(
                chain,
                ways.name,
                self._slot,
                self._generation,
                on_first=self._worked,
                on_busy=self._control,
                on_broken=partial(end_broken, log),
                memory=self._memory,
                limits=ways.limits,
                send_priority=ways.send_priority,
                state_limit=settings.state_bytes,
                held_limit=settings.held_bytes,
                credit=settings.worker_credit,
            )
            await runtime.runner.start()
            self._runtime = runtime
            relax_collector()
            self._link()
        except PLUGIN_FAILURES as err:
            self._channel.send("failed", error=why_not_started(err)[-MAX_ERROR_TEXT:])
            self._channel.drain(1.0)
            self._end(1)

    def _map(self, packet: Packet, settings: Settings) -> WorkerMemory | None:
        """The memory that is shared; its descriptors come with the packet."""
        if "fds" not in packet:
            return None
        sizes, slot_fd = packet["memory"], packet["fds"].pop()
        self._arena_bytes = sizes["arena_bytes"]
        layout = SlotLayout(sizes["ring_bytes"], sizes["worker_arena_bytes"])
        try:
            return WorkerMemory(slot_fd, layout, settings.arena_threshold_bytes)
        finally:
            os.close(slot_fd)

    def _link(self) -> None:
        """Serve the I/O process that the latest packet named."""
        if self._runtime is None:
            return
        where = self._where
        incarnation = where["incarnation"]
        arena = (where["fds"][0], self._arena_bytes) if where.get("fds") else None
        self._runtime.connect(
            where["endpoint"], incarnation, lambda: self._linked(incarnation), arena
        )
        self._close_arena()

    def _close_arena(self) -> None:
        """The arena is mapped, or its I/O process is gone: the descriptor is of no use."""
        for fd in self._where.pop("fds", ()):
            os.close(fd)

    def _linked(self, incarnation: int) -> None:
        assert self._runtime is not None
        deadline_s = self._runtime.shortest_deadline_s
        self._channel.send("ready", incarnation=incarnation, shortest_deadline_s=deadline_s)

    def _worked(self) -> None:
        self._channel.send("worked")

    async def _stop(self) -> None:
        if self._runtime is not None:
            await self._runtime.runner.stop()
            self._runtime.goodbye()
        if self._memory is not None:
            log.debug("bytes of its arena in use at the end: %d", self._memory.used)
        self._end(0)

    def _end(self, status: int) -> None:
        if not self._status.done():
            self._status.set_result(status)


async def _serve(args: argparse.Namespace) -> int:
    channel = ControlChannel.from_fd(args.control_fd)
    return await WorkerProcess(channel, args.slot, args.generation).run()


def main() -> int:
    """Start as a child of the supervisor."""
    die_with_parent(int(os.environ[SUPERVISOR_PID_ENV]))
    leave_signals_to_parent()
    refuse_breakpoints()
    parser = argparse.ArgumentParser(prog="mpmsgr.pool.worker")
    for option in ("--control-fd", "--stacks-fd", "--slot", "--generation"):
        parser.add_argument(option, type=int, required=True)
    args = parser.parse_args()
    dump_stacks_on_signal(args.stacks_fd)
    return run(_serve(args))


if __name__ == "__main__":
    raise SystemExit(main())
