"""What a service manager gives and wants to know: sockets, and notes of readiness.

Source: sd_listen_fds(3), sd_notify(3), systemd.service(5) of ``Type=notify-reload``.
"""

from __future__ import annotations

import logging
import os
import socket
import time
from collections.abc import MutableMapping
from ipaddress import ip_address

from mpmsgr.admin.health import state_of
from mpmsgr.errors import ConfigError
from mpmsgr.messenger.accepter import BACKLOG
from mpmsgr.supervisor.companion import Companion
from mpmsgr.supervisor.facts import Facts
from mpmsgr.supervisor.supervisor import Supervisor

log = logging.getLogger("mpmsgr.systemd")

_FIRST_FD = 3


def activated_sockets(environ: MutableMapping[str, str], auth: str | None) -> list[socket.socket]:
    """The listening TCP sockets we were started with, [] if that was not so.

    The variables that told are taken out of *environ*: they are not for our children. Raises
    ConfigError for a socket that is none, or is reachable from elsewhere without *auth*.
    """
    pid, count = environ.pop("LISTEN_PID", ""), environ.pop("LISTEN_FDS", "")
    environ.pop("LISTEN_FDNAMES", None)
    if pid != str(os.getpid()) or not count.isdigit():
        return []
    return [_activated(fd, auth) for fd in range(_FIRST_FD, _FIRST_FD + int(count))]


def _activated(fd: int, auth: str | None) -> socket.socket:
    try:
        sock = socket.socket(fileno=fd)
        listens = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    except OSError as exc:
        raise ConfigError("LISTEN_FDS", fd, f"must be a socket: {exc.strerror}") from None
    if sock.family not in (socket.AF_INET, socket.AF_INET6) or not listens:
        raise ConfigError("LISTEN_FDS", fd, "must be a TCP socket that listens")
    host = sock.getsockname()[0]
    if auth is None and not ip_address(host.partition("%")[0]).is_loopback:
        text = "is reachable from other hosts, so --auth must be said: none lets anyone connect"
        raise ConfigError("LISTEN_FDS", host, text)
    sock.setblocking(False)
    sock.set_inheritable(False)
    return sock


def give_back(copies: list[socket.socket]) -> None:
    """Have activated sockets listen again: a stop shut them, for the service manager as well.

    Who connects from now on waits for the next start.
    """
    for sock in copies:
        with sock:
            # Shut twice (by the I/O process and by us) it would hand on to every accepted socket
            # that it is shut; shutting a socket that listens clears that (inet_shutdown).
            sock.listen(BACKLOG)
            sock.shutdown(socket.SHUT_RDWR)
            sock.listen(BACKLOG)


class Notifier(Companion):
    """Tells the service manager how *supervisor* is doing; see `notifier_of`."""

    def __init__(self, supervisor: Supervisor, path: str, watchdog_s: float | None) -> None:
        self._supervisor = supervisor
        self._path = "\0" + path[1:] if path.startswith("@") else path
        self._watchdog_s = watchdog_s
        self._fed_at = 0.0
        self._sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._sock.setblocking(False)
        self._phase = self._status = ""
        self._reloads = False

    def reloading(self) -> None:
        """See `Companion`."""
        self._reloads = True
        self._send("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def settled(self, now: float) -> float:
        """See `Companion`."""
        facts = self._supervisor.facts
        notes = [*self._phase_notes(facts), *self._status_note(facts)]
        if self._watchdog_s is not None and now >= self._fed_at + self._watchdog_s / 2:
            self._fed_at = now
            notes.append("WATCHDOG=1")
        if notes:
            self._send(*notes)
        return float("inf") if self._watchdog_s is None else self._fed_at + self._watchdog_s / 2

    def close(self) -> None:
        """See `Companion`."""
        self._sock.close()

    def _phase_notes(self, facts: Facts) -> list[str]:
        """READY once, and after each reload; STOPPING once."""
        phase = "STOPPING=1" if facts.stop_at is not None else "READY=1" if facts.announced else ""
        reloaded = self._reloads and phase == "READY=1" and not facts.reloading
        if phase == self._phase and not reloaded:
            return []
        self._phase, self._reloads = phase, False
        return [phase] if phase else []

    def _status_note(self, facts: Facts) -> list[str]:
        ready = sum(map(facts.is_linked, facts.workers))
        where = ", ".join(self._supervisor.addresses) or "nowhere yet"
        state = state_of(facts, time.monotonic())
        status = f"{state} at {where}, {ready} of {facts.target} workers ready"
        if status == self._status:
            return []
        self._status = status
        return [f"STATUS={status}"]

    def _send(self, *notes: str) -> None:
        try:
            self._sock.sendto("\n".join(notes).encode(), self._path)
        except OSError as exc:
            log.debug("the service manager cannot be told: %s", exc)


def notifier_of(supervisor: Supervisor, environ: MutableMapping[str, str]) -> Notifier | None:
    """What tells the service manager that *environ* names, None if there is none.

    Its variables are taken out of *environ*.
    """
    path = environ.pop("NOTIFY_SOCKET", "")
    usec, pid = environ.pop("WATCHDOG_USEC", ""), environ.pop("WATCHDOG_PID", "")
    if path[:1] not in ("/", "@"):
        return None
    watched = usec.isdigit() and int(usec) and pid in ("", str(os.getpid()))
    return Notifier(supervisor, path, int(usec) / 1e6 if watched else None)
