"""Transaction ids: unique among all endpoints and incarnations, so that messages have names."""

from __future__ import annotations

import secrets


class TidSource:
    """Counts up from a random start below 2^62.

    Random, since both sides of a session give tids to messages of their own, and a push must not
    look like the reply to a request; and a restarted endpoint must not reuse its old ones.
    """

    __slots__ = ("_next",)

    def __init__(self) -> None:
        self._next = secrets.randbits(62) | 1

    def next(self) -> int:
        """A tid (u64, never 0)."""
        self._next += 1
        return self._next
