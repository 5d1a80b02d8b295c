"""Messages that do not wait for credit: the most urgent ones, and those of urgent lanes."""

from __future__ import annotations

from typing import NamedTuple

import pytest

from mpmsgr.dispatch.lanes import Lane, Lanes
from mpmsgr.wire.message import PRIO_DEFAULT, PRIO_HIGHEST

#: What workers take beyond their credit.
EXTRA = 4


class Item(NamedTuple):
    """A message as long as a test says."""

    name: str
    priority: int = PRIO_DEFAULT
    size: int = 10

    def __len__(self) -> int:
        return self.size


class Crew:
    """Lanes over so many workers of some credit, and what each lane was given."""

    def __init__(self, workers: int = 1, credit: int = 3) -> None:
        self.lanes: Lanes[Item] = Lanes(
            credit, lambda item: (item.priority, len(item)), lambda item: 0
        )
        for slot in range(workers):
            self.lanes.ready(slot, 1)
        self.given: list[str] = []
        self._ids = iter(range(1, 1000))

    def lane(self, urgent: bool = False) -> Lane[Item]:
        lane = Lane[Item](next(self._ids))
        lane.urgent = urgent
        return lane

    def put(self, lane: Lane[Item], *items: Item) -> None:
        """They wait, and are handed out as far as it goes."""
        self.lanes.wait(lane, items)
        for found, run in self.lanes.runnable():
            self.lanes.hand_out(found, run, sum(map(len, run)))
            self.given += [item.name for item in run]  # type: ignore[union-attr]

    def fill(self, size: int = 10) -> None:
        """The workers hold all they may, and more waits."""
        for slot in range(10 * len(self.lanes.workers)):
            self.put(self.lane(), Item(f"ordinary {slot}", size=size))
        self.given.clear()


@pytest.mark.parametrize("urgent", [False, True])
def test_urgent_messages_go_to_a_worker_that_is_full(urgent: bool) -> None:
    crew = Crew()
    crew.fill()
    priority = PRIO_DEFAULT if urgent else PRIO_HIGHEST
    for i in range(2 * EXTRA):
        crew.put(crew.lane(urgent), Item(str(i), priority))
    assert crew.given == [str(i) for i in range(EXTRA)]


def test_their_lane_keeps_its_order() -> None:
    crew = Crew()
    crew.fill()
    lane = crew.lane(urgent=True)
    crew.put(lane, *(Item(str(i)) for i in range(6)))
    assert crew.given == ["0", "1", "2", "3"]
    crew.lanes.completed(lane, 2)
    crew.put(lane)
    assert crew.given == ["0", "1", "2", "3", "4", "5"]
    assert lane.numbers == sorted(lane.numbers)


def test_one_of_a_lane_that_is_on_a_worker_goes_there() -> None:
    crew = Crew(workers=2)
    lane = crew.lane()
    crew.put(lane, Item("first"))
    home = lane.worker
    crew.fill()
    crew.put(lane, Item("ordinary"), Item("now", PRIO_HIGHEST))
    assert crew.given == ["now"]
    assert lane.worker is home
    assert [item.name for item in lane.inflight] == ["first", "now"]  # type: ignore[union-attr]


def test_bytes_are_no_reason_either() -> None:
    crew = Crew()
    crew.put(crew.lane(), Item("huge", size=1 << 30))
    crew.fill()
    crew.put(crew.lane(), Item("now", PRIO_HIGHEST, 1 << 30))
    assert crew.given == ["now"]


@pytest.mark.parametrize("why", ["retiring", "recalled"])
def test_but_a_worker_that_gets_nothing_gets_none(why: str) -> None:
    crew = Crew()
    (worker,) = crew.lanes.workers.values()
    if why == "retiring":
        crew.lanes.retire(0)
    else:
        crew.lanes.recall(worker)
    crew.put(crew.lane(), Item("now", PRIO_HIGHEST))
    assert crew.given == []


def test_what_waits_in_urgent_lanes_goes_first_by_its_own_priorities() -> None:
    crew = Crew(workers=0)
    crew.put(crew.lane(), Item("highest", PRIO_HIGHEST))
    crew.put(crew.lane(urgent=True), Item("low", 1), Item("high", 196))
    crew.lanes.ready(0, 1)
    crew.put(crew.lane())
    assert crew.given == ["high", "low", "highest"]
