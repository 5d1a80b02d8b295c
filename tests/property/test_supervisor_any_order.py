"""Whatever happens in whatever order: the decision settles, keeps its rules, and a stop ends."""

from __future__ import annotations

import dataclasses

from hypothesis import given
from hypothesis import strategies as st

from mpmsgr.supervisor import actions as do
from mpmsgr.supervisor.decide import decide
from mpmsgr.supervisor.facts import Facts, Limits, Phase, Running

WORKERS = 3
SLOTS = (None, *range(WORKERS))
EVENTS = st.tuples(
    st.sampled_from(
        [
            *("ready", "worked", "died", "closed", "failed", "drained", "stop", "quick", "wait"),
            *("runs", "completes", "recycle"),
        ]
    ),
    st.sampled_from(SLOTS),
    st.floats(0.0, 20.0),
)


class Simulation:
    """Carries out decisions against processes that exist only as facts."""

    def __init__(self) -> None:
        self.facts = Facts.of(WORKERS, Limits())
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
                assert facts.io.alive
                assert facts.quick_at is None
                assert facts.stop_at is None or self.now < facts.stop_at + 30.0
                assert all(lost.slot != slot for lost in facts.lost), "told before replaced"
                facts.started(slot, self.now)
            case do.TellWorkersLost():
                assert facts.io.alive
                facts.lost.clear()
            case do.Link(slot):
                facts.workers[slot].told = facts.io.number
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
                assert facts.workers[slot].alive
                facts.workers[slot].stop_sent = True
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
                facts.looked({slot: self.pages.get(slot) for slot in range(WORKERS)}, self.now)
            case do.Dump(slot):
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

    def happen(self, event: str, slot: int | None, wait_s: float) -> None:
        facts = self.facts
        child = facts.child(slot)
        match event:
            case "ready" if child.phase is Phase.STARTING:
                facts.ready(slot, child.told, shortest_deadline_s=3.0)
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
            case "drained" if facts.io.stop_sent and facts.io.alive and not facts.drained:
                facts.drain_ended(0)
            case "stop" | "quick":
                facts.asked_to_stop(self.now, quick=event == "quick")
            case "wait":
                self.now += wait_s

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


@given(st.lists(EVENTS, max_size=60))
def test_any_order(events: list[tuple[str, int | None, float]]) -> None:
    simulation = Simulation()
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
    deadline = simulation.facts.stop_at + simulation.facts.limits.graceful_timeout_s
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
