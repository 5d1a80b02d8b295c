"""A project made by ``mpmsgr new`` works as it stands, and its README is true."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.loopback import ANY_PORT
from tests.pytest_runs import run_pytest

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
    readme = (project / "README.md").read_text()
    (dots, passed) = re.findall(r"pytest -q\n(\.+ +\[100%\])\n(\d+ passed) in ", readme)[0]
    ran = run_pytest(project)
    assert ran.stdout.startswith(f"{dots}\n{passed} in "), ran.stdout + ran.stderr


def test_its_test_of_a_kill_fails_where_the_state_is_the_workers(project: Path) -> None:
    plugin = project / "tally.py"
    text = plugin.read_text()
    sums = text.replace("state[", "SUMS[").replace("state.get", "SUMS.get")
    plugin.write_text(f"SUMS: dict[str, int] = {{}}\n{sums}")
    ran = run_pytest(project, "-k", "survives")
    assert "1 failed" in ran.stdout, ran.stdout + ran.stderr
    assert "mpmsgr serve tally" in ran.stdout, "whose log is shown"


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
