"""`scripts/test-layers`: its counts, its exit status and its last line."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "test-layers"
PASSES = "def test_it(): pass\n"
FAILS = "def test_it(): assert False\n"
SKIPS = "import pytest\ndef test_it(): pytest.skip('no such thing: apt-get install it')\n"


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """Another repository with the script, and tests that are yet to be written."""
    (tmp_path / "scripts").mkdir()
    shutil.copy(SCRIPT, tmp_path / "scripts")
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers = soak: long\n")
    return tmp_path


def run(repository: Path, tests: dict[str, str], *args: str) -> tuple[int, list[str]]:
    """Exit status and lines of a run over *tests*, layer -> text of its one file."""
    for layer, text in tests.items():
        folder = repository / "tests" / layer
        folder.mkdir(parents=True)
        (folder / f"test_{layer}.py").write_text(text)
    ran = subprocess.run(
        [sys.executable, str(repository / "scripts" / "test-layers"), *args],
        cwd=repository,
        capture_output=True,
        text=True,
        timeout=60,
    )
    return ran.returncode, ran.stdout.splitlines()


def test_it_adds_up_and_says_what_was_skipped(repository: Path) -> None:
    tests = {"unit": PASSES, "interop": SKIPS}
    status, lines = run(repository, tests, "unit", "interop")
    assert status == 0
    assert "skipped in interop, 1 tests: no such thing: apt-get install it" in lines
    assert lines[-1].strip("= ").startswith("1 passed, 1 skipped in ")


def test_a_layer_that_must_run_and_a_failure(repository: Path) -> None:
    tests = {"unit": FAILS, "interop": SKIPS}
    status, lines = run(repository, tests, "--must-run", "interop", "unit", "interop")
    assert status == 1
    assert lines[-1].strip("= ").startswith("1 failed, 1 skipped, 1 error in ")


@pytest.mark.parametrize("text", [SKIPS, "", "import nowhere_to_be_found\n"])
def test_nothing_executed_is_a_failure(repository: Path, text: str) -> None:
    status, lines = run(repository, {"unit": text}, "unit")
    assert status == 1
    assert lines[-1].strip("= ").partition(" in ")[0].endswith("1 error")


def test_a_soak_test_is_left_to_make_soak(repository: Path) -> None:
    soak = "import pytest\n@pytest.mark.soak\ndef test_long(): assert False\n"
    status, lines = run(repository, {"unit": PASSES + soak}, "unit")
    assert (status, lines[-1].strip("= ").partition(" in ")[0]) == (0, "1 passed")
