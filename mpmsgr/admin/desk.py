"""Where an operator's requests arrive: the verbs of the admin socket."""

from __future__ import annotations

import dataclasses
import logging
import signal
import time
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

from mpmsgr.admin import rows
from mpmsgr.admin.health import is_ready, readiness, state_of
from mpmsgr.admin.inquiries import Inquiries
from mpmsgr.admin.lines import SOCKET_NAME, Request
from mpmsgr.admin.server import AdminServer, Reply
from mpmsgr.config.settings import BY_NAME, no_such
from mpmsgr.errors import ConfigError
from mpmsgr.logs import reopen, set_level
from mpmsgr.supervisor.companion import Companion
from mpmsgr.supervisor.facts import Slot
from mpmsgr.supervisor.supervisor import Supervisor

log = logging.getLogger("mpmsgr.admin")

Verb = Callable[[dict[str, Any], Reply], None]

#: What the I/O process knows, by the name it has there as well.
_INQUIRIES = (
    "sessions",
    "kick",
    "throttles",
    "arena",
    "lanes",
    "state",
    "groups",
    "load",
)
#: Verbs that are signals: what they do is what the signal does.
_SIGNALS = {
    "drain": signal.SIGTERM,
    "lame_duck": signal.SIGUSR2,
    "reload": signal.SIGHUP,
}


class Desk(Companion):
    """The admin socket of *supervisor*, in its run directory; *origins*: who said each setting."""

    def __init__(self, supervisor: Supervisor, origins: Mapping[str, str]) -> None:
        self._supervisor = supervisor
        self._origins = dict(origins)
        self._deaths: Counter[str] = Counter(io=0, worker=0)
        self._inquiries = Inquiries(supervisor)
        self._verbs: dict[str, Verb] = {
            "status": self._status,
            "workers": self._workers,
            "health": self._health,
            "config": self._config,
            "config_set": self._config_set,
            "perf": self._perf,
            "scale": self._scale,
            "log_level": self._log_level,
            "log_reopen": self._log_reopen,
            **{what: self._inquiry(what) for what in _INQUIRIES},
            **{verb: self._signal(verb, number) for verb, number in _SIGNALS.items()},
        }
        path = supervisor.run_dir / SOCKET_NAME
        self._server = AdminServer(path, supervisor.selector, self._asked)

    # as a companion

    def told(self, slot: Slot, packet: Mapping[str, Any]) -> None:
        """See `Companion`."""
        self._inquiries.told(slot, dict(packet))

    def ended(self, slot: Slot) -> None:
        """See `Companion`."""
        self._deaths["io" if slot is None else "worker"] += 1
        self._inquiries.ended(slot)

    def close(self) -> None:
        """See `Companion`."""
        self._server.close()

    # verbs

    def _asked(self, request: Request, reply: Reply) -> None:
        verb = self._verbs.get(request.verb)
        if verb is None:
            reply.fail("request", f"verb {request.verb!r} {no_such(request.verb, self._verbs)}")
            return
        try:
            verb(request.args, reply)
        except ConfigError as exc:
            reply.fail("request", str(exc))
        except KeyError as exc:
            reply.fail("request", f"argument {exc.args[0]!r} is missing")

    def _inquiry(self, what: str) -> Verb:
        return lambda args, reply: self._inquiries.ask(what, args, reply)

    def _status(self, args: dict[str, Any], reply: Reply) -> None:
        reply.end(rows.status(self._supervisor, time.monotonic()))

    def _workers(self, args: dict[str, Any], reply: Reply) -> None:
        reply.end(rows.worker_rows(self._supervisor, time.monotonic()))

    def _health(self, args: dict[str, Any], reply: Reply) -> None:
        facts = self._supervisor.facts
        checks = [check._asdict() for check in readiness(facts)]
        reply.end({"ready": is_ready(facts), "state": state_of(facts), "checks": checks})

    def _perf(self, args: dict[str, Any], reply: Reply) -> None:
        """Of the supervisor alone with ``own``; else what the I/O process counts."""
        if args.get("own"):
            now = time.monotonic()
            reply.end({"supervisor": rows.counters(self._supervisor, self._deaths, now)})
        else:
            self._inquiries.ask("perf", args, reply)

    # settings

    def _config(self, args: dict[str, Any], reply: Reply) -> None:
        reply.end(rows.config_rows(self._supervisor.settings, self._origins))

    def _config_set(self, args: dict[str, Any], reply: Reply) -> None:
        name = args["name"]
        if name not in BY_NAME:
            raise ConfigError(name, args["value"], no_such(name, BY_NAME))
        if name not in rows.LIVE:
            live = ", ".join(rows.LIVE)
            raise ConfigError(name, args["value"], f"takes a new start; can be set now: {live}")
        value = BY_NAME[name].read(args["value"], name)
        self._set(name, value)
        reply.end({"name": name, "value": value})

    def _set(self, name: str, value: Any) -> None:
        supervisor = self._supervisor
        supervisor.settings[name] = value
        self._origins[name] = "set at run time"
        if name == "log_level":
            set_level(value)
            self._tell_all("log_level", level=value)
        else:
            facts = supervisor.facts
            facts.limits = dataclasses.replace(facts.limits, **{name: value})
        log.warning("%s is %s from now on, by the operator", name, value)

    def _log_level(self, args: dict[str, Any], reply: Reply) -> None:
        self._config_set({"name": "log_level", "value": args["level"]}, reply)

    def _log_reopen(self, args: dict[str, Any], reply: Reply) -> None:
        reopen()
        self._tell_all("reopen_logs")
        reply.end({"log_file": self._supervisor.settings["log_file"]})

    def _tell_all(self, op: str, **fields: Any) -> None:
        for child in self._supervisor.facts.children:
            self._supervisor.tell(child.slot, op, **fields)

    # what signals do

    def _signal(self, verb: str, number: signal.Signals) -> Verb:
        def send(args: dict[str, Any], reply: Reply) -> None:
            if _raise(number, reply):
                log.warning("%s, by the operator", verb)
                reply.end({"asked": verb})

        return send

    def _scale(self, args: dict[str, Any], reply: Reply) -> None:
        wanted = BY_NAME["workers"].read(args["workers"], "workers")
        now = len(self._supervisor.facts.workers)
        if not wanted or not now:
            raise ConfigError("workers", wanted, "takes a new start where one of both is 0")
        number = signal.SIGTTIN if wanted > now else signal.SIGTTOU
        for _ in range(abs(wanted - now)):
            if not _raise(number, reply):
                return
        log.warning("%d workers instead of %d, by the operator", wanted, now)
        reply.end({"workers": wanted, "before": now})


def _raise(number: signal.Signals, reply: Reply) -> bool:
    """Raise *number* in this process, as if it was sent; False: it would not be understood."""
    if signal.getsignal(number) in (signal.SIG_DFL, signal.SIG_IGN, None):
        reply.fail("unavailable", f"this server does not act on {number.name}")
        return False
    signal.raise_signal(number)
    return True
