"""Watching source files."""

from __future__ import annotations

import select
import sys
from pathlib import Path

import pytest

from mpmsgr.config import Settings
from mpmsgr.errors import ConfigError
from mpmsgr.supervisor.watch import SourceWatch


def changed(watch: SourceWatch) -> list[str]:
    """What changed, once something did."""
    assert select.select([watch], [], [], 20.0)[0]
    return watch.read()


def test_sources_that_change(tmp_path: Path) -> None:
    (tmp_path / "package").mkdir()
    with SourceWatch(str(tmp_path)) as watch:
        seen: list[str] = []
        number = 0
        while not seen:  # the watcher may not be there yet when the first ones are written
            number += 1
            (tmp_path / "notes.txt").write_text(str(number))
            (tmp_path / "package" / "a.py").write_text(str(number))
            if select.select([watch], [], [], 0.5)[0]:
                seen = watch.read()
        assert seen == ["package/a.py"]
        (tmp_path / "mpmsgr.toml").write_text("")
        assert "mpmsgr.toml" in changed(watch)


def test_without_watchfiles_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "watchfiles", None)
    with pytest.raises(ConfigError, match=r"pip install 'mpmsgr\[reload\]'"):
        SourceWatch(".")


def test_without_workers_there_is_nothing_to_renew() -> None:
    with pytest.raises(ConfigError, match="handlers run in the I/O process"):
        Settings(reload=True, workers=0)
