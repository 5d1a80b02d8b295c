"""The counters page of a worker slot: what its worker is doing, readable when it cannot say so.

Some pages of u64 cells in shared memory, each written by one process with plain stores and read by
the others whenever they like; after a death, by the supervisor and the I/O process, before the slot
is used again. Every cell is aligned, so it is read whole: the value before a store or after it.
Several cells are not one: who reads a living worker's page may see RUNNING of one item and TYPE
of the next.

An *item* is a message or an event handed to the worker; they are numbered from 1 in the order they
were handed out, per generation. 0 means none, everywhere.
"""

from __future__ import annotations

from dataclasses import dataclass

SIZE = 32768

# The worker's, stored at each item: one cache line.
BEGUN, RUNNING, TYPE, CON, STARTED_NS, SOFT_NS, HARD_NS = range(7)
#: RUNNING where the item that is run is the one that began last: one store per item, not two.
LAST = (1 << 64) - 1
# The worker's counters.
HANDLED = 8
# The I/O process's, in a line of its own.
RECALL = 16
#: The cells STARTED .. STARTED + STARTED_COUNT: numbers of asynchronous items. As many as a worker
#: can be given: twice `worker_credit`, at its highest, and some that are urgent. (But what still
#: runs for an earlier I/O process has cells, too.)
STARTED, STARTED_COUNT = 64, SIZE // 8 - 64


@dataclass(frozen=True)
class Cell:
    """One row of `CELLS`."""

    name: str
    index: int
    writer: str
    meaning: str


CELLS = (
    Cell("BEGUN", BEGUN, "worker", "number of the item last begun"),
    Cell("RUNNING", RUNNING, "worker", "number of the synchronous item being run; LAST: BEGUN's"),
    Cell("TYPE", TYPE, "worker", "message type of that item"),
    Cell("CON", CON, "worker", "connection id of that item"),
    Cell("STARTED_NS", STARTED_NS, "worker", "when it began, CLOCK_MONOTONIC; 0: no deadline"),
    Cell("SOFT_NS", SOFT_NS, "worker", "when its stack is due to be logged, CLOCK_MONOTONIC"),
    Cell("HARD_NS", HARD_NS, "worker", "when the worker is due to be killed, CLOCK_MONOTONIC"),
    Cell("HANDLED", HANDLED, "worker", "items completed"),
    Cell("RECALL", RECALL, "I/O process", "epoch of the last call to give back what is not begun"),
    Cell("STARTED", STARTED, "worker", "asynchronous items begun and not completed, a cell each"),
)


class Page:
    """The page in *memory*. `cells` are its u64s: ``page.cells[RUNNING] = number``.

    A worker finds it as `reset` left it.
    """

    def __init__(self, memory: memoryview) -> None:
        self.cells = memory[:SIZE].cast("Q")
        self._free = _all_started()

    def begin_async(self, number: int) -> int:
        """Item *number* has begun. Returns its cell, or -1 where none is left: it is not noted.

        The worker's only, as is `end_async`.
        """
        if not self._free:
            return -1
        index = self._free.pop()
        self.cells[index] = number
        return index

    def end_async(self, index: int) -> None:
        """The item that `begin_async` gave *index* for has completed."""
        if index >= 0:
            self.cells[index] = 0
            self._free.append(index)

    @property
    def running(self) -> int:
        """Number of the synchronous item being run, 0 = none."""
        running = self.cells[RUNNING]
        return self.cells[BEGUN] if running == LAST else running

    @property
    def handled(self) -> int:
        """Items completed."""
        return self.cells[HANDLED]

    def started(self) -> list[int]:
        """Numbers of the items that have begun and not completed, sorted."""
        numbers = {self.running, *self.cells[STARTED : STARTED + STARTED_COUNT]}
        return sorted(numbers - {0})

    def reset(self) -> None:
        """A page as at the start of a generation: all 0. Nobody else may be using it."""
        self.cells[:] = memoryview(bytes(self.cells.nbytes)).cast("Q")
        self._free = _all_started()


def _all_started() -> list[int]:
    """The cells of asynchronous items, the one to use first at the end."""
    return list(range(STARTED + STARTED_COUNT - 1, STARTED - 1, -1))
