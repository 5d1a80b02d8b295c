"""The memory that the supervisor shares out: an arena per incarnation, a piece per worker slot."""

from __future__ import annotations

import os
from typing import Any

from mpmsgr.config import Settings
from mpmsgr.errors import ConfigError
from mpmsgr.pool import page
from mpmsgr.pool.layout import PAGE, SlotLayout
from mpmsgr.pool.mapping import Mapping
from mpmsgr.supervisor.child import Running
from mpmsgr.supervisor.memory import check_limit, create, read_only

_SIZES = ("arena_bytes", "ring_bytes", "worker_arena_bytes")


def open_shared(settings: Settings) -> SharedMemory:
    """The memory that *settings* ask for: none without workers or without `arena_bytes`.

    Raises ConfigError, with the figure, if there is no room for all of it.
    """
    if not settings.workers or not settings.arena_bytes:
        return SharedMemory({}, 0)
    sizes = {name: _whole_pages(getattr(settings, name)) for name in _SIZES}
    # Twice the arena: the next I/O process has its own before the last view of this one's is gone.
    total = 2 * sizes["arena_bytes"] + settings.workers * _layout(sizes).size
    field = f"2 arena_bytes + {settings.workers} x (worker_arena_bytes + 2 ring_bytes)"
    check_limit(total, field)
    try:
        return SharedMemory(sizes, settings.workers)
    except OSError as exc:
        raise ConfigError(field, total, f"cannot be had: {exc.strerror}") from None


class SharedMemory:
    """A memfd per worker slot, for all its generations, and an arena for each I/O process in turn.

    slots: by slot, the descriptors of the former, which `SlotLayout` divides; arena: that of the
    present arena, read-only; both empty if no memory is shared.
    """

    def __init__(self, sizes: dict[str, int], workers: int) -> None:
        """Make that of *workers* slots; *sizes* in whole pages. Raises OSError if there is none."""
        self._sizes = sizes
        self.arena: list[int] = []
        self.slots: dict[int, int] = {}
        self._pages: dict[int, page.Page] = {}
        try:
            for slot in range(workers):
                self._make(slot)
        except BaseException:
            self.close()
            raise

    @property
    def told(self) -> dict[str, Any]:
        """What a start packet says of it: ``memory``, a map of the three sizes, or nothing."""
        return {"memory": self._sizes} if self._sizes else {}

    def add_slot(self, slot: int) -> bool:
        """Make that of *slot* too, unless it is there; whether it was made.

        It stays, for whoever is in that slot later. Raises ConfigError or OSError if there is no
        room for it.
        """
        if not self._sizes or slot in self.slots:
            return False
        check_limit(_layout(self._sizes).size, "worker_arena_bytes + 2 ring_bytes")
        self._make(slot)
        return True

    def _make(self, slot: int) -> None:
        self.slots[slot] = create(f"mpmsgr-worker-{slot}", _layout(self._sizes).size)
        mapping = Mapping(self.slots[slot], page.SIZE, writable=True)
        self._pages[slot] = page.Page(mapping.raw(0, page.SIZE))

    def of_slot(self, slot: int) -> list[int]:
        """The descriptor of *slot*; [] if no memory is shared."""
        return [self.slots[slot]] if slot in self.slots else []

    def new_arena(self, incarnation: int) -> list[int]:
        """The arena of the I/O process about to start, writable; the caller closes it.

        The one before belongs to the workers that still look at it. Raises ConfigError or OSError
        if there is no room for another.
        """
        if not self._sizes:
            return []
        nbytes = self._sizes["arena_bytes"]
        check_limit(nbytes, "arena_bytes")
        writable = create(f"mpmsgr-io-{incarnation}", nbytes)
        try:
            arena = read_only(writable)
        except OSError:
            os.close(writable)
            raise
        close_all(self.arena)
        self.arena = [arena]
        return [writable]

    def running(self, slot: int) -> Running | None:
        """What the worker in *slot* runs now, if it is synchronous.

        Of an item that begins right now, the deadlines may still be those of the one before.
        """
        page_ = self._pages[slot]
        cells, number = page_.cells, page_.running
        type_, started = cells[page.TYPE], cells[page.STARTED_NS]
        soft, hard = cells[page.SOFT_NS], cells[page.HARD_NS]
        if not number or page_.running != number:
            return None
        return Running(number, type_, _seconds(soft), _seconds(hard), (hard - started) / 1e9)

    def take_started(self, slot: int) -> list[int]:
        """What the dead worker of *slot* had begun and not completed; blanks its page."""
        if slot not in self._pages:
            return []
        started = self._pages[slot].started()
        self._pages[slot].reset()
        return started

    def handled(self, slot: int) -> int:
        """Messages and events that the worker in *slot* has completed, by its latest batch."""
        page_ = self._pages.get(slot)
        return page_.cells[page.HANDLED] if page_ is not None else 0

    def close(self) -> None:
        """Let go of everything; who else has it keeps it."""
        self._pages.clear()
        close_all(self.arena)
        while self.slots:
            os.close(self.slots.popitem()[1])


def close_all(fds: list[int]) -> None:
    """Close the descriptors *fds*; empties the list."""
    while fds:
        os.close(fds.pop())


def _layout(sizes: dict[str, int]) -> SlotLayout:
    return SlotLayout(sizes["ring_bytes"], sizes["worker_arena_bytes"])


def _whole_pages(nbytes: int) -> int:
    return -(-nbytes // PAGE) * PAGE


def _seconds(ns: int) -> float:
    """A time in the page; 0 there is never."""
    return ns / 1e9 if ns else float("inf")
