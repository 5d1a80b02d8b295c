"""Where an operator's requests arrive: the verbs of the admin socket."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

from mpmsgr.admin import rows
from mpmsgr.admin.health import readiness, state_of
from mpmsgr.admin.inquiries import Inquiries
from mpmsgr.admin.lines import SOCKET_NAME, Request
from mpmsgr.admin.server import AdminServer, Reply
from mpmsgr.config import OPTIONS, Settings
from mpmsgr.config.settings import BY_NAME, no_such
from mpmsgr.errors import ConfigError
from mpmsgr.supervisor.affinity import cpus_of
from mpmsgr.supervisor.child import Slot
from mpmsgr.supervisor.companion import Companion
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


class Desk(Companion):
    """The admin socket of *supervisor*, in its run directory.

    origins: who said each setting, as it is now; metrics: HOST:PORT where they are served.
    """

    def __init__(
        self, supervisor: Supervisor, origins: Mapping[str, str], metrics: str = ""
    ) -> None:
        self._supervisor = supervisor
        self._origins, self._metrics = origins, metrics
        self._set_here: set[str] = set()
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
            "drain": self._drain,
            "lame_duck": self._lame_duck,
            "reload": self._reload,
            **{what: self._inquiry(what) for what in _INQUIRIES},
        }
        path = supervisor.run_dir / SOCKET_NAME
        self._server = AdminServer(path, supervisor.children.selector, self._asked)

    # as a companion

    def told(self, slot: Slot, packet: Mapping[str, Any]) -> None:
        """See `Companion`."""
        self._inquiries.told(slot, dict(packet))

    def ended(self, slot: Slot) -> None:
        """See `Companion`."""
        self._deaths["io" if slot is None else "worker"] += 1
        self._inquiries.ended(slot)

    def reloading(self) -> None:
        """See `Companion`."""
        self._set_here.clear()

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
        status = rows.status(self._supervisor, time.monotonic())
        reply.end(status | {"metrics": self._metrics})

    def _workers(self, args: dict[str, Any], reply: Reply) -> None:
        reply.end(rows.worker_rows(self._supervisor, time.monotonic()))

    def _health(self, args: dict[str, Any], reply: Reply) -> None:
        facts, now = self._supervisor.facts, time.monotonic()
        checks = readiness(facts, now)
        reply.end(
            {
                "ready": all(check.ok for check in checks),
                "state": state_of(facts, now),
                "checks": [check._asdict() for check in checks],
            }
        )

    def _perf(self, args: dict[str, Any], reply: Reply) -> None:
        """Of the supervisor alone with ``own``; else what the I/O process counts."""
        if args.get("own"):
            now = time.monotonic()
            reply.end({"supervisor": rows.counters(self._supervisor, self._deaths, now)})
        else:
            self._inquiries.ask("perf", args, reply)

    # settings

    def _config(self, args: dict[str, Any], reply: Reply) -> None:
        origins = {**self._origins, **dict.fromkeys(self._set_here, "set at run time")}
        reply.end(rows.config_rows(self._supervisor.settings, origins))

    def _config_set(self, args: dict[str, Any], reply: Reply) -> None:
        name = args["name"]
        if name not in BY_NAME:
            raise ConfigError(name, args["value"], no_such(name, BY_NAME))
        option = BY_NAME[name]
        if not option.live:
            live = ", ".join(o.name for o in OPTIONS if o.live)
            takes = rows.change_takes(option)
            raise ConfigError(name, args["value"], f"takes a {takes}; can be set now: {live}")
        value = option.read(args["value"], name)
        self._set(name, value)
        reply.end({"name": name, "value": value})

    def _set(self, name: str, value: Any) -> None:
        supervisor = self._supervisor
        settings = Settings.from_dict({**supervisor.settings, name: value})
        cpus_of(settings.cpu_affinity)
        supervisor.settings[name] = value
        self._set_here.add(name)
        supervisor.apply(settings)
        if name == "log_level":  # of the workers there are, too: those of a reload start with it
            supervisor.children.broadcast("log_level", level=value)
        log.warning("%s is %s from now on, by the operator", name, value)

    def _log_level(self, args: dict[str, Any], reply: Reply) -> None:
        self._config_set({"name": "log_level", "value": args["level"]}, reply)

    def _log_reopen(self, args: dict[str, Any], reply: Reply) -> None:
        self._supervisor.reopen_logs()
        reply.end({"log_file": self._supervisor.settings["log_file"]})

    # what signals do, too

    def _drain(self, args: dict[str, Any], reply: Reply) -> None:
        log.warning("stopping, by the operator")
        reply.end({"asked": "drain"})
        self._supervisor.stop()

    def _lame_duck(self, args: dict[str, Any], reply: Reply) -> None:
        self._supervisor.let_nobody_in()
        reply.end({"asked": "lame duck"})

    def _reload(self, args: dict[str, Any], reply: Reply) -> None:
        self._supervisor.reload()
        reply.end({"asked": "reload", "restart_needed": self._supervisor.restart_needed})

    def _scale(self, args: dict[str, Any], reply: Reply) -> None:
        before = self._supervisor.facts.target
        self._supervisor.scale(args["workers"])
        reply.end({"workers": self._supervisor.facts.target, "before": before})
