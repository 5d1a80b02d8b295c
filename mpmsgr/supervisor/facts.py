"""What the supervisor knows. Its methods record what happened and what was done, nothing else.

Times are monotonic seconds and always arguments; `decide` reads the facts and draws conclusions.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from mpmsgr.supervisor.child import NEVER, Child, Duty, Phase, Running, Slot, Worker
from mpmsgr.supervisor.exits import ExitCode
from mpmsgr.supervisor.limits import Limits
from mpmsgr.supervisor.wear import rss_limit

__all__ = ["Child", "Duty", "Facts", "Limits", "Lost", "Phase", "Running", "Slot", "Worker"]


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

    workers: by slot, free ones too; target: how many are wanted. failure: a child's own words on
    why it cannot start, before the ready line; shortfalls: what a stop left undone; left: whom it
    had to kill; gave_up: the code of a GiveUp.

    revision: of the settings in force. reloading: workers are being renewed; candidate: the
    revision of a reload until a worker is READY with it, candidate_target: its number of workers;
    refusal: words of a worker that cannot start with it; reload_error: why the latest reload came
    to nothing.

    measured_at: when workers were measured last; looked_at: when what they run was. lame_duck:
    nobody new is let in; lame_sent: the I/O process knows.
    """

    limits: Limits
    io: Child
    workers: list[Worker]
    target: int
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
    revision: int = 0
    newest_revision: int = 0
    candidate: int | None = None
    candidate_target: int = 0
    refusal: str = ""
    reloading: bool = False
    reload_error: str = ""
    measured_at: float = NEVER
    looked_at: float = NEVER
    lame_duck: bool = False
    lame_sent: bool = False

    @classmethod
    def of(cls, workers: int, limits: Limits) -> Facts:
        """Nothing started yet."""
        serving = [Worker(slot, duty=Duty.SERVING) for slot in range(workers)]
        return cls(limits, Child(None), serving, workers)

    @property
    def children(self) -> Iterator[Child]:
        """The I/O process, then the workers; free slots are none."""
        yield self.io
        yield from (worker for worker in self.workers if worker.duty is not Duty.NONE)

    def child(self, slot: Slot) -> Child:
        """Whoever is in *slot*."""
        return self.io if slot is None else self.workers[slot]

    def of_duty(self, duty: Duty) -> Iterator[Worker]:
        """The workers' slots of that duty."""
        return (worker for worker in self.workers if worker.duty is duty)

    def is_linked(self, worker: Worker) -> bool:
        """Whether *worker* is READY at the present I/O process."""
        here = self.io.alive and worker.linked == self.io.number
        return here and worker.phase is Phase.READY

    @property
    def starting_revision(self) -> int:
        """Of the settings that workers are started with now."""
        return self.revision if self.candidate is None else self.candidate

    # What children did.

    def ready(self, slot: Slot, incarnation: int = 0, *, shortest_deadline_s: float = 0.0) -> None:
        """It said ``ready``; a worker at *incarnation* of the I/O process."""
        child = self.child(slot)
        child.phase = Phase.READY
        if slot is None:
            self.worked(slot)
        else:
            worker = self.workers[slot]
            worker.linked, worker.shortest_deadline_s = incarnation, shortest_deadline_s

    def worked(self, slot: Slot) -> None:
        """It completed something: its deaths no longer count as those of a crash loop."""
        child = self.child(slot)
        child.worked, child.early_deaths = True, 0

    def failed(self, slot: Slot, text: str) -> None:
        """It cannot start, and says why."""
        if not self.announced and self.failure is None:
            self.failure = (slot, text)
        if slot is not None and self.workers[slot].revision == self.candidate:
            self.refusal = self.refusal or text

    def measured(self, slot: int, handled: int, rss: int) -> None:
        """A worker has handled so many messages, and has so many resident bytes of its own."""
        worker = self.workers[slot]
        worker.handled, worker.rss = handled, rss
        worker.rss_at_ready = worker.rss_at_ready or rss
        above = rss > rss_limit(worker, self.limits)
        worker.swollen = worker.swollen + 1 if above else 0

    def drain_ended(self, undelivered: int, unfinished: bool = False) -> None:
        """The I/O process finished its part of the stop; *unfinished*: time was up before."""
        self.drained = True
        if unfinished:
            self.shortfalls.append("not everything in work was handled")
        if undelivered:
            self.shortfalls.append(f"{undelivered} messages undelivered")

    def retire_ended(self, slot: int, generation: int) -> None:
        """The I/O process says that this worker holds nothing any more."""
        worker = self.workers[slot]
        if worker.duty is Duty.RETIRING and worker.number == generation:
            worker.retired = True

    def channel_closed(self, slot: Slot, now: float) -> None:
        """Its control channel ended; its process may follow."""
        child = self.child(slot)
        if child.eof_at is None:
            child.eof_at = now

    def wants_recycled(self, slot: int, generation: int, why: str) -> None:
        """The I/O process wants that worker replaced, unless it is already."""
        worker = self.workers[slot]
        if worker.alive and worker.number == generation:
            worker.recycle = why
            self.worked(slot)  # it was handed messages: its end is no crash

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
            self._left(self.workers[slot])
        elif self.stop_at is not None and not self.drained and not child.killed:
            self.shortfalls.append(f"{child.name} ended ({cause}) before everything was delivered")

    def _left(self, worker: Worker) -> None:
        """The process of *worker* is gone: who waits to replace it has its place already."""
        successor = self._successor(worker.slot)
        if successor is not None:
            successor.replaces = None
        if successor is not None or worker.duty is Duty.RETIRING:
            _free(worker)

    def _successor(self, slot: int) -> Worker | None:
        return next((worker for worker in self.workers if worker.replaces == slot), None)

    # What the operator asked for.

    def asked_to_stop(self, now: float, *, quick: bool = False) -> None:
        """A stop signal came; *quick*: nothing is waited for any more."""
        if self.stop_at is None:
            self.stop_at = now
        if quick and self.quick_at is None:
            self.quick_at = now

    def asked_to_reload(self, workers: int) -> int:
        """New settings are there, for so many *workers*. Returns their revision.

        Who died again and again may start at once: the reload may bring what it needs.
        """
        self.newest_revision += 1
        self.candidate, self.candidate_target = self.newest_revision, workers
        self.reloading, self.refusal, self.reload_error = True, "", ""
        for worker in self.workers:
            worker.early_deaths = 0
        return self.candidate

    # What the loop did.

    def started(self, slot: Slot, now: float) -> None:
        """A new process is being started in *slot*."""
        child = self.child(slot)
        child.number += 1
        child.phase, child.since = Phase.STARTING, now
        child.worked = child.stop_sent = child.quit_sent = False
        child.killed, child.eof_at = "", None
        if child.name in self.left:
            self.left.remove(child.name)  # killed for a reason of its own, and replaced
        if slot is None:
            self.lost.clear()  # of workers that the new incarnation never knew
            self.lame_sent = False
        else:
            worker = self.workers[slot]
            worker.linked, worker.told = 0, self.io.number
            worker.revision = self.starting_revision
            worker.handled = worker.rss = worker.rss_at_ready = worker.swollen = 0
            worker.recycle, worker.shortest_deadline_s, worker.running = "", 0.0, None
            worker.dumped, worker.dumped_at = 0, NEVER

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

    def hired(self, slot: int, replaces: int | None = None) -> None:
        """The free *slot* is to have a worker, which may replace the one of another slot."""
        if slot == len(self.workers):
            self.workers.append(Worker(slot))
        worker = self.workers[slot]
        worker.duty, worker.replaces = Duty.SERVING, replaces

    def dismissed(self, slot: int, now: float) -> None:
        """The worker of *slot* is not wanted any more; who replaces it takes its place."""
        worker = self.workers[slot]
        successor = self._successor(slot)
        if successor is not None:
            successor.replaces = None
        worker.duty, worker.replaces, worker.retire_at = Duty.RETIRING, None, now
        worker.retire_sent = worker.retired = False
        if not worker.alive:
            _free(worker)

    def reload_committed(self) -> None:
        """A worker is READY with the new settings: they are in force."""
        assert self.candidate is not None
        self.revision, self.candidate = self.candidate, None
        self.target = self.candidate_target

    def reload_abandoned(self, text: str, now: float) -> None:
        """Workers cannot start with the new settings: those in force stay."""
        self.candidate, self.reloading, self.reload_error = None, False, text
        for worker in self.workers:
            if worker.replaces is not None:
                self.dismissed(worker.slot, now)


def _free(worker: Worker) -> None:
    """Nothing is wanted of the slot of *worker* any more."""
    worker.duty, worker.replaces, worker.early_deaths = Duty.NONE, None, 0
