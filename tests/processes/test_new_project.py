"""A project made by ``mpmsgr new`` works as it stands, and its README is true."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.loopback import ANY_PORT

MPMSGR = [sys.executable, "-m", "mpmsgr"]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    subprocess.run([*MPMSGR, "new", "tally"], cwd=tmp_path, check=True, timeout=30)
    return tmp_path / "tally"


@pytest.fixture
def address(project: Path) -> Iterator[str]:
    """HOST:PORT of the project's server, on a free port."""
    command = [*MPMSGR, "serve", "--bind", ANY_PORT]
    with subprocess.Popen(command, cwd=project, stderr=subprocess.PIPE, text=True) as server:
        try:
            yield ready_at(server)
        finally:
            server.terminate()
            server.communicate(timeout=30)
    assert server.returncode == 0


def ready_at(server: subprocess.Popen[str]) -> str:
    said = []
    for line in server.stderr or ():
        if ready := re.fullmatch(r"mpmsgr: ready on (\S+) \(2 workers\)\n", line):
            return ready[1]
        said.append(line)
    pytest.fail("".join(said))


def sh(project: Path, *args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*MPMSGR, *args], cwd=project, capture_output=True, text=True, timeout=30, check=False
    )


def test_its_tests_pass(project: Path) -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"],
        cwd=project,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={k: v for k, v in os.environ.items() if not k.startswith(("PYTHONPATH", "PYTEST"))},
    )
    assert "3 passed" in ran.stdout, ran.stdout + ran.stderr


def test_its_readme_shows_what_happens(project: Path, address: str) -> None:
    readme = (project / "README.md").read_text()
    for field, shown in (("n=5", "5\n"), ("n=five", "mpmsgr send: Add.n = 'five': must be")):
        assert f"tally.Add {field}\n{shown}" in readme
        ran = sh(project, "send", address, "tally.Add", field)
        assert (ran.stdout + ran.stderr).startswith(shown)


def test_its_client_shows_what_happens(project: Path, address: str) -> None:
    readme = (project / "README.md").read_text()
    (code,) = re.findall(r"```python\n(.*?)```", readme, re.DOTALL)
    expected = code.rpartition("#")[2].strip()
    program = code.replace("127.0.0.1:6800", address)
    ran = subprocess.run(
        [sys.executable, "-c", program],
        cwd=project,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert ran.stdout.strip() == expected, ran.stderr
