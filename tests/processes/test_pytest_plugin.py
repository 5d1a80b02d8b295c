"""The pytest plugin, as somebody's run of pytest sees it."""

from __future__ import annotations

import re
from pathlib import Path

import psutil
import pytest

from tests.pytest_runs import run_pytest

PLUGIN = """
import logging
from mpmsgr import handles

@handles(0x8001)
def say(con, m):
    logging.getLogger("plugin").warning("it says %s", bytes(m.front).decode())
    return True

@handles(0x8002)
def stop(con, m):
    secret = 40
    breakpoint()
    return secret + 1
"""
TESTS = """
import psutil
from pathlib import Path
from mpmsgr import Message

def say(service, what):
    service.connect(timeout=30).request(Message(0x8001, what), timeout=30)

def test_passes(mpmsgr_service):
    say(mpmsgr_service, b"nothing much")

def test_fails(mpmsgr_service):
    pid = int((mpmsgr_service.run_dir / "lock").read_text())
    children = psutil.Process(pid).children()
    Path("pids").write_text(" ".join(str(p) for p in [pid, *(c.pid for c in children)]))
    say(mpmsgr_service, b"something")
    assert False

def test_wrong(mpmsgr_serve):
    mpmsgr_serve("plugim")

def test_local(mpmsgr_serve_local):
    say(mpmsgr_serve_local("plugin"), b"hello")

def test_breakpoint(mpmsgr_serve_local):
    reply = mpmsgr_serve_local("plugin").connect().request(Message(0x8002))
    assert reply.front == bytes([41])

def test_virtual(mpmsgr_serve_virtual):
    service = mpmsgr_serve_virtual("plugin")
    say(service, b"hello")
    service.advance(3600)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "plugin.py").write_text(PLUGIN)
    (tmp_path / "mpmsgr.toml").write_text('modules = ["plugin"]\nworkers = 1\n')
    return tmp_path


def failures(said: str) -> dict[str, str]:
    """What is told of each failed test, by its name."""
    parts = re.split(r"^_{3,} (?:ERROR at setup of )?(\w+) _{3,}$", said, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def test_a_failed_test_shows_the_log_and_leaves_nothing(folder: Path) -> None:
    (folder / "tests").mkdir()
    (folder / "tests" / "test_it.py").write_text(TESTS)
    ran = run_pytest(folder, stdin="p 'secret', secret\ncontinue\n")
    assert "2 failed, 4 passed" in ran.stdout, ran.stdout + ran.stderr
    assert "(Pdb) ('secret', 40)" in ran.stdout, "the breakpoint"
    told = failures(ran.stdout)
    assert set(told) == {"test_fails", "test_wrong"}
    log = told["test_fails"].partition("Log of mpmsgr serve plugin")[2]
    assert "plugin: it says something" in log
    assert "nothing much" not in log, "that was another test's"
    assert "ServiceError: mpmsgr serve plugim: ended with exit status 3" in told["test_wrong"]
    assert "there is no module 'plugim' here" in told["test_wrong"]
    pids = [int(pid) for pid in (folder / "pids").read_text().split()]
    assert len(pids) == 3
    assert not [pid for pid in pids if psutil.pid_exists(pid)]


def test_who_does_not_use_it_does_not_notice(tmp_path: Path) -> None:
    """Nothing of mpmsgr is imported, by the plugin or its hooks; and who has no configuration."""
    (tmp_path / "test_it.py").write_text(
        "import sys\n\n"
        "def test_imports():\n"
        "    assert 'pytest_mpmsgr' in sys.modules\n"
        "    assert [m for m in sys.modules if m.startswith(('mpmsgr', 'zmq'))] == []\n\n"
        "def test_service(mpmsgr_service): pass\n"
    )
    ran = run_pytest(tmp_path, "-W", "error", "--strict-config")
    assert "1 passed, 1 error" in ran.stdout, ran.stdout + ran.stderr
    assert f"there is none in {tmp_path} or above it" in ran.stdout
