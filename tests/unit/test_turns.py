"""Turns of tests: together, alone, and nobody waits for ever to be alone."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from fcntl import LOCK_EX, LOCK_NB, flock
from pathlib import Path
from queue import SimpleQueue

import pytest

from tests.support import eventually
from tests.turns import Turns

WAIT_S = 10.0


class Player:
    """One that takes turns in a thread of its own, and stays until it is told to leave."""

    def __init__(self, folder: Path, log: list[str], name: str, stack: ExitStack) -> None:
        self._turns, self._log, self._name = Turns(folder), log, name
        self._leave: SimpleQueue[None] = SimpleQueue()
        stack.callback(self._turns.close)
        self._thread = stack.enter_context(ThreadPoolExecutor(1))
        stack.callback(self.leave)

    def enter(self, alone: bool = False) -> Future[None]:
        """Done once its turn has begun."""
        begun: Future[None] = Future()
        self._thread.submit(self._play, alone, begun)
        return begun

    def _play(self, alone: bool, begun: Future[None]) -> None:
        with self._turns.turn(alone):
            self._log.append(self._name)
            begun.set_result(None)
            self._leave.get()
            self._log.append(f"{self._name} leaves")

    def leave(self) -> None:
        """End its turn, as soon as it has one."""
        self._leave.put(None)


@pytest.fixture
def log() -> list[str]:
    """Who came and who left, in that order."""
    return []


@pytest.fixture
def players(tmp_path: Path, log: list[str]) -> Iterator[tuple[Player, Player, Player]]:
    with ExitStack() as stack:
        yield (
            Player(tmp_path, log, "one", stack),
            Player(tmp_path, log, "two", stack),
            Player(tmp_path, log, "three", stack),
        )


def test_together(players: tuple[Player, Player, Player]) -> None:
    for player in players:
        player.enter().result(WAIT_S)


def test_alone(players: tuple[Player, Player, Player], log: list[str]) -> None:
    one, two, three = players
    one.enter(alone=True).result(WAIT_S)
    others = [two.enter(), three.enter()]
    one.leave()
    for other in others:
        other.result(WAIT_S)
    assert log[:2] == ["one", "one leaves"]


def test_who_comes_later_waits_for_one_who_wants_to_be_alone(
    players: tuple[Player, Player, Player], log: list[str], tmp_path: Path
) -> None:
    one, two, three = players
    one.enter().result(WAIT_S)
    lonely = two.enter(alone=True)
    eventually(lambda: is_taken(tmp_path / "door"), WAIT_S)
    later = three.enter()
    one.leave()
    lonely.result(WAIT_S)
    two.leave()
    later.result(WAIT_S)
    assert log == ["one", "one leaves", "two", "two leaves", "three"]


def is_taken(file: Path) -> bool:
    with file.open("rb") as another:
        try:
            flock(another, LOCK_EX | LOCK_NB)
        except BlockingIOError:
            return True
    return False
