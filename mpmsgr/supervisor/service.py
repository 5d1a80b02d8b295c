"""The supervisor's surroundings: what has to be there before its loop, and to go after it."""

from __future__ import annotations

import logging
import os
import secrets
from collections.abc import Callable, Mapping
from contextlib import ExitStack

from mpmsgr.admin.desk import Desk
from mpmsgr.admin.http import HttpServer
from mpmsgr.admin.systemd import activated_sockets, give_back, notifier_of
from mpmsgr.config import Settings, resolve_ways
from mpmsgr.errors import ConfigError
from mpmsgr.logs import setup_from
from mpmsgr.messenger.accepter import bind_sockets
from mpmsgr.pool.spool import Spool
from mpmsgr.supervisor.affinity import cpus_of
from mpmsgr.supervisor.exits import ExitCode
from mpmsgr.supervisor.launcher import Launcher
from mpmsgr.supervisor.limits import Limits
from mpmsgr.supervisor.measures import Handled
from mpmsgr.supervisor.rundir import RunDir, open_run_dir
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
    origins: Mapping[str, str],
) -> ExitCode:
    """Serve *settings* until stopped; see `mpmsgr.supervisor.run`."""
    _fill_standard_descriptors()
    with ExitStack() as stack:
        signals = stack.enter_context(Signals())
        try:
            _begin_log(settings)
            check_platform()
            check_size(settings)
            cpus_of(settings.cpu_affinity)
            _prepare_quarantine(settings)
            run_dir = open_run_dir(settings.run_dir)
            stack.callback(run_dir.remove)
            listeners = activated_sockets(os.environ, settings.auth)
            if listeners:
                stack.callback(give_back, [listener.dup() for listener in listeners])
            else:
                listeners = bind_sockets(settings.bind)
            stack.callback(close_listeners, listeners)
            shared = open_shared(settings)
            stack.callback(shared.close)
            watch = stack.enter_context(SourceWatch(settings.app_dir)) if settings.reload else None
            http = _http(settings, run_dir, stack)
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
        supervisor.companions.append(Desk(supervisor, origins, http.address if http else ""))
        if notifier := notifier_of(supervisor, os.environ):
            supervisor.companions.append(notifier)
        return supervisor.run()


def _fill_standard_descriptors() -> None:
    """Have 0, 1 and 2 open: else sockets get these numbers, and lose them in the children."""
    while (fd := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(fd, True)
    os.close(fd)


def _begin_log(settings: Settings) -> None:
    try:
        setup_from(settings.as_dict(), "supervisor")
    except OSError as exc:
        why = f"cannot be opened: {exc.strerror}"
        raise ConfigError("log_file", settings.log_file, why) from None


def _prepare_quarantine(settings: Settings) -> None:
    if settings.quarantine_dir is None:
        return
    try:
        Spool(settings.quarantine_dir).prepare()
    except OSError as exc:
        why = f"cannot be made: {exc.strerror}"
        raise ConfigError("quarantine_dir", settings.quarantine_dir, why) from None


def _http(settings: Settings, run_dir: RunDir, stack: ExitStack) -> HttpServer | None:
    """Metrics and health, where they are wanted; served until *stack* unwinds."""
    if settings.metrics_bind is None:
        return None
    http = HttpServer(settings.metrics_bind, run_dir.path)
    stack.callback(http.close)
    return http
