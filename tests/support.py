"""Waiting for a condition: polled until a deadline, no fixed sleeps."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

T = TypeVar("T")

_POLL_S = 0.005


def eventually(condition: Callable[[], T], timeout: float = 5.0, what: str = "") -> T:
    """The first true value of *condition*, called at once and then every 5 ms.

    Raises AssertionError (*what* in its text) when there is none within *timeout* seconds.
    """
    for value in _attempts(condition, timeout, what):
        if value:
            return value
        time.sleep(_POLL_S)
    raise AssertionError("unreachable")


async def eventually_async(condition: Callable[[], T], timeout: float = 5.0, what: str = "") -> T:
    """`eventually` for coroutines: the loop runs on between two calls of *condition*."""
    for value in _attempts(condition, timeout, what):
        if value:
            return value
        await asyncio.sleep(_POLL_S)
    raise AssertionError("unreachable")


def _attempts(condition: Callable[[], T], timeout: float, what: str) -> Iterator[T]:
    deadline = time.monotonic() + timeout
    while True:
        value = condition()
        yield value
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout:g} s: {what or condition}, last {value!r}")
