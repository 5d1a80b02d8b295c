"""What the supervisor can decide to do; `decide` returns these, the loop carries them out."""

from __future__ import annotations

from dataclasses import dataclass

from mpmsgr.supervisor.child import Slot
from mpmsgr.supervisor.exits import ExitCode


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
class Hire:
    """Give the free *slot* a worker; when it is READY it *replaces* the one of another slot.

    why: the reason of a replacement.
    """

    slot: int
    replaces: int | None = None
    why: str = ""


@dataclass(frozen=True)
class Dismiss:
    """Want no worker in *slot* any more."""

    slot: int


@dataclass(frozen=True)
class Retire:
    """Tell the I/O process to give the worker in *slot* nothing new, and to say when it is idle."""

    slot: int


@dataclass(frozen=True)
class CommitReload:
    """Have the settings of the reload in force."""


@dataclass(frozen=True)
class AbandonReload:
    """Keep the settings in force, since no worker can start with the new ones: *text* says why."""

    text: str


@dataclass(frozen=True)
class EndReload:
    """Say that every worker has the settings in force."""


@dataclass(frozen=True)
class Measure:
    """Measure what READY workers have handled and hold."""


@dataclass(frozen=True)
class LetNobodyIn:
    """Tell the I/O process to accept no more connections."""


@dataclass(frozen=True)
class DumpStacks:
    """Have the process in *slot*, if there is one, write the stacks of its threads to stderr."""

    slot: Slot


@dataclass(frozen=True)
class StopQuickly:
    """Begin a quick stop."""


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
class DumpLate:
    """Log that the worker in *slot* takes long over a message, and its stacks."""

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
    | Hire
    | Dismiss
    | Retire
    | CommitReload
    | AbandonReload
    | EndReload
    | Measure
    | LetNobodyIn
    | DumpStacks
    | StopQuickly
    | StopIo
    | QuitIo
    | StopWorker
    | CloseListeners
    | Kill
    | Look
    | DumpLate
    | GiveUp
    | Exit
    | WakeAt
)
