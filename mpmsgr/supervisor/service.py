"""The supervisor's surroundings: what has to be there before its loop, and to go after it."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable
from contextlib import ExitStack

from mpmsgr.config import Settings, resolve_ways
from mpmsgr.errors import ConfigError
from mpmsgr.logs import setup_logging
from mpmsgr.messenger.accepter import bind_sockets
from mpmsgr.supervisor.affinity import cpus_of
from mpmsgr.supervisor.exits import ExitCode
from mpmsgr.supervisor.launcher import Launcher
from mpmsgr.supervisor.limits import Limits
from mpmsgr.supervisor.measures import Handled
from mpmsgr.supervisor.rundir import open_run_dir
from mpmsgr.supervisor.shared import open_shared
from mpmsgr.supervisor.signals import Signals
from mpmsgr.supervisor.spawn import Commands, check_platform
from mpmsgr.supervisor.supervisor import Supervisor, check_size, close_listeners, say
from mpmsgr.supervisor.watch import SourceWatch

log = logging.getLogger("mpmsgr.supervisor")


def serve(
    settings: Settings,
    commands: Commands | None,
    limits: Limits | None,
    reread: Callable[[], Settings] | None,
    handled: Handled | None,
) -> ExitCode:
    """Serve *settings* until stopped; see `mpmsgr.supervisor.run`."""
    with ExitStack() as stack:
        signals = stack.enter_context(Signals())
        try:
            setup_logging(settings.log_level, "supervisor", settings.log_file)
            check_platform()
            check_size(settings)
            cpus_of(settings.cpu_affinity)
            run_dir = open_run_dir(settings.run_dir)
            stack.callback(run_dir.remove)
            listeners = bind_sockets(settings.bind)
            stack.callback(close_listeners, listeners)
            shared = open_shared(settings)
            stack.callback(shared.close)
            watch = stack.enter_context(SourceWatch(settings.app_dir)) if settings.reload else None
        except (ConfigError, OSError) as exc:
            say(str(exc))
            return ExitCode.USAGE
        if settings.max_messages and not shared.slots:
            log.warning("max_messages is not kept without workers and arena_bytes")
        nonce = resolve_ways(settings, secrets.randbits(32)).nonce
        launcher = Launcher(commands or Commands(), listeners, run_dir, nonce, shared)
        supervisor = Supervisor(
            settings, launcher, signals, limits or Limits(), reread, handled or shared.handled
        )
        if watch is not None:
            supervisor.reload_with(watch)
        return supervisor.run()
