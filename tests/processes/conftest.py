"""Fixtures of the tests with real processes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.processes.supervisor_harness import Running, Start


@pytest.fixture
def start() -> Iterator[Start]:
    """Start supervisors over fake children; they end with the test."""
    running: list[Running] = []

    def start(*args: Any, **kwargs: Any) -> Running:
        running.append(Running(*args, **kwargs))
        return running[-1]

    yield start
    for one in running:
        one.close()
