"""Workers that are to go: they get nothing new, and somebody is told when they hold nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mpmsgr.dispatch.lanes import Lanes


class Retiring:
    """retired(slot, generation): that worker of *lanes* holds nothing any more, or is gone."""

    def __init__(self, lanes: Lanes[Any], retired: Callable[[int, int], None]) -> None:
        self._lanes = lanes
        self._retired = retired
        self._who: set[tuple[int, int]] = set()

    def add(self, slot: int, generation: int) -> None:
        """That worker, if it is known, gets nothing new; what it has goes on."""
        worker = self._lanes.workers.get(slot)
        if worker is not None and worker.generation == generation:
            self._lanes.retire(slot)
        self._who.add((slot, generation))

    def look(self) -> None:
        """Something was completed, or somebody is gone: who holds nothing now?"""
        if not self._who:  # as often
            return
        idle = [which for which in self._who if self.holds_nothing(*which)]
        self._who.difference_update(idle)
        for which in idle:
            self._retired(*which)

    def holds_nothing(self, slot: int, generation: int) -> bool:
        """Is nothing in work at the worker, or it gone?"""
        worker = self._lanes.workers.get(slot)
        return worker is None or worker.generation != generation or not worker.held
