"""One child of the supervisor, as it knows it: the I/O process, or the worker of a slot."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

Slot = int | None  # a worker's slot; None is the I/O process
NEVER = float("-inf")


class Phase(Enum):
    """Where the process of a slot is."""

    ABSENT = "absent"
    STARTING = "starting"
    READY = "ready"


class Duty(Enum):
    """What is wanted of a worker's slot."""

    NONE = "none"  # free: it has no process and gets none
    SERVING = "serving"  # a process that dies is replaced
    RETIRING = "retiring"  # what its process holds is finished, then the slot is free


@dataclass(frozen=True)
class Running:
    """What a worker was seen to run: *number* and message type *type*, as the page has them.

    soft_at, hard_at: when its stacks are due to be logged, and it to be killed, inf for never;
    deadline_s: from its start to hard_at.
    """

    number: int
    type: int
    soft_at: float = float("inf")
    hard_at: float = float("inf")
    deadline_s: float = 0.0


@dataclass(eq=False)
class Child:
    """The I/O process or one worker slot, whichever process is in it.

    number: incarnation or generation of the latest process, counted from 1; since: when it was
    started or died; worked: it completed something (the I/O process: was ready); early_deaths:
    deaths in a row before that; cause: of the latest death.
    """

    slot: Slot
    number: int = 0
    phase: Phase = Phase.ABSENT
    since: float = NEVER
    worked: bool = False
    early_deaths: int = 0
    cause: str = ""
    stop_sent: bool = False
    quit_sent: bool = False
    killed: str = ""
    eof_at: float | None = None

    @property
    def name(self) -> str:
        """What to call it in a sentence."""
        return "the I/O process" if self.slot is None else f"worker {self.slot}"

    @property
    def full_name(self) -> str:
        """The same of one process."""
        which = "incarnation" if self.slot is None else "generation"
        return f"{self.name} ({which} {self.number})"

    @property
    def alive(self) -> bool:
        """Whether there is a process."""
        return self.phase is not Phase.ABSENT


@dataclass(eq=False)
class Worker(Child):
    """A worker slot.

    told: the incarnation its process was sent to, linked: the one it says it is READY at.
    revision: of the settings its process was started with. replaces: the slot whose worker goes
    when this one is READY. Of a RETIRING slot: retire_at: since when; retire_sent: the I/O process
    knows; retired: it has nothing of this worker's left.

    luck: from 0 to 1, how far its own limits are below those said; cpu: the one it is bound to.
    handled: messages, rss: resident bytes of its own, both as last measured; rss_at_ready: the
    first measure; swollen: measures above the limit in a row. recycle: why the I/O process wants it
    replaced.

    shortest_deadline_s: of its handlers, 0 if none has one; running: what it was last seen to run;
    dumped: the number whose stacks were logged, dumped_at: when it had been seen.
    """

    slot: int
    told: int = 0
    linked: int = 0
    duty: Duty = Duty.NONE
    revision: int = 0
    replaces: int | None = None
    retire_at: float = NEVER
    retire_sent: bool = False
    retired: bool = False
    luck: float = 0.0
    cpu: int | None = None
    handled: int = 0
    rss: int = 0
    rss_at_ready: int = 0
    swollen: int = 0
    recycle: str = ""
    shortest_deadline_s: float = 0.0
    running: Running | None = None
    dumped: int = 0
    dumped_at: float = NEVER

    @property
    def counts(self) -> bool:
        """Whether it is one of the workers asked for: not leaving, not waiting to replace one."""
        return self.duty is Duty.SERVING and self.replaces is None
