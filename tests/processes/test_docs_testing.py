"""The examples of docs/testing.md are true: they run as they stand there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import pytest_mpmsgr
from tests.pytest_runs import run_pytest

PAGE = Path(__file__).resolve().parents[2] / "docs" / "testing.md"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """One with the files of the page: blocks with a language, which begin with a file's name."""
    for block in re.findall(r"```[a-z]+\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL):
        name = re.match(r"# (\w+\.\w+)\n", block)
        assert name, block
        (tmp_path / name[1]).write_text(block, "utf-8")
    return tmp_path


def test_they_pass(folder: Path) -> None:
    shown = re.findall(r"\$ pytest -q\n(\.+ +\[100%\])\n(\d+ passed) in ", PAGE.read_text("utf-8"))
    ran = run_pytest(folder, "-W", "error")
    assert [(dots, passed) for dots, passed in shown] == re.findall(
        r"^(\.+ +\[100%\])\n(\d+ passed) in ", ran.stdout
    ), ran.stdout + ran.stderr


def test_the_page_has_every_fixture() -> None:
    fixtures = {name for name in vars(pytest_mpmsgr) if name.startswith("mpmsgr_")}
    assert fixtures == set(re.findall(r"^\| `(mpmsgr_\w+)", PAGE.read_text("utf-8"), re.MULTILINE))
