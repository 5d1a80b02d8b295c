"""The supervisor: parent of the I/O process and the workers, starts and replaces both.

`run` serves until stopped. `decide` is the whole of its judgement, a pure function of `facts`; the
loop in `supervisor` only carries out. No user code, no ZeroMQ.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from mpmsgr.supervisor.exits import ExitCode

if TYPE_CHECKING:
    from collections.abc import Callable

    from mpmsgr.config import Settings
    from mpmsgr.supervisor.limits import Limits
    from mpmsgr.supervisor.measures import Handled
    from mpmsgr.supervisor.spawn import Commands

__all__ = ["ExitCode", "run"]


def run(
    settings: Settings,
    *,
    commands: Commands | None = None,
    limits: Limits | None = None,
    reread: Callable[[], Settings] | None = None,
    handled: Handled | None = None,
    origins: Mapping[str, str] | None = None,
) -> int:
    """Serve *settings* until a signal stops it; returns an `ExitCode`. Main thread only.

    Prints ``mpmsgr: ready on HOST:PORT[,HOST:PORT] (N workers)`` on stderr once it can answer, and
    one line of reason for every exit code but 0. docs/operations.md lists the signals. *commands*,
    *limits*: other children, other times than the default. *reread*: reads the settings again, for
    a reload; raises ConfigError. *handled*: how many messages the worker of a slot has handled.
    *origins*: by setting, who said it (see `mpmsgr.config.origins_of`); *reread* keeps it true.
    """
    from mpmsgr.supervisor.service import serve  # a client asks for ExitCode without all this

    return int(serve(settings, commands, limits, reread, handled, origins or {}))
