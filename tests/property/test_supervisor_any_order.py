"""Whatever happens in whatever order: the decision settles, keeps its rules, and a stop ends."""

from __future__ import annotations

import dataclasses

from hypothesis import given
from hypothesis import strategies as st

from mpmsgr.supervisor import actions as do
from mpmsgr.supervisor.child import Duty, Phase, Running, Worker
from mpmsgr.supervisor.decide import decide
from mpmsgr.supervisor.facts import Facts
from mpmsgr.supervisor.limits import Limits

WORKERS = 3
MOST_WORKERS = 5
SLOTS = (None, *range(MOST_WORKERS + 1))
OF_CHILDREN = (
    *("ready", "ready", "worked", "died", "closed", "failed", "retired", "drained", "wait"),
    *("runs", "completes", "recycle"),
)
OF_OPERATOR = ("reload", "more", "fewer", "lame duck", "stop", "quick")
EVENTS = st.tuples(
    st.sampled_from(OF_CHILDREN + OF_OPERATOR),
    st.sampled_from(SLOTS),
    st.floats(0.0, 20.0),
)


class Simulation:
    """Carries out decisions against processes that exist only as facts."""

    def __init__(self, limits: Limits | None = None) -> None:
        self.facts = Facts.of(WORKERS, limits or Limits())
        self.now = 0.0
        self.exit: do.Exit | None = None
        self.wake_at: float | None = None
        self.said_ready = 0
        self.pages: dict[int, Running] = {}
        self.messages = 0
        self.dumped: set[int] = set()

    def settle(self) -> None:
        """Decide until only waiting is left, which must take few rounds."""
        for _ in range(10):
            actions = decide(self.facts, self.now)
            assert actions == decide(self.facts, self.now)
            self.wake_at = next((a.at for a in actions if isinstance(a, do.WakeAt)), None)
            todo = [a for a in actions if not isinstance(a, do.WakeAt)]
            if not todo or self.exit:
                assert self.wake_at is None or self.wake_at > self.now
                return
            for action in todo:
                self.carry_out(action)
        raise AssertionError(f"does not settle: {todo}")

    def carry_out(self, action: do.Action) -> None:
        facts = self.facts
        match action:
            case do.StartIo():
                assert not facts.io.alive
                assert facts.stop_at is None
                facts.started(None, self.now)
            case do.StartWorker(slot):
                assert not facts.workers[slot].alive
                assert facts.workers[slot].duty is Duty.SERVING
                assert facts.io.alive
                assert facts.quick_at is None
                assert facts.stop_at is None or self.now < facts.stop_at + 30.0
                assert all(lost.slot != slot for lost in facts.lost), "told before replaced"
                facts.started(slot, self.now)
            case do.TellWorkersLost():
                assert facts.io.alive
                facts.lost.clear()
            case do.Link(slot):
                assert facts.workers[slot].duty is Duty.SERVING
                facts.workers[slot].told = facts.io.number
            case do.Hire(slot, replaces):
                assert facts.stop_at is None
                assert slot <= facts.target, "one spare slot is enough"
                if replaces is not None:
                    assert facts.is_linked(facts.workers[replaces])
                facts.hired(slot, replaces)
            case do.Dismiss(slot):
                self.dismiss(slot)
            case do.Retire(slot):
                assert facts.is_linked(facts.workers[slot])
                assert not facts.workers[slot].retire_sent
                facts.workers[slot].retire_sent = True
            case do.CommitReload():
                facts.reload_committed()
            case do.AbandonReload(text):
                assert text
                facts.reload_abandoned(text, self.now)
            case do.EndReload():
                assert all(w.revision == facts.revision for w in facts.of_duty(Duty.SERVING))
                assert len(list(facts.of_duty(Duty.SERVING))) == facts.target
                facts.reloading = False
            case do.Measure():
                facts.measured_at = self.now
                for worker in facts.workers:
                    facts.measured(worker.slot, worker.handled + 1, 0)
            case do.LetNobodyIn():
                assert facts.io.alive
                facts.lame_sent = True
            case do.AnnounceReady():
                self.said_ready += 1
                facts.announced = True
            case do.StopIo():
                assert not facts.io.stop_sent
                facts.io.stop_sent = True
            case do.QuitIo():
                assert facts.io.alive
                facts.io.quit_sent = True
            case do.StopWorker(slot):
                self.stop_worker(facts.workers[slot])
            case do.CloseListeners():
                assert not facts.listeners_closed
                facts.listeners_closed = True
            case do.Kill(slot, why):
                assert facts.child(slot).alive
                assert not facts.child(slot).killed
                if "deadline" in why:
                    assert slot is not None
                    assert self.pages[slot].hard_at <= self.now
                facts.kill_sent(slot, why)
            case do.Look():
                assert self.now >= facts.looked_at + facts.limits.look_min_s
                seen = {worker.slot: self.pages.get(worker.slot) for worker in facts.workers}
                facts.looked(seen, self.now)
            case do.DumpLate(slot):
                assert self.pages[slot].soft_at <= self.now
                assert self.pages[slot].number not in self.dumped
                self.dumped.add(self.pages[slot].number)
                facts.dump_sent(slot)
            case do.GiveUp(code, text):
                assert text
                facts.give_up(code, self.now)
            case do.Exit():
                assert not any(child.alive for child in facts.children)
                assert facts.listeners_closed
                self.exit = action

    def dismiss(self, slot: int) -> None:
        """Nobody goes whom nobody replaces, unless fewer are wanted."""
        facts = self.facts
        others = [w for w in facts.of_duty(Duty.SERVING) if w.slot != slot]
        assert facts.workers[slot].duty is Duty.SERVING
        assert len(others) >= facts.target
        successors = [w for w in others if w.replaces == slot]
        assert all(map(facts.is_linked, successors))
        facts.dismissed(slot, self.now)

    def stop_worker(self, worker: Worker) -> None:
        """Nobody that holds messages is told to stop, unless everybody is."""
        assert worker.alive
        assert not worker.stop_sent
        if self.facts.stop_at is None:
            assert worker.duty is Duty.RETIRING
            assert worker.retired or not self.facts.is_linked(worker)
        worker.stop_sent = True

    def happen(self, event: str, slot: int | None, wait_s: float) -> None:
        facts = self.facts
        if slot is not None and slot >= len(facts.workers):
            slot = 0
        if event in OF_CHILDREN:
            self.child_does(event, slot, wait_s)
        elif facts.stop_at is None or event in ("stop", "quick"):
            self.operator_does(event)

    def child_does(self, event: str, slot: int | None, wait_s: float) -> None:
        facts, child = self.facts, self.facts.child(slot)
        match event:
            case "ready" if child.phase is Phase.STARTING or (child.alive and slot is not None):
                told = child.told if isinstance(child, Worker) else 0
                facts.ready(slot, told, shortest_deadline_s=3.0)
            case "runs" if slot is not None and child.phase is Phase.READY:
                self.messages += 1
                due = self.now + wait_s
                self.pages[slot] = Running(self.messages, 0x8001, due, due + 1.0)
            case "completes" if slot is not None:
                self.pages.pop(slot, None)
            case "recycle" if slot is not None:
                facts.wants_recycled(slot, child.number, "keeps what is not its own")
            case "worked" if child.phase is Phase.READY:
                facts.worked(slot)
            case "died" if child.alive:
                self.died(slot)
            case "closed" if child.alive:
                facts.channel_closed(slot, self.now)
            case "failed" if child.phase is Phase.STARTING:
                facts.failed(slot, "cannot")
            case "retired" if isinstance(child, Worker) and child.retire_sent:
                facts.retire_ended(child.slot, child.number)
            case "drained" if facts.io.stop_sent and facts.io.alive and not facts.drained:
                facts.drain_ended(0)
            case "wait":
                self.now += wait_s

    def operator_does(self, event: str) -> None:
        facts = self.facts
        match event:
            case "reload" if facts.announced:
                facts.asked_to_reload(facts.target)
            case "more":
                facts.target = min(facts.target + 1, MOST_WORKERS)
            case "fewer":
                facts.target = max(facts.target - 1, 1)
            case "lame duck":
                facts.lame_duck = True
            case "stop" | "quick":
                facts.asked_to_stop(self.now, quick=event == "quick")

    def died(self, slot: int | None) -> None:
        ran = self.pages.pop(slot, None) if slot is not None else None
        self.facts.died(slot, "signal 9", self.now, running=[ran.number] if ran else [])

    def finish(self) -> None:
        """Nobody does anything any more but die when killed."""
        self.facts.asked_to_stop(self.now)
        for _ in range(100):  # some looks at what runs, until patience ends
            self.settle()
            if self.exit:
                return
            if self.wake_at is not None:
                self.now = self.wake_at
            for child in self.facts.children:
                if child.alive and child.killed:
                    self.died(child.slot)
        raise AssertionError("the stop does not end")


