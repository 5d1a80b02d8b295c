"""Policy x breakpoint x (fault, block, stall): what happens is written down in fault_matrix.txt.

A difference is a decision to take: ``python -m tests.unit.test_fault_matrix`` prints the table as
it is now. Whatever the table says, `judge` holds for each of its cases.
"""

from __future__ import annotations

from itertools import chain
from pathlib import Path

import pytest

from mpmsgr.session.states import State
from tests.simulation.breakpoints import (
    SECTIONS,
    Outcome,
    Pair,
    Section,
    a_forgets,
    b_forgets,
    race,
)
from tests.simulation.host import Host, Track
from tests.simulation.invariants import check_host, unsettled
from tests.simulation.plan import SETUPS
from tests.simulation.traps import Act, Point

TABLE = Path(__file__).with_name("fault_matrix.txt")
LEGEND = """\
What a trap at a breakpoint of a connection comes to: tests/unit/test_fault_matrix.py.

A connection advances step by step; a trap springs once, before or after one side writes or reads
one step. Fault: that side's socket breaks. Block: that side writes (or reads) nothing for 2 s.
Stall: it never does again, and the socket stays open. Counters of a | of b, "." for 0:

    dials connects accepts remote_resets resets lost delivered

Breakpoints with the same outcome are put together, in the order of the steps.
"""


def lines(section: Section) -> list[str]:
    """The table of *section*; each case is judged."""
    points = section.points()
    calm, pair = section.outcome(None)
    judge(section, pair)
    found = ["", section.title, _line("no trap, or a block anywhere", calm)]
    for act in Act:
        outcomes = [trapped(section, point, act) for point in points]
        if act is Act.BLOCK:
            assert set(outcomes) == {calm}, "a block makes nobody give up"
        else:
            found += [f"  {act.value}", *_merged(points, outcomes)]
    return found


def trapped(section: Section, point: Point, act: Act) -> Outcome:
    """The outcome of one case."""
    outcome, pair = section.outcome(point, act)
    assert pair.network.armed is None, f"never came to {point}"
    try:
        judge(section, pair)
    except AssertionError as err:
        story = "\n".join(map(str, pair.books.story))
        raise AssertionError(f"{section.title}, {act.value} {point}: {err}\n{story}") from err
    return outcome


def judge(section: Section, pair: Pair) -> None:
    """All is well again, and no message was delivered twice, out of order, or lost silently."""
    for host in (pair.a, pair.b):
        check_host(host)
        assert not host.endpoint.counters.hostile
    assert not unsettled([pair.a, pair.b])
    if SETUPS[section.setup].lossy:
        return
    tracks = [*pair.a.tracks.values(), *pair.b.tracks.values()]
    forgetful = section.script in (a_forgets, b_forgets)
    # Row 5 of the decision: when READY is lost, the next connect looks like that of a peer that
    # lost its session, and what waits for it is dropped; in a race, something does.
    losing = forgetful or (section.script is race and SETUPS[section.setup].listens.resetcheck)
    for host, other in ((pair.a, pair.b), (pair.b, pair.a)):
        sent = _all(host, "sent")
        delivered, lost = _all(other, "delivered"), _all(host, "lost")
        assert delivered == [tid for tid in sent if tid not in lost]
        assert losing or not lost
    assert not any(track.ended for track in tracks) or forgetful
    for host in (pair.a, pair.b):
        (session,) = host.endpoint.registry
        assert session.state is State.OPEN


def _all(host: Host, what: str) -> list[int]:
    tracks: list[Track] = list(host.tracks.values())
    return sorted(chain.from_iterable(getattr(track, what) for track in tracks))


def _merged(points: list[Point], outcomes: list[Outcome]) -> list[str]:
    found: list[str] = []
    first = 0
    for i, outcome in enumerate(outcomes):
        if i + 1 == len(outcomes) or outcomes[i + 1] != outcome:
            last = f" .. {points[i]}" if i > first else ""
            found.append(_line(f"  {points[first]}{last}", outcome))
            first = i + 1
    return found


def _line(what: str, outcome: Outcome) -> str:
    return f"  {what:<64} {outcome}"


@pytest.fixture(scope="module")
def table() -> dict[str, list[str]]:
    """The lines of each section, by title."""
    sections: dict[str, list[str]] = {}
    for block in TABLE.read_text().removeprefix(LEGEND).split("\n\n"):
        written = block.strip("\n").splitlines()
        sections[written[0]] = ["", *written]
    return sections


@pytest.mark.parametrize("section", SECTIONS, ids=lambda section: section.title)
def test_every_breakpoint(section: Section, table: dict[str, list[str]]) -> None:
    assert lines(section) == table.pop(section.title)


def test_the_table_has_no_other_sections() -> None:
    titles = [line for line in TABLE.read_text().splitlines() if line in _TITLES]
    assert titles == [section.title for section in SECTIONS]


_TITLES = {section.title for section in SECTIONS}


if __name__ == "__main__":
    print(LEGEND + "\n".join(chain.from_iterable(map(lines, SECTIONS))))
