"""A child that does what its command line says: ``io|worker BEHAVIOUR[@N] JOURNAL ...``.

With @N only generations up to N behave so, later ones are good. The options of a module "fake" in
the settings go over the command line: {"worker": "exit"}. Every packet a child gets goes into the
journal, a JSON line each, so that a test can wait for it; of descriptors it has what they are.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import re
import select
import socket
import sys
import time
from collections.abc import Callable
from typing import Any, NoReturn

from mpmsgr.control import ControlChannel, Packet
from mpmsgr.pool import page
from mpmsgr.pool.mapping import Mapping
from mpmsgr.process import (
    SUPERVISOR_PID_ENV,
    die_with_parent,
    dump_stacks_on_signal,
    leave_signals_to_parent,
)

#: What a worker says of itself that "hangs".
SOFT_S, HARD_S = 0.1, 0.4


class Fake:
    """One child; a method per packet and one per behaviour."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.role: str = args.role
        self.number = args.incarnation or args.generation
        self.behaviour = self.behaves(args.behaviour)
        self.slot = args.slot
        self.journal = os.open(args.journal, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        self.channel = ControlChannel.from_fd(args.control_fd)
        self.listeners: list[socket.socket] = []
        self.ballast = b""
        self.page: page.Page | None = None

    def behaves(self, told: str) -> str:
        name, _, until = told.partition("@")
        return name if self.number <= int(until or 1 << 32) else "good"

    def run(self) -> NoReturn:
        if self.behaviour == "deaf":
            self.note({"op": "up"})
            spin()
        while not self.channel.eof:
            watched: list[ControlChannel | socket.socket] = [self.channel, *self.listeners]
            for readable in select.select(watched, [], [])[0]:
                if isinstance(readable, socket.socket):
                    self.accept(readable)
            for packet in self.channel.receive():
                self.map_page(packet)
                self.note(packet)
                getattr(self, f"on_{packet['op']}", self.ignore)(packet)
                for fd in packet.get("fds", ()):
                    os.close(fd)
        sys.exit(0)

    def note(self, packet: Packet) -> None:
        line = {"role": self.role, "slot": self.slot, "number": self.number, "pid": os.getpid()}
        line |= {key: value for key, value in packet.items() if key != "settings"}
        if "fds" in packet:
            line["fds"] = [described(fd) for fd in packet["fds"]]
        if self.page is not None:
            line["begun"] = self.page.started()
        os.write(self.journal, json.dumps(line).encode() + b"\n")

    def map_page(self, packet: Packet) -> None:
        if self.role == "worker" and packet["op"] == "start" and "fds" in packet:
            mapping = Mapping(packet["fds"][1], page.SIZE, writable=True)
            self.page = page.Page(mapping.raw(0, page.SIZE))

    def accept(self, listener: socket.socket) -> None:
        """Answers every connection with the incarnation that took it."""
        try:
            connection, _ = listener.accept()
        except OSError:  # the supervisor shut it down
            self.listeners.remove(listener)
            return
        with connection:
            connection.sendall(str(self.number).encode())

    def on_start(self, packet: Packet) -> None:
        told = packet["settings"]["options"].get("fake", {})
        if self.role in told:
            self.behaviour = self.behaves(told[self.role])
        match self.behaviour:
            case "exit":
                sys.exit(7)
            case "exits-later" if self.number > 1:
                sys.exit(7)
            case "unloadable":
                self.channel.send("failed", error="no module named 'nowhere'")
                sys.exit(1)
            case "unready":
                return
            case "garbage":
                os.write(self.channel.fileno(), b"\xc1")
                return
        if self.role == "io":
            self.listeners = [socket.socket(fileno=fd) for fd in packet["listen_fds"]]
            names = [listener.getsockname() for listener in self.listeners]
            addrs = [f"{host}:{port}/{packet['nonce']}" for host, port in names]
            self.channel.send("ready", addrs=addrs)
        else:
            if self.behaviour == "runs":
                self.begin()
            shortest_s = HARD_S if self.behaviour == "hangs" else 0.0
            where = packet["incarnation"]
            self.channel.send("ready", incarnation=where, shortest_deadline_s=shortest_s)
        match self.behaviour:
            case "spins":
                spin(lambda: self.note({"op": "spins"}))
            case "hangs":
                self.begin(SOFT_S, HARD_S)
                spin()
            case "works-and-exits":
                self.channel.send("worked")
                sys.exit(7)

    def begin(self, soft_s: float = 0.0, hard_s: float = 0.0) -> None:
        """Runs message 41; 42 and 43 have begun and wait for something."""
        assert self.page is not None
        cells, now = self.page.cells, time.monotonic_ns()
        self.page.begin_async(43)
        self.page.begin_async(42)
        cells[page.TYPE], cells[page.STARTED_NS] = 0x8001, now
        cells[page.SOFT_NS] = now + int(soft_s * 1e9) if soft_s else 0
        cells[page.HARD_NS] = now + int(hard_s * 1e9) if hard_s else 0
        cells[page.RUNNING] = 41

    def on_slot_memory(self, packet: Packet) -> None:
        if self.behaviour == "recycles" and packet["slot"] == 1:
            self.channel.send("recycle", slot=1, generation=1, why="keeps a lease since 300 s")

    def on_link(self, packet: Packet) -> None:
        self.channel.send("ready", incarnation=packet["incarnation"])

    def on_stop(self, packet: Packet) -> None:
        if self.behaviour == "stubborn":
            return
        if self.role == "io":
            undelivered = 3 if self.behaviour == "undelivered" else 0
            self.channel.send("drained", undelivered=undelivered, unfinished=False)
        sys.exit(0)

    def on_retire(self, packet: Packet) -> None:
        if self.behaviour != "keeps-workers":
            self.channel.send("retired", slot=packet["slot"], generation=packet["generation"])

    def on_reopen_logs(self, packet: Packet) -> None:
        if self.behaviour == "grows":
            self.ballast = b"x" * (64 << 20)

    def on_quit(self, packet: Packet) -> None:
        if self.behaviour != "stubborn":
            sys.exit(0)

    def ignore(self, packet: Packet) -> None:
        pass


def described(fd: int) -> dict[str, Any]:
    """Tells descriptors apart: `file` is one memfd's only."""
    info, flags = os.fstat(fd), fcntl.fcntl(fd, fcntl.F_GETFL)
    return {
        "name": os.readlink(f"/proc/self/fd/{fd}").split()[0],
        "file": info.st_ino,
        "bytes": info.st_size,
        "writable": flags & os.O_ACCMODE != os.O_RDONLY,
    }


def spin(begun: Callable[[], None] = lambda: None) -> Any:
    """One call into C that holds the GIL for longer than any test lasts; *begun* is called here."""
    begun()
    return re.match(r"(a+)+$", "a" * 60 + "b")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("role")
    parser.add_argument("behaviour")
    parser.add_argument("journal")
    parser.add_argument("--control-fd", type=int, required=True)
    parser.add_argument("--stacks-fd", type=int, required=True)
    parser.add_argument("--incarnation", type=int)
    parser.add_argument("--slot", type=int)
    parser.add_argument("--generation", type=int)
    return parser.parse_args()


if __name__ == "__main__":
    die_with_parent(int(os.environ[SUPERVISOR_PID_ENV]))
    leave_signals_to_parent()
    args = arguments()
    dump_stacks_on_signal(args.stacks_fd)
    Fake(args).run()
