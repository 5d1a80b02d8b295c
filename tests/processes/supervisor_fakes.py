"""A child that does what its command line says: ``io|worker BEHAVIOUR[@N] JOURNAL ...``.

With @N only generations up to N behave so, later ones are good. The options of a module "fake" in
the settings go over the command line: {"worker": "exit"}. Every packet a child gets goes into the
journal, a JSON line each, so that a test can wait for it.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import select
import socket
import sys
from contextlib import suppress
from typing import Any, NoReturn

from mpmsgr.control import ControlChannel, Packet
from mpmsgr.process import (
    SUPERVISOR_PID_ENV,
    die_with_parent,
    dump_stacks_on_signal,
    leave_signals_to_parent,
)


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

    def behaves(self, told: str) -> str:
        name, _, until = told.partition("@")
        return name if self.number <= int(until or 1 << 32) else "good"

    def run(self) -> NoReturn:
        if self.behaviour == "deaf":
            spin()
        while not self.channel.eof:
            watched: list[ControlChannel | socket.socket] = [self.channel, *self.listeners]
            for readable in select.select(watched, [], [])[0]:
                if isinstance(readable, socket.socket):
                    self.accept(readable)
            for packet in self.channel.receive():
                self.note(packet)
                getattr(self, f"on_{packet['op']}", self.ignore)(packet)
        sys.exit(0)

    def note(self, packet: Packet) -> None:
        line = {"role": self.role, "slot": self.slot, "number": self.number, "pid": os.getpid()}
        line |= {key: value for key, value in packet.items() if key != "settings"}
        os.write(self.journal, json.dumps(line).encode() + b"\n")

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
            self.channel.send("ready", incarnation=packet["incarnation"])
        match self.behaviour:
            case "spins":
                spin()
            case "works-and-exits":
                self.channel.send("worked")
                sys.exit(7)

    def on_link(self, packet: Packet) -> None:
        self.channel.send("ready", incarnation=packet["incarnation"])

    def on_stop(self, packet: Packet) -> None:
        if self.behaviour == "stubborn":
            return
        if self.role == "io":
            self.channel.send("drained", undelivered=3 if self.behaviour == "undelivered" else 0)
        sys.exit(0)

    def on_retire(self, packet: Packet) -> None:
        if self.behaviour != "keeps-workers":
            self.channel.send("retired", slot=packet["slot"], generation=packet["generation"])

    def on_lame_duck(self, packet: Packet) -> None:
        for listener in self.listeners:
            with suppress(OSError):  # the one before us did it
                listener.shutdown(socket.SHUT_RDWR)
            listener.close()
        self.listeners.clear()

    def on_reopen_logs(self, packet: Packet) -> None:
        if self.behaviour == "grows":
            self.ballast = b"x" * (64 << 20)

    def on_quit(self, packet: Packet) -> None:
        if self.behaviour != "stubborn":
            sys.exit(0)

    def ignore(self, packet: Packet) -> None:
        pass


def spin() -> Any:
    """One call into C that holds the GIL for longer than any test lasts."""
    return re.match(r"(a+)+$", "a" * 60 + "b")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("role")
    parser.add_argument("behaviour")
    parser.add_argument("journal")
    parser.add_argument("--control-fd", type=int, required=True)
    parser.add_argument("--incarnation", type=int)
    parser.add_argument("--slot", type=int)
    parser.add_argument("--generation", type=int)
    return parser.parse_args()


if __name__ == "__main__":
    die_with_parent(int(os.environ[SUPERVISOR_PID_ENV]))
    leave_signals_to_parent()
    dump_stacks_on_signal()
    Fake(arguments()).run()
