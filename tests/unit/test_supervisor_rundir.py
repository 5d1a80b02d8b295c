"""The run directory: private, short enough, one supervisor's at a time, removed at the end."""

from __future__ import annotations

import os
import socket
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from mpmsgr.errors import ConfigError
from mpmsgr.supervisor.rundir import MAX_SOCKET_PATH_BYTES, open_run_dir


@pytest.fixture
def base() -> Iterator[Path]:
    """A directory with a short name; tmp_path's may be too long for sockets."""
    with tempfile.TemporaryDirectory(prefix="rd-", dir="/tmp") as path:
        yield Path(path)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def leave_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(path))


def refusal(path: Path) -> str:
    with pytest.raises(ConfigError) as caught:
        open_run_dir(str(path))
    assert caught.value.field == "run_dir"
    return caught.value.allowed


def test_made_private_and_removed_with_its_sockets(base: Path) -> None:
    run_dir = open_run_dir(str(base / "run"))
    assert mode(run_dir.path) == 0o700
    leave_socket(run_dir.path / "io-1.ipc")
    run_dir.remove()
    assert list(base.iterdir()) == []


def test_endpoints_fit_into_a_socket_address(base: Path) -> None:
    longest = base / ("d" * (MAX_SOCKET_PATH_BYTES - len(f"{base}//io-4294967295.ipc")))
    run_dir = open_run_dir(str(longest))
    leave_socket(Path(run_dir.endpoint(2**32 - 1).removeprefix("ipc://")))
    run_dir.remove()
    assert "at most 89 bytes" in refusal(Path(f"{longest}d"))
    assert list(base.iterdir()) == []


def test_default_is_below_the_runtime_directory(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(base))
    run_dir = open_run_dir(None)
    assert run_dir.path.parent == base
    assert mode(run_dir.path) == 0o700
    run_dir.remove()
    assert list(base.iterdir()) == []


def test_default_avoids_directories_with_long_names(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = base / ("x" * 100)
    long.mkdir()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(long))
    monkeypatch.setattr(tempfile, "tempdir", str(base))
    run_dir = open_run_dir(None)
    assert run_dir.path.parent == base
    run_dir.remove()


def test_a_living_supervisor_keeps_its_directory(base: Path) -> None:
    run_dir = open_run_dir(str(base / "run"))
    assert f"in use by supervisor {os.getpid()}" in refusal(base / "run")
    run_dir.remove()


def test_the_directory_of_a_dead_supervisor_is_taken_over(base: Path) -> None:
    dead = base / "run"
    dead.mkdir(mode=0o700)
    (dead / "lock").write_text("4711\n")
    leave_socket(dead / "io-7.ipc")
    run_dir = open_run_dir(str(dead))
    assert sorted(entry.name for entry in dead.iterdir()) == ["lock"]
    run_dir.remove()
    assert not dead.exists()


def test_default_clears_the_directories_of_dead_supervisors_away(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(base))
    dead, just_made, strange = base / "mpmsgr-dead", base / "mpmsgr-new", base / "mpmsgr-x"
    for path in (dead, just_made, strange):
        path.mkdir(mode=0o700)
    (dead / "lock").write_text("4711\n")
    leave_socket(dead / "io-7.ipc")
    (just_made / "lock").touch()
    living = open_run_dir(None)
    another = open_run_dir(None)
    assert set(base.iterdir()) == {just_made, strange, living.path, another.path}
    living.remove()
    another.remove()


def test_an_empty_directory_becomes_private(base: Path) -> None:
    (base / "run").mkdir(mode=0o755)
    run_dir = open_run_dir(str(base / "run"))
    assert mode(run_dir.path) == 0o700
    run_dir.remove()


def test_what_others_put_into_it_stays(base: Path) -> None:
    run_dir = open_run_dir(str(base / "run"))
    (run_dir.path / "notes.txt").write_text("mine")
    run_dir.remove()
    assert [entry.name for entry in run_dir.path.iterdir()] == ["notes.txt"]


def test_directories_of_others_are_refused(base: Path) -> None:
    (base / "full").mkdir()
    (base / "full" / "notes.txt").touch()
    (base / "open").mkdir()
    (base / "open").chmod(0o777)
    (base / "file").touch()
    assert "has notes.txt" in refusal(base / "full")
    assert "writable for no one else" in refusal(base / "open")
    assert "must be a directory" in refusal(base / "file")
    assert "No such file" in refusal(base / "none" / "run")
    assert (base / "full" / "notes.txt").exists()
