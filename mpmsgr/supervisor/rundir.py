"""The run directory: private (0700), holds the IPC sockets and a lock, removed at the end.

A lock file, held with flock by a living supervisor, tells its directory from one that a killed
supervisor left; the next supervisor takes that over, or clears it away.
"""

from __future__ import annotations

import fcntl
import os
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

from mpmsgr.errors import ConfigError

MAX_SOCKET_PATH_BYTES = 107  # sun_path is 108 with its final zero (unix(7))
PREFIX = "mpmsgr-"
LOCK = "lock"

_LONGEST_NAME = "io-4294967295.ipc"
_MAX_PATH_BYTES = MAX_SOCKET_PATH_BYTES - len(_LONGEST_NAME) - 1


class RunDir:
    """A run directory that this process holds the lock of."""

    def __init__(self, path: Path, lock_fd: int) -> None:
        """Own *path*, an existing directory, and its lock."""
        self.path = path
        self._lock_fd = lock_fd

    def endpoint(self, incarnation: int) -> str:
        """ZeroMQ address of the I/O process's socket for this incarnation (u32)."""
        return f"ipc://{self.path}/io-{incarnation}.ipc"

    def remove(self) -> None:
        """Remove what is ours in it, and the directory unless someone put something else there."""
        _clear(self.path)
        os.close(self._lock_fd)


def open_run_dir(wanted: str | None) -> RunDir:
    """Make or take over the directory *wanted*; None makes one where temporary files go.

    Raises ConfigError: too long for IPC sockets, in use, not ours, open to others, not empty.
    """
    if wanted is not None:
        return _open_at(Path(wanted).absolute())
    base = _base()
    _sweep(base)
    # Waits for the lock: another one's _sweep may be looking at it.
    return _lock(Path(tempfile.mkdtemp(prefix=PREFIX, dir=base)), fcntl.LOCK_EX)


def places() -> list[Path]:
    """Directories of this user that `open_run_dir` made unnamed: of living supervisors or not."""
    bases = {
        Path(p) for p in (os.environ.get("XDG_RUNTIME_DIR"), tempfile.gettempdir(), "/tmp") if p
    }
    return sorted(path for base in bases for path in base.glob(f"{PREFIX}*") if _is_mine(path))


def _is_mine(path: Path) -> bool:
    try:
        return path.lstat().st_uid == os.geteuid()
    except OSError:
        return False


def _open_at(path: Path) -> RunDir:
    _check_length(path)
    try:
        path.mkdir(mode=0o700)
    except FileExistsError:
        _check_ours(path)
    except OSError as exc:
        _refuse(path, f"cannot be made: {exc.strerror}")
    run_dir = _lock(path)
    path.chmod(0o700)
    for entry in _leftovers(path):
        entry.unlink(missing_ok=True)
    return run_dir


def _base() -> Path:
    """XDG_RUNTIME_DIR, else the temporary directory, else /tmp: the first that is short enough."""
    named = os.environ.get("XDG_RUNTIME_DIR")
    choices = [Path(p) for p in (named, tempfile.gettempdir(), "/tmp") if p]
    for base in choices:
        fits = len(os.fsencode(base)) + len(f"/{PREFIX}12345678") <= _MAX_PATH_BYTES
        if fits and base.is_dir() and os.access(base, os.W_OK | os.X_OK):
            return base
    raise ConfigError("run_dir", None, f"must be said: none of {choices} can be used")


def _check_length(path: Path) -> None:
    if len(os.fsencode(path)) > _MAX_PATH_BYTES:
        _refuse(path, f"must be at most {_MAX_PATH_BYTES} bytes long, for IPC sockets in it")


def _check_ours(path: Path) -> None:
    info = path.stat()
    if not stat.S_ISDIR(info.st_mode):
        _refuse(path, "must be a directory")
    if info.st_uid != os.geteuid() or info.st_mode & 0o022:
        _refuse(path, f"must belong to uid {os.geteuid()} and be writable for no one else")
    strangers = sorted(entry.name for entry in path.iterdir() if not _is_ours(entry))
    if strangers:
        _refuse(path, f"must be empty or a former run directory, has {strangers[0]}")


def _lock(path: Path, how: int = fcntl.LOCK_EX | fcntl.LOCK_NB) -> RunDir:
    fd = os.open(path / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, how)
    except BlockingIOError:
        owner = os.pread(fd, 32, 0).decode(errors="replace").strip() or "another process"
        os.close(fd)
        _refuse(path, f"is in use by supervisor {owner}")
    os.ftruncate(fd, 0)
    os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
    return RunDir(path, fd)


def _sweep(base: Path) -> None:
    """Clear away the directories of dead supervisors of this user."""
    for path in base.glob(f"{PREFIX}*"):
        try:
            _clear_if_dead(path)
        except OSError:
            continue  # another user's, or gone already


def _clear_if_dead(path: Path) -> None:
    if path.lstat().st_uid != os.geteuid():
        return
    fd = os.open(path / LOCK, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # Empty: just made, its supervisor is about to lock it.
        if os.pread(fd, 1, 0):
            _clear(path)
    finally:
        os.close(fd)


def _clear(path: Path) -> None:
    for entry in [*_leftovers(path), path / LOCK]:
        entry.unlink(missing_ok=True)
    try:
        path.rmdir()
    except OSError:
        pass  # something else is in it, or its parent is not ours


def _leftovers(path: Path) -> Iterator[Path]:
    yield from [entry for entry in path.iterdir() if entry.is_socket()]


def _is_ours(entry: Path) -> bool:
    return entry.name == LOCK or entry.is_socket()


def _refuse(path: Path, why: str) -> NoReturn:
    raise ConfigError("run_dir", str(path), why)
