"""What the supervisor can decide to do; `decide` returns these, the loop carries them out."""

from __future__ import annotations

from dataclasses import dataclass

from mpmsgr.supervisor.child import Slot
from mpmsgr.supervisor.exits import ExitCode


@dataclass(frozen=True)
class Action:
    """Something to do: a plain value."""


@dataclass(frozen=True)
class WorkerAction(Action):
    """Something to do with the worker in *slot*."""

    slot: int


# The life of processes


class StartIo(Action):
    """Start the next incarnation of the I/O process."""


class StartWorker(WorkerAction):
    """Start the next generation of the worker in *slot*."""


class TellWorkersLost(Action):
    """Tell the I/O process of the workers that died since it was last told."""


class Link(WorkerAction):
    """Send the worker in *slot* to the present incarnation of the I/O process."""


class StopWorker(WorkerAction):
    """Ask the worker in *slot* to finish and end."""


@dataclass(frozen=True)
class Kill(Action):
    """SIGKILL the process in *slot*; *why* becomes its cause of death."""

    slot: Slot
    why: str


# Which slots have a worker


@dataclass(frozen=True)
class Hire(Action):
    """Give the free *slot* a worker; when it is READY it *replaces* the one of another slot.

    why: the reason of a replacement.
    """

    slot: int
    replaces: int | None = None
    why: str = ""


class Dismiss(WorkerAction):
    """Want no worker in *slot* any more."""


class Retire(WorkerAction):
    """Tell the I/O process to give the worker in *slot* nothing new, and to say when it is idle."""


# Reload


class CommitReload(Action):
    """Have the settings of the reload in force."""


@dataclass(frozen=True)
class AbandonReload(Action):
    """Keep the settings in force, since no worker can start with the new ones: *text* says why."""

    text: str


class EndReload(Action):
    """Say that every worker has the settings in force."""


# Watching


class Measure(Action):
    """Measure what READY workers have handled and hold."""


class Look(Action):
    """Read from their pages what the workers are running."""


class DumpLate(WorkerAction):
    """Log that the worker in *slot* takes long over a message, and its stacks."""


# Beginning and end


class AnnounceReady(Action):
    """Print the ready line."""


class LetNobodyIn(Action):
    """Tell the I/O process to accept no more connections."""


@dataclass(frozen=True)
class StopIo(Action):
    """Ask the I/O process to finish what is in flight within *timeout_s*, and to end."""

    timeout_s: float


class QuitIo(Action):
    """Ask the I/O process to end at once."""


class CloseListeners(Action):
    """Shut down and close the listening sockets: nothing is accepted any more."""


@dataclass(frozen=True)
class GiveUp(Action):
    """Print *text* and stop at once, to exit with *code*."""

    code: ExitCode
    text: str


@dataclass(frozen=True)
class Exit(Action):
    """Everybody is gone: return *code*, with the line *text* if there is something to say."""

    code: ExitCode
    text: str = ""


@dataclass(frozen=True)
class WakeAt(Action):
    """Decide again at the monotonic time *at*, if nothing happens before."""

    at: float
