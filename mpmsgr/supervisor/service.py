"""The supervisor's surroundings: what has to be there before its loop, and to go after it."""

from __future__ import annotations

import dataclasses
import os
import secrets
from collections.abc import Mapping
from contextlib import ExitStack

from mpmsgr.admin.desk import Desk
from mpmsgr.admin.http import HttpServer
from mpmsgr.admin.systemd import activated_sockets, give_back, notifier_of
from mpmsgr.config import Settings, resolve_ways
from mpmsgr.control import encode
from mpmsgr.errors import ConfigError, ProtocolError
from mpmsgr.logs import setup_from
from mpmsgr.messenger.accepter import bind_sockets
from mpmsgr.supervisor.exits import ExitCode
from mpmsgr.supervisor.facts import Limits
from mpmsgr.supervisor.rundir import open_run_dir
from mpmsgr.supervisor.signals import StopSignals
from mpmsgr.supervisor.spawn import Commands, check_platform
from mpmsgr.supervisor.supervisor import Supervisor, close_listeners, say


def serve(
    settings: Settings,
    commands: Commands | None,
    limits: Limits | None,
    origins: Mapping[str, str],
) -> ExitCode:
    """Serve *settings* until stopped; see `mpmsgr.supervisor.run`."""
    try:
        setup_from(settings.as_dict(), "supervisor")
    except OSError as exc:
        say(f"log_file = {settings.log_file!r}: cannot be written: {exc.strerror}")
        return ExitCode.USAGE
    with ExitStack() as stack:
        signals = stack.enter_context(StopSignals())
        try:
            supervisor = _prepare(settings, commands, limits, signals, stack)
            _accompany(supervisor, settings, origins)
        except (ConfigError, OSError) as exc:
            say(str(exc))
            return ExitCode.USAGE
        return supervisor.run()


def _prepare(
    settings: Settings,
    commands: Commands | None,
    limits: Limits | None,
    signals: StopSignals,
    stack: ExitStack,
) -> Supervisor:
    check_platform()
    _check_size(settings)
    run_dir = open_run_dir(settings.run_dir)
    stack.callback(run_dir.remove)
    listeners = activated_sockets(os.environ, settings.auth)
    if listeners:
        stack.callback(give_back, [listener.dup() for listener in listeners])
    else:
        listeners = bind_sockets(settings.bind)
    stack.callback(close_listeners, listeners)
    limits = limits or Limits()
    return Supervisor(
        settings,
        listeners,
        run_dir,
        signals,
        resolve_ways(settings, secrets.randbits(32)).nonce,
        commands or Commands(),
        dataclasses.replace(limits, graceful_timeout_s=settings.graceful_timeout_s),
    )


def _accompany(supervisor: Supervisor, settings: Settings, origins: Mapping[str, str]) -> None:
    """Let operators in, and tell the service manager."""
    if settings.metrics_bind is not None:
        http = HttpServer(settings.metrics_bind, supervisor.run_dir)
        supervisor.companions.append(http)
        supervisor.settings["metrics_bind"] = http.address  # with the port it got
    supervisor.companions.append(Desk(supervisor, origins))
    if notifier := notifier_of(supervisor, os.environ):
        supervisor.companions.append(notifier)


def _check_size(settings: Settings) -> None:
    """Raise ConfigError if the children could not be sent the settings."""
    try:
        encode("start", settings=settings.as_dict(), room="." * 4096)
    except ProtocolError as exc:
        raise ConfigError("options", "...", f"are too long: {exc.allowed} altogether") from None
