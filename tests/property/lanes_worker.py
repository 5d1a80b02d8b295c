"""A worker as the model of the pool has it: callbacks per lane, numbers, counters page, recalls."""

from __future__ import annotations

from collections import deque
from typing import Any, NamedTuple

from mpmsgr.dispatch.lanes import Lane, Worker
from mpmsgr.dispatch.serial import RUNNING, STOPPED, Serial
from mpmsgr.dispatch.state import State


class Item:
    """A message, and what really became of it.

    limit: deaths it may cause, 0 = any number; attempt, deaths: what it is to be told, and was
    charged with; suspect: it was running when a worker died, but not alone; runs_at, done_at: the
    worker where it runs, or has completed, which nobody knows yet; again_at: where it asked to run
    again, which nobody knows yet; fate: "handled", "poisoned" or "discarded".
    """

    def __init__(
        self,
        name: int,
        lane: ModelLane,
        session: int,
        seq: int,
        priority: int,
        size: int,
        limit: int,
    ) -> None:
        self.name, self.lane, self.session, self.seq = name, lane, session, seq
        self.priority, self.size, self.limit = priority, size, limit
        self.attempt, self.deaths = 1, 0
        self.suspect = False
        self.runs_at: ModelWorker | None = None
        self.done_at: ModelWorker | None = None
        self.again_at: ModelWorker | None = None
        self.fate: str | None = None

    @property
    def is_to_run(self) -> bool:
        """Is nobody running it, nor has anybody done so?"""
        return not (self.fate or self.runs_at or self.done_at or self.again_at)

    def __len__(self) -> int:
        return self.size

    def __repr__(self) -> str:
        return f"<{self.name} of lane {self.lane.id}>"


class ModelLane(Lane[Item]):
    """A lane of the pool. arrivals: all that came, in order; state: what is committed; applied: the
    names that it should hold; holds: why the lane is held; known_to: the worker it was told of.
    """

    __slots__ = ("applied", "arrivals", "holds", "known_to", "state")

    def __init__(self, id_: int) -> None:
        super().__init__(id_)
        self.arrivals: list[Item] = []
        self.applied: list[int] = []
        self.holds: set[str] = set()
        self.known_to: Worker | None = None
        self.state = b""

    @property
    def waiting(self) -> list[Item]:
        """What should be in the queue."""
        out = {getattr(item, "item", item) for item in self.inflight + (self.redo or [])}
        return [item for item in self.arrivals if item.fate is None and item not in out]

    def before(self, item: Item) -> list[Item]:
        """What has to be handled before *item*, and was not."""
        earlier = self.arrivals[: self.arrivals.index(item)]
        return [one for one in earlier if one.priority == item.priority and one.fate is None]


class Run(NamedTuple):
    """A callback at work."""

    item: Item
    serial: Serial
    number: int


class Report:
    """What a batch says of one lane. applied: names that its *state* has, and had not before."""

    def __init__(self) -> None:
        self.completed = 0
        self.applied: list[int] = []
        self.state: bytes | None = None
        self.retry = False