LIMITS = st.builds(
    Limits,
    max_lifetime_s=st.sampled_from([0.0, 0.0, 15.0]),
    max_messages=st.sampled_from([0, 0, 3]),
)


@given(st.lists(EVENTS, max_size=60), LIMITS)
def test_any_order(events: list[tuple[str, int | None, float]], limits: Limits) -> None:
    simulation = Simulation(limits)
    simulation.settle()
    for event in events:
        simulation.happen(*event)
        simulation.settle()
        if simulation.exit:
            break
    left_alone_at = simulation.now
    if not simulation.exit:
        simulation.finish()
    assert simulation.said_ready <= 1
    assert simulation.facts.stop_at is not None
    deadline = simulation.facts.stop_at + limits.graceful_timeout_s
    assert simulation.now <= max(left_alone_at, deadline)


@given(st.lists(EVENTS, max_size=40), st.floats(0.0, 100.0))
def test_deciding_changes_no_facts(
    events: list[tuple[str, int | None, float]], later: float
) -> None:
    simulation = Simulation()
    for event in events:
        simulation.happen(*event)
        simulation.settle()
    before = dataclasses.asdict(simulation.facts)
    decide(simulation.facts, simulation.now + later)
    assert dataclasses.asdict(simulation.facts) == before


@given(st.lists(EVENTS, max_size=60))
def test_all_ends_well_when_everybody_behaves(events: list[tuple[str, int | None, float]]) -> None:
    """From wherever things got: so many workers as wanted, all with the settings in force."""
    simulation = Simulation()
    for event in events:
        if event[0] not in ("failed", "stop", "quick"):
            simulation.happen(*event)
            simulation.settle()
    facts = simulation.facts
    for _ in range(200):
        if facts.stop_at is not None:
            return  # it gave up
        behave(simulation)
        simulation.settle()
        if simulation.wake_at is not None:
            simulation.now = simulation.wake_at
    serving = list(facts.of_duty(Duty.SERVING))
    assert len(serving) == facts.target
    assert all(facts.is_linked(w) and w.revision == facts.revision for w in serving)
    assert not any(worker.alive for worker in facts.workers if worker not in serving)
    assert facts.announced
    assert not facts.reloading


def behave(simulation: Simulation) -> None:
    """Everybody does what it was told."""
    facts = simulation.facts
    for child in facts.children:
        if child.alive and (child.killed or child.stop_sent):
            facts.died(child.slot, "exit 0", simulation.now)
        elif isinstance(child, Worker):
            if child.alive:
                facts.ready(child.slot, child.told)
            if child.retire_sent:
                facts.retire_ended(child.slot, child.number)
        elif child.phase is Phase.STARTING:
            facts.ready(None)
