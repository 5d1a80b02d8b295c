"""Histories of endpoints in memory: whatever happens to their connections, promises are kept.

`scripts/simulate --seeds N` runs as many as one wants.
"""

from __future__ import annotations

from collections import Counter

import pytest

from mpmsgr.session.outbox import Outbox
from mpmsgr.session.session import Session
from mpmsgr.session.states import TRANSITIONS, Move, State
from tests.simulation.broken import BROKEN, broken, noticed
from tests.simulation.history import History, fails, live, tell
from tests.simulation.invariants import Violation
from tests.simulation.plan import SETUPS, draw
from tests.simulation.shrink import shrink

SEEDS = 50
#: Seeds in which sessions park before they ever connected, or give up a wait, or end in one.
RARE_MOVES = (4, 6, 22, 32)


@pytest.mark.parametrize("setup", SETUPS)
def test_promises_are_kept(setup: str) -> None:
    delivered = [live(draw(seed, setup)) for seed in range(SEEDS)]
    assert sum(delivered) > 10 * SEEDS  # it is no quiet world


def test_a_seed_is_a_whole_history() -> None:
    for seed in range(3):
        first, second = History(draw(seed)), History(draw(seed))
        assert first.run() == second.run()
        assert tell(first) == tell(second)


def test_states_change_as_the_table_says_and_every_line_of_it_is_used(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: Counter[tuple[State, Move]] = Counter()
    real_move = Session.move

    def move(self: Session, move: Move) -> None:
        seen[self.state, move] += 1
        real_move(self, move)

    monkeypatch.setattr(Session, "move", move)
    for seed in (*RARE_MOVES, *range(400)):
        live(draw(seed, "reusing-peers"))
        if seen.keys() == TRANSITIONS.keys():
            break
    assert seen.keys() == TRANSITIONS.keys()  # another move would have been a KeyError


@pytest.mark.parametrize("rule", BROKEN)
def test_a_broken_rule_is_noticed(rule: str) -> None:
    assert noticed(rule, seeds=300) is not None


def test_a_violation_names_its_seed_and_tells_the_story_of_both_sides() -> None:
    plan = noticed("skip-requeue", seeds=300)
    assert plan is not None
    with broken("skip-requeue"), pytest.raises(Violation) as caught:
        live(plan)
    story = str(caught.value)
    assert f"seed {plan.seed}:" in story
    assert "neither delivered nor reported as lost" in story
    assert " svc.0 " in story
    assert " client.1 " in story


def test_an_error_of_the_code_is_a_violation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(Outbox, "requeue_sent")
    plan = next(plan for plan in map(draw, range(100)) if fails(plan))
    with pytest.raises(Violation, match="requeue_sent"):
        live(plan)


def test_shrinking_finds_a_short_history() -> None:
    plan = noticed("skip-requeue", seeds=300)
    assert plan is not None
    with broken("skip-requeue"):
        short = shrink(plan, fails)
        assert fails(short)
    assert len(short.ops) <= len(plan.ops) // 4
    assert not fails(short)