class ModelWorker:
    """What runs in the worker's process. record: what the I/O process knows of it.

    begun, recall and `page` are the cells of its counters page; inbox: what is on its way here;
    frames: what it has sent. It does one thing at a time: `sync` runs, or it takes the next record,
    or goes on with one of `started`.
    """

    def __init__(self, record: Worker) -> None:
        self.record = record
        self.alive = True
        self.begun = self.recall = 0
        self.sync: Run | None = None
        self.started: dict[int, Run] = {}
        self.told: set[int] = set()  # of these, which the front was told of
        self.inbox: deque[tuple[Any, ...]] = deque()
        self.frames: deque[tuple[Any, ...]] = deque()
        self._gate: tuple[ModelLane, Item, int] | None = None
        self._number = self._epoch = self._stopped_at = 0
        self._serials: dict[ModelLane, Serial] = {}
        self._reports: dict[ModelLane, Report] = {}

    @property
    def page(self) -> set[int]:
        """Numbers of what has begun and not completed."""
        return {run.number for run in self.running}

    @property
    def running(self) -> list[Run]:
        """All that has begun and not completed."""
        return [*self.started.values(), *filter(None, [self.sync])]

    @property
    def is_free(self) -> bool:
        """May it do something else?"""
        return self.alive and self.sync is None

    @property
    def is_busy(self) -> bool:
        """Has it begun something, and holds something?"""
        return self.alive and self.begun > 0 and self.record.held > 0

    @property
    def has_work(self) -> bool:
        """Does anything run, or wait to be taken?"""
        return bool(self.sync or self._gate or self.inbox)

    @property
    def says(self) -> bool:
        """Has it something to report?"""
        return bool(self._reports) or self.told != set(self.started)

    # records in

    def step(self) -> bool:
        """Go as far as to BEGUN with the next record, or from there on; False: there is none."""
        if self._gate is not None:
            self._look()
        elif self.inbox:
            self._take(*self.inbox.popleft())
        else:
            return False
        return True

    def _take(self, what: str, *said: Any) -> None:
        if what == "lane":
            lane, packed = said
            self._serials[lane] = serial = Serial(lane.id)
            serial.state = State(packed)
        elif what == "forget":
            self._serials.pop(said[0], None)
        elif what == "anew":
            serial = self._serials[said[0]]
            serial.waiting.clear()
            serial.blocked &= ~STOPPED
        elif what == "recalled":
            self.flush()
            self.frames.append(("stopped", said[0], self._stopped_at or self._number + 1))
            self._epoch, self._stopped_at = said[0], 0
        else:
            self._number += 1
            if not self._stopped_at:
                self.begun = self._number
                self._gate = (*said, self._number)

    def _look(self) -> None:
        """It has said how far it got, and looks whether it is to go on."""
        assert self._gate is not None
        (lane, again, number), self._gate = self._gate, None
        if self.recall != self._epoch:
            self._stopped_at = number
        else:
            self._submit(self._serials[lane], again, number)

    def _submit(self, serial: Serial, again: Any, number: int) -> None:
        if serial.blocked:
            serial.waiting.append((again, "", number))
        else:
            attempt, item = again
            self._start(Run(item, serial, number), attempt)

    def _start(self, run: Run, attempt: int) -> None:
        """The facts that no handler may ever find otherwise."""
        item = run.item
        assert item.is_to_run, "runs twice"
        assert attempt == item.attempt
        assert all(one.done_at is self for one in item.lane.before(item)), "out of order"
        assert not any(one.runs_at for one in item.lane.arrivals), "beside another of its lane"
        assert not item.suspect or set(self.started) <= self.told, "a suspect beside others"
        assert not any(other.item.suspect for other in self.running), "others beside a suspect"
        assert run.serial.state is not None
        assert run.serial.state.value.get("applied", []) == self._applied(item.lane)
        item.runs_at = self
        self.sync = run

    def _applied(self, lane: ModelLane) -> list[int]:
        """The names that the state of *lane* should hold here."""
        batches = [frame[1] for frame in self.frames if frame[0] == "batch"] + [self._reports]
        reports = [batch[lane] for batch in batches if lane in batch]
        return lane.applied + [name for report in reports for name in report.applied]

    # callbacks

    def suspend(self) -> None:
        """What runs goes on in a task."""
        run = self._sync()
        self.started[run.number] = run
        run.serial.blocked |= RUNNING

    def finish(self, outcome: str, number: int = 0) -> None:
        """What runs, or task *number*, ends: "done", "failed" or "retry"."""
        run = self.started.pop(number) if number else self._sync()
        run.serial.blocked &= ~RUNNING
        run.item.runs_at = None
        report = self._reports.setdefault(run.item.lane, Report())
        state = run.serial.state
        assert state is not None
        if outcome == "done":
            self._apply(run, state, report)
        else:
            state.value["applied"] = "of one that failed"
            state.roll_back()
        if outcome == "retry":
            run.item.again_at = self
            report.retry = True
            run.serial.blocked |= STOPPED
        else:
            run.item.done_at = self
            report.completed += 1
        self._go_on(run.serial)

    def _sync(self) -> Run:
        run, self.sync = self.sync, None
        assert run is not None
        return run

    def _apply(self, run: Run, state: State, report: Report) -> None:
        state.value.setdefault("applied", []).append(run.item.name)
        packed = state.encode()
        assert packed is not None
        state.commit(packed)
        report.state = packed
        report.applied.append(run.item.name)

    def _go_on(self, serial: Serial) -> None:
        if serial.waiting and not serial.blocked:
            again, _, number = serial.waiting.popleft()
            self._submit(serial, again, number)

    # frames out

    def flush(self) -> None:
        """Send what is there to be said."""
        if self.says:
            waiting = [run.item for run in self.started.values()]
            self.told = set(self.started)
            self.frames.append(("batch", self._reports, waiting))
            self._reports = {}
