"""What the supervisor knows. Its methods record what happened and what was done, nothing else.

Times are monotonic seconds and always arguments; `decide` reads the facts and draws conclusions.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum

from mpmsgr.supervisor.exits import ExitCode

Slot = int | None  # a worker's slot; None is the I/O process
NEVER = float("-inf")


@dataclass(frozen=True)
class Limits:
    """Times and numbers of the decision; durations in seconds.

    boot_timeout_s: from start to READY. crash_limit: early deaths in a row that end the supervisor,
    first_crash_limit: before it was ever ready. backoff_s: after the second early death in a row,
    doubled up to backoff_max_s. stable_s: a process that lived this long did not die early, even
    idle. quick_s: what a quick stop leaves everybody. eof_s: from a closed control channel to
    SIGKILL. close_s: what the I/O process gets in a stop to close the listening sockets before we
    do. stop_reserve_s: the end of the graceful timeout, kept for the workers' on_stop. look_s: the
    longest and look_min_s the shortest time between two looks at what workers with deadlines run.
    """

    graceful_timeout_s: float = 30.0
    boot_timeout_s: float = 30.0
    crash_limit: int = 8
    first_crash_limit: int = 3
    backoff_s: float = 0.1
    backoff_max_s: float = 5.0
    stable_s: float = 60.0
    quick_s: float = 1.0
    eof_s: float = 5.0
    close_s: float = 0.5
    stop_reserve_s: float = 1.0
    look_s: float = 1.0
    look_min_s: float = 0.05


class Phase(Enum):
    """Where the process of a slot is."""

    ABSENT = "absent"
    STARTING = "starting"
    READY = "ready"


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
    deaths in a row before that; told: the incarnation the worker was sent to, linked: the one it
    says it is READY at; cause: of the latest death. shortest_deadline_s: of its handlers, 0 if none
    has one; running: what it was last seen to run; dumped: the number whose stacks were logged,
    dumped_at: when it had been seen; recycle: why the I/O process wants it replaced.
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
    told: int = 0
    linked: int = 0
    shortest_deadline_s: float = 0.0
    running: Running | None = None
    dumped: int = 0
    dumped_at: float = NEVER
    recycle: str = ""

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


@dataclass(frozen=True)
class Lost:
    """A worker that died, as the I/O process has to be told.

    running: numbers of the messages it had begun and not completed, none known if there is no page;
    signal: what ended it, 0 if none did.
    """

    slot: int
    generation: int
    cause: str
    running: tuple[int, ...] = ()
    signal: int = 0


@dataclass
class Facts:
    """Everything `decide` looks at.

    failure: a child's own words on why it cannot start, before the ready line; shortfalls: what a
    stop left undone; left: whom it had to kill; gave_up: the code of a GiveUp; looked_at: when the
    pages were last read.
    """

    limits: Limits
    io: Child
    workers: list[Child]
    lost: list[Lost] = field(default_factory=list)
    announced: bool = False
    failure: tuple[Slot, str] | None = None
    stop_at: float | None = None
    quick_at: float | None = None
    drained: bool = False
    listeners_closed: bool = False
    shortfalls: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)
    gave_up: ExitCode | None = None
    looked_at: float = NEVER

    @classmethod
    def of(cls, workers: int, limits: Limits) -> Facts:
        """Nothing started yet."""
        return cls(limits, Child(None), [Child(slot) for slot in range(workers)])

    @property
    def children(self) -> Iterator[Child]:
        """The I/O process, then the workers."""
        yield self.io
        yield from self.workers

    def child(self, slot: Slot) -> Child:
        """Whoever is in *slot*."""
        return self.io if slot is None else self.workers[slot]

    # What children did.

    def ready(self, slot: Slot, incarnation: int = 0, *, shortest_deadline_s: float = 0.0) -> None:
        """It said ``ready``; a worker at *incarnation* of the I/O process."""
        child = self.child(slot)
        child.phase = Phase.READY
        child.linked = incarnation
        child.shortest_deadline_s = shortest_deadline_s
        if slot is None:
            self.worked(slot)

    def worked(self, slot: Slot) -> None:
        """It completed something: its deaths no longer count as those of a crash loop."""
        child = self.child(slot)
        child.worked, child.early_deaths = True, 0

    def failed(self, slot: Slot, text: str) -> None:
        """It cannot start, and says why."""
        if not self.announced and self.failure is None:
            self.failure = (slot, text)

    def drain_ended(self, undelivered: int) -> None:
        """The I/O process finished its part of the stop."""
        self.drained = True
        if undelivered:
            self.shortfalls.append(f"{undelivered} messages undelivered")

    def channel_closed(self, slot: Slot, now: float) -> None:
        """Its control channel ended; its process may follow."""
        child = self.child(slot)
        if child.eof_at is None:
            child.eof_at = now

    def died(
        self,
        slot: Slot,
        cause: str,
        now: float,
        *,
        running: Sequence[int] = (),
        signal: int = 0,
    ) -> None:
        """Its process is gone, or could not be started.

        *running*, *signal*: see `Lost`. A death with something running is that message's, and none
        of a crash loop: a peer could end the service with a few messages otherwise.
        """
        child = self.child(slot)
        child.cause = f"{cause} ({child.killed})" if child.killed else cause
        early = not child.worked and not running and now - child.since < self.limits.stable_s
        child.early_deaths = child.early_deaths + 1 if early else 0
        child.phase, child.since = Phase.ABSENT, now
        if slot is not None:
            self.lost.append(Lost(slot, child.number, child.cause, tuple(running), signal))
        elif self.stop_at is not None and not self.drained and not child.killed:
            self.shortfalls.append(f"{child.name} ended ({cause}) before everything was delivered")

    def wants_recycled(self, slot: int, generation: int, why: str) -> None:
        """The I/O process wants that worker replaced, unless it is already."""
        worker = self.workers[slot]
        if worker.alive and worker.number == generation:
            worker.recycle = why
            self.worked(slot)  # it was handed messages: its end is no crash

    # What the operator asked for.

    def asked_to_stop(self, now: float, *, quick: bool = False) -> None:
        """A stop signal came; *quick*: nothing is waited for any more."""
        if self.stop_at is None:
            self.stop_at = now
        if quick and self.quick_at is None:
            self.quick_at = now

    # What the loop did.

    def started(self, slot: Slot, now: float) -> None:
        """A new process is being started in *slot*."""
        child = self.child(slot)
        child.number += 1
        child.phase, child.since = Phase.STARTING, now
        child.worked = child.stop_sent = child.quit_sent = False
        child.killed, child.eof_at, child.linked = "", None, 0
        child.told = self.io.number
        child.shortest_deadline_s, child.running, child.recycle = 0.0, None, ""
        child.dumped, child.dumped_at = 0, NEVER
        if child.name in self.left:
            self.left.remove(child.name)  # killed for a reason of its own, and replaced
        if slot is None:
            self.lost.clear()  # of workers that the new incarnation never knew

    def kill_sent(self, slot: Slot, why: str) -> None:
        """It was sent SIGKILL."""
        child = self.child(slot)
        child.killed = why
        if self.stop_at is not None:
            self.left.append(child.name)
            if slot is None and not self.drained:
                self.shortfalls.append(f"what was in flight is lost ({why})")

    def looked(self, running: Mapping[int, Running | None], now: float) -> None:
        """The pages were read: by slot, what is running there."""
        self.looked_at = now
        for slot, seen in running.items():
            self.workers[slot].running = seen

    def dump_sent(self, slot: int) -> None:
        """It was told to write the stacks of what it runs."""
        worker = self.workers[slot]
        if worker.running is not None:
            worker.dumped, worker.dumped_at = worker.running.number, self.looked_at

    def give_up(self, code: ExitCode, now: float) -> None:
        """Nothing can be served: stop at once and exit with *code*."""
        self.gave_up = code
        self.asked_to_stop(now, quick=True)
