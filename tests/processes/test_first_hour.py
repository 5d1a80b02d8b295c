"""docs/first-hour.md is true: typed into terminals, it is what they show.

The environment is a new one. What is different from what a reader has: pip takes the wheels of what
is installed here instead of asking an index, and uses them also to build with; the checkout is a
copy of what the package is made of; another port; the shell's prompt does not name the environment.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.interop.ports import free_port
from tests.transcript import Transcript
from tests.walkthrough import Walkthrough, blocks
from tests.wheels import needs, write_wheels

REPOSITORY = Path(__file__).resolve().parents[2]
PAGE = REPOSITORY / "docs" / "first-hour.md"
PACKAGE = ("pyproject.toml", "README.md", "LICENSE", "pytest_mpmsgr.py", "mpmsgr")
EXTRAS = "mpmsgr[reload,testing,top]"
PROMPTS = ("$ ", "n = ", "(Pdb) ")


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """One with a checkout in it, and with wheels for pip."""
    (tmp_path / "mpmsgr").mkdir()
    for name in PACKAGE:
        copy = shutil.copytree if (REPOSITORY / name).is_dir() else shutil.copy
        copy(REPOSITORY / name, tmp_path / "mpmsgr" / name)
    (tmp_path / "wheels").mkdir()
    write_wheels(needs(EXTRAS, "setuptools") - {"mpmsgr"}, tmp_path / "wheels")
    return tmp_path


@pytest.fixture
def environment(home: Path) -> Iterator[dict[str, str]]:
    """Nothing of that of the tests."""
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="mpmsgr-") as runs:  # sockets' paths are to be short
        yield {
            "HOME": str(home),
            "PATH": f"{sys.base_prefix}/bin:{os.defpath}",
            "LANG": "C.UTF-8",
            "MPMSGR_BIND": f"127.0.0.1:{port}",
            "PIP_CONFIG_FILE": os.devnull,
            "PIP_DISABLE_PIP_VERSION_CHECK": "1",
            "PIP_FIND_LINKS": str(home / "wheels"),
            "PIP_NO_CACHE_DIR": "1",
            "PIP_NO_INDEX": "1",
            "VIRTUAL_ENV_DISABLE_PROMPT": "1",
            "MPMSGR_RUN_DIR": f"{runs}/run",
        }


@pytest.fixture
def walkthrough(home: Path, environment: dict[str, str]) -> Iterator[Walkthrough]:
    port = environment["MPMSGR_BIND"].rpartition(":")[2]
    transcript = Transcript({"/home/you": str(home)}, {"6800": port})
    walkthrough = Walkthrough(home, "hour/tally", environment, PROMPTS, transcript)
    yield walkthrough
    walkthrough.close()


@pytest.mark.timeout(300)
def test_the_page_is_true(walkthrough: Walkthrough) -> None:
    for block in blocks(PAGE.read_text("utf-8")):
        walkthrough.follow(block)
    walkthrough.end()
