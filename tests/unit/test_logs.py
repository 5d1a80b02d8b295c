"""The log file: appended to, opened anew, kept where it cannot be."""

from __future__ import annotations

import errno
import logging
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from mpmsgr import logs


@pytest.fixture
def file(tmp_path: Path) -> Iterator[Path]:
    """A log file, with an earlier line in it, that the root logger writes to."""
    path = tmp_path / "log"
    path.write_text("earlier\n")
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    logs.setup_logging("info", "test", str(path))
    yield path
    for handler in root.handlers:
        handler.close()
    root.handlers[:] = handlers
    root.setLevel(level)


def test_lines_are_appended(file: Path) -> None:
    logging.info("one")
    first, second = file.read_text().splitlines()
    assert first == "earlier"
    assert second.endswith("INFO test root: one")


def test_a_file_that_was_moved_away_is_opened_anew(file: Path, tmp_path: Path) -> None:
    file.rename(tmp_path / "old")
    logging.info("one")
    logs.reopen()
    logging.info("two")
    assert (tmp_path / "old").read_text().endswith("one\n")
    assert file.read_text().endswith("two\n")
    assert "one" not in file.read_text()


def test_what_cannot_be_opened_is_said_in_the_old_file(file: Path, tmp_path: Path) -> None:
    file.rename(tmp_path / "old")
    file.mkdir()
    logs.reopen()
    logging.info("two")
    assert "cannot be opened anew" in (tmp_path / "old").read_text()
    assert (tmp_path / "old").read_text().endswith("two\n")


def test_the_level_changes(file: Path) -> None:
    logs.set_level("error")
    logging.info("one")
    logs.set_level("debug")
    logging.debug("two")
    assert "one" not in file.read_text()
    assert "two" in file.read_text()


def test_a_full_disk_is_said_in_one_line(
    file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(text: str) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    (handler,) = (one for one in logging.getLogger().handlers if isinstance(one, logs.LogFile))
    with monkeypatch.context() as patch:
        patch.setattr(handler, "stream", SimpleNamespace(write=fail, flush=lambda: None))
        for _ in range(3):
            logging.info("one")
    said = capsys.readouterr().err.splitlines()
    assert said == [f"mpmsgr: {file} cannot be written: No space left on device"]
    logging.info("two")
    assert file.read_text().endswith("two\n")
