"""Log lines: as text or JSON, and how many of a kind."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest

from mpmsgr.logs import RateLimit, setup_logging

log = logging.getLogger("mpmsgr.test")


@pytest.fixture(autouse=True)
def _root_as_before() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    for handler in root.handlers:
        if handler not in handlers:
            handler.close()
    root.handlers[:] = handlers
    root.setLevel(level)


def lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def test_text(capsys: pytest.CaptureFixture[str]) -> None:
    setup_logging("info", "worker 1")
    log.info("hello %d", 7)
    log.debug("not this")
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith(" INFO worker 1 mpmsgr.test: hello 7")


def test_json(capsys: pytest.CaptureFixture[str]) -> None:
    setup_logging("info", "io", form="json")
    log.warning("gone:\n%s", "peer", extra={"session": 7, "peer": "gate:1", "other": "unknown"})
    (line,) = lines(capsys.readouterr().err)
    assert line.pop("ts").endswith("+00:00")
    assert line == {
        "level": "warning",
        "logger": "mpmsgr.test",
        "process": "io",
        "text": "gone:\npeer",
        "session": 7,
        "peer": "gate:1",
    }


def test_a_traceback_stays_in_its_line(capsys: pytest.CaptureFixture[str]) -> None:
    setup_logging("info", "io", form="json")
    try:
        raise RuntimeError("a bug")
    except RuntimeError:
        log.exception("failed")
    (line,) = lines(capsys.readouterr().err)
    assert line["traceback"].endswith("RuntimeError: a bug")


def test_lines_of_a_kind_are_held_back_and_counted() -> None:
    limit = RateLimit(5.0)
    assert [limit.allows("a", t) for t in (0.0, 1.0, 4.9, 5.0, 6.0)] == [0, None, None, 2, None]
    assert limit.allows("b", 6.0) == 0
