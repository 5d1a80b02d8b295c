"""The supervisor: parent of the I/O process and the workers, starts and replaces both.

`run` serves until stopped. `decide` is the whole of its judgement, a pure function of `facts`; the
loop in `supervisor` only carries out. No user code, no ZeroMQ.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from mpmsgr.supervisor.exits import ExitCode

if TYPE_CHECKING:
    from mpmsgr.config import Settings
    from mpmsgr.supervisor.facts import Limits
    from mpmsgr.supervisor.spawn import Commands

__all__ = ["ExitCode", "run"]


def run(
    settings: Settings,
    *,
    commands: Commands | None = None,
    limits: Limits | None = None,
    origins: Mapping[str, str] | None = None,
) -> int:
    """Serve *settings* until SIGINT or SIGTERM; returns an `ExitCode`. Main thread only.

    Prints ``mpmsgr: ready on HOST:PORT[,HOST:PORT] (N workers)`` on stderr once it can answer, and
    one line of reason for every exit code but 0. A first SIGINT or SIGTERM stops gracefully, a
    SIGINT after it at once. *commands*, *limits*: other children, other times than the default.
    *origins*: by setting, who said it, for the operator (see `mpmsgr.config.origins_of`).
    """
    from mpmsgr.supervisor.service import serve  # a client asks for ExitCode without all this

    return int(serve(settings, commands, limits, origins or {}))
