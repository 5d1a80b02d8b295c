"""The supervisor's surroundings: what has to be there before its loop, and to go after it."""

from __future__ import annotations

import dataclasses
import secrets
from contextlib import ExitStack

from mpmsgr.config import Settings, resolve_ways
from mpmsgr.control import encode
from mpmsgr.errors import ConfigError, ProtocolError
from mpmsgr.logs import setup_logging
from mpmsgr.messenger.accepter import bind_sockets
from mpmsgr.supervisor.exits import ExitCode
from mpmsgr.supervisor.facts import Limits
from mpmsgr.supervisor.rundir import open_run_dir
from mpmsgr.supervisor.shared import open_shared
from mpmsgr.supervisor.signals import StopSignals
from mpmsgr.supervisor.spawn import Commands, check_platform
from mpmsgr.supervisor.supervisor import Supervisor, close_listeners, say


def serve(settings: Settings, commands: Commands | None, limits: Limits | None) -> ExitCode:
    """Serve *settings* until stopped; see `mpmsgr.supervisor.run`."""
    setup_logging(settings.log_level, "supervisor")
    with ExitStack() as stack:
        signals = stack.enter_context(StopSignals())
        try:
            supervisor = _prepare(settings, commands, limits, signals, stack)
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
    listeners = bind_sockets(settings.bind)
    stack.callback(close_listeners, listeners)
    shared = open_shared(settings)
    stack.callback(shared.close)
    limits = limits or Limits()
    return Supervisor(
        settings,
        listeners,
        run_dir,
        signals,
        resolve_ways(settings, secrets.randbits(32)).nonce,
        commands or Commands(),
        dataclasses.replace(limits, graceful_timeout_s=settings.graceful_timeout_s),
        shared,
    )


def _check_size(settings: Settings) -> None:
    """Raise ConfigError if the children could not be sent the settings."""
    try:
        encode("start", settings=settings.as_dict(), room="." * 4096)
    except ProtocolError as exc:
        raise ConfigError("options", "...", f"are too long: {exc.allowed} altogether") from None
