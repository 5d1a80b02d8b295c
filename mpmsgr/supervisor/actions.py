"""What the supervisor can decide to do; `decide` returns these, the loop carries them out."""

from __future__ import annotations

from dataclasses import dataclass

from mpmsgr.supervisor.exits import ExitCode
from mpmsgr.supervisor.facts import Slot


@dataclass(frozen=True)
class StartIo:
    """Start the next incarnation of the I/O process."""


@dataclass(frozen=True)
class StartWorker:
    """Start the next generation of the worker in *slot*."""

    slot: int


@dataclass(frozen=True)
class TellWorkersLost:
    """Tell the I/O process of the workers that died since it was last told."""


@dataclass(frozen=True)
class Link:
    """Send the worker in *slot* to the present incarnation of the I/O process."""

    slot: int


@dataclass(frozen=True)
class AnnounceReady:
    """Print the ready line."""


@dataclass(frozen=True)
class StopIo:
    """Ask the I/O process to finish what is in flight within *timeout_s*, and to end."""

    timeout_s: float


@dataclass(frozen=True)
class QuitIo:
    """Ask the I/O process to end at once."""


@dataclass(frozen=True)
class StopWorker:
    """Ask the worker in *slot* to finish and end."""

    slot: int


@dataclass(frozen=True)
class CloseListeners:
    """Shut down and close the listening sockets: nothing is accepted any more."""


@dataclass(frozen=True)
class Kill:
    """SIGKILL the process in *slot*; *why* becomes its cause of death."""

    slot: Slot
    why: str


@dataclass(frozen=True)
class Look:
    """Read from their pages what the workers are running."""


@dataclass(frozen=True)
class Dump:
    """Have the worker in *slot* write its stacks to the log."""

    slot: int


@dataclass(frozen=True)
class GiveUp:
    """Print *text* and stop at once, to exit with *code*."""

    code: ExitCode
    text: str


@dataclass(frozen=True)
class Exit:
    """Everybody is gone: return *code*, with the line *text* if there is something to say."""

    code: ExitCode
    text: str = ""


@dataclass(frozen=True)
class WakeAt:
    """Decide again at the monotonic time *at*, if nothing happens before."""

    at: float


Action = (
    StartIo
    | StartWorker
    | TellWorkersLost
    | Link
    | AnnounceReady
    | StopIo
    | QuitIo
    | StopWorker
    | CloseListeners
    | Kill
    | Look
    | Dump
    | GiveUp
    | Exit
    | WakeAt
)
