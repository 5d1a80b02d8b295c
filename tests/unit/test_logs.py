"""Log lines: text or JSON, to stderr or a file that may be moved away."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mpmsgr.logs import RateLimit, reopen, set_level, setup_logging

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


def test_a_file_that_is_moved_away(tmp_path: Path) -> None:
    file = tmp_path / "log"
    setup_logging("info", "io", file=str(file))
    log.info("one")
    file.rename(tmp_path / "log.1")
    log.info("two")
    reopen()
    log.info("three")
    assert [len((tmp_path / name).read_text().splitlines()) for name in ("log.1", "log")] == [2, 1]


def test_a_file_that_cannot_be_opened_anew(tmp_path: Path) -> None:
    folder = tmp_path / "logs"
    folder.mkdir()
    setup_logging("info", "io", file=str(folder / "log"))
    folder.rename(tmp_path / "moved")
    reopen()
    log.info("goes on")
    said = (tmp_path / "moved/log").read_text().splitlines()
    assert ["cannot be opened anew" in said[0], "goes on" in said[1]] == [True, True]


def test_the_level_can_change(capsys: pytest.CaptureFixture[str]) -> None:
    setup_logging("warning", "io")
    log.info("not yet")
    set_level("debug")
    log.debug("now")
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_lines_of_a_kind_are_held_back_and_counted() -> None:
    limit = RateLimit(5.0)
    assert [limit.allows("a", t) for t in (0.0, 1.0, 4.9, 5.0, 6.0)] == [0, None, None, 2, None]
    assert limit.allows("b", 6.0) == 0
