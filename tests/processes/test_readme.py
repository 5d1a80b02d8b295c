"""The README's plugin and client do what the README says."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.loopback import ANY_PORT

README = Path(__file__).resolve().parents[2] / "README.md"
SERVE = [sys.executable, "-m", "mpmsgr", "serve", "--bind", ANY_PORT]
READY = re.compile(r"mpmsgr: ready on (\S+) \(\d+ workers\)")


def blocks() -> list[str]:
    """The fenced blocks, without the fences."""
    return re.findall(r"```(?:python)?\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)


def said(command: str) -> str:
    """What the README shows after ``$ command``."""
    (shown,) = [b for b in blocks() if b.startswith(f"$ {command}\n")]
    return shown.partition("\n")[2]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the files of the README: blocks that begin with a file's name."""
    for block in blocks():
        if name := re.match(r"# (\w+\.py)\n", block):
            (tmp_path / name[1]).write_text(block, encoding="utf-8")
    return tmp_path


@pytest.fixture
def address(folder: Path) -> Iterator[str]:
    """HOST:PORT of the README's server."""
    with subprocess.Popen(
        [*SERVE, "factor"], cwd=folder, stderr=subprocess.PIPE, text=True
    ) as server:
        try:
            assert server.stderr is not None
            line = server.stderr.readline().rstrip()
            ready = READY.fullmatch(line)
            assert ready, line
            yield ready[1]
        finally:
            server.terminate()
            server.communicate(timeout=60)
    assert server.returncode == 0


def test_the_client_prints_what_is_shown(folder: Path, address: str) -> None:
    assert READY.fullmatch(said("mpmsgr serve factor").strip())
    client = folder / "client.py"
    program = client.read_text(encoding="utf-8")
    client.write_text(program.replace("127.0.0.1:6800", address), encoding="utf-8")
    ran = subprocess.run(
        [sys.executable, "client.py"], cwd=folder, capture_output=True, text=True, timeout=60
    )
    assert (ran.stdout, ran.stderr) == (said("python client.py"), "")
