"""The quarantine on disk: a directory with one file per message that no worker is given any more.

    <id>.mpq    a message (`mpmsgr.pool.quarantined` draws it)
    <id>.tmp    one that is being written, or whose writer was killed

An id is a time (UTC) and a random number: names sort by age, and several servers may share a
directory. A message is there whole or not at all, also after a power cut: its file is written under
the other name, synced and renamed, then the directory is synced.

Nothing here knows asyncio: whoever has a loop calls it in a thread.
"""

from __future__ import annotations

import dataclasses
import logging
import os
import re
import secrets
import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from mpmsgr.errors import MessengerError
from mpmsgr.pool.quarantined import Quarantined, file_head, read_item
from mpmsgr.wire.limits import MIB

__all__ = ["Listing", "Quarantined", "Spool", "UnknownItem", "UnreadableItem"]

log = logging.getLogger("mpmsgr.quarantine")

MAX_BYTES = 64 * MIB
MAX_FILES = 1000

_FILE_NAME = re.compile(r"(\d{8}T\d{6}\.\d{6}-[0-9a-f]{8})\.(mpq|tmp)", re.ASCII)
_MANY_IDS = 5  # more are not listed in an error


class UnknownItem(MessengerError):
    """No one item goes by *id*; *allowed* says in words which ones there are."""

    def __init__(self, id_: str, alike: Sequence[str], known: Sequence[str]) -> None:
        self.id = id_
        if alike:
            self.allowed = f"is the beginning of {_newest(alike)}"
        elif known:
            self.allowed = f"must be, or begin only one of, {_newest(known)}"
        else:
            self.allowed = "there is no message in quarantine"
        super().__init__(f"quarantined message {id_!r}: {self.allowed}")


class UnreadableItem(MessengerError):
    """The file *name* in the directory is no item that can be read, for *reason*."""

    def __init__(self, name: str, reason: str) -> None:
        self.name, self.reason = name, reason
        super().__init__(f"{name} {reason}")


@dataclass(frozen=True)
class Listing:
    """What a spool holds: items without their raw messages, oldest first, and all other files."""

    items: tuple[Quarantined, ...]
    unreadable: tuple[UnreadableItem, ...]


class Spool:
    """A directory of quarantined messages, at most *max_bytes* in at most *max_files* files.

    Beyond that the oldest go: each is counted in `dropped` and logged. The newest always stays,
    without its raw message if it exceeds the bound alone. Files of others are left alone.
    Every method may raise OSError, and any thread may call any of them.
    """

    def __init__(
        self, directory: Path | str, max_bytes: int = MAX_BYTES, max_files: int = MAX_FILES
    ) -> None:
        self.directory = Path(directory)
        self.max_bytes, self.max_files = max_bytes, max_files
        self.dropped = 0
        self._storing = threading.Lock()

    def prepare(self) -> None:
        """Make the directory, for its owner only, unless it is there."""
        if not self.directory.is_dir():
            self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            _sync(self.directory.parent)

    def store(self, item: Quarantined) -> str:
        """Keep *item*; the id it gets. When this returns, it survives a power cut."""
        id_, head = _new_id(item.at), file_head(item)
        if len(head) + len(item.raw) > self.max_bytes:
            item = dataclasses.replace(item, raw=b"", truncated=True)
            head = file_head(item)
        with self._storing:
            self.prepare()
            self._write(id_, head, item.raw)
            self._drop_oldest(id_)
        return id_

    def list(self) -> Listing:
        """Everything there is; a directory that is not there holds nothing."""
        files, unreadable = _scan(self.directory)
        items = []
        for file in files:
            try:
                items.append(_read(self.directory, file, whole=False))
            except UnreadableItem as exc:
                unreadable.append(exc)
            except FileNotFoundError:  # dropped or discarded meanwhile
                continue
        return Listing(tuple(items), tuple(unreadable))

    def ids(self) -> tuple[str, ...]:
        """Ids of all messages, unreadable ones as well, oldest first."""
        return tuple(file.id for file in _scan(self.directory)[0] if file.finished)

    def resolve(self, *ids: str) -> tuple[str, ...]:
        """The full ids of *ids*, each an id or the beginning of one only. Raises UnknownItem."""
        known = self.ids()
        exact = frozenset(known)
        return tuple(id_ if id_ in exact else _only(id_, known) for id_ in ids)

    def get(self, id: str) -> Quarantined:
        """The item *id* (or the beginning of one only) with its raw message.

        Raises UnknownItem, UnreadableItem.
        """
        (full,) = self.resolve(id)
        try:
            return _read(self.directory, _File(full), whole=True)
        except FileNotFoundError:
            raise UnknownItem(id, (), self.ids()) from None

    def discard(self, *ids: str) -> tuple[str, ...]:
        """Delete *ids* (or beginnings of one only): all or, raising UnknownItem, none.

        Returns the full ids of those that nobody else deleted meanwhile.
        """
        gone = tuple(id_ for id_ in self.resolve(*ids) if self._unlink(_File(id_)))
        if gone:
            _sync(self.directory)
        return gone

    def _write(self, id_: str, head: bytes, raw: bytes) -> None:
        file = self.directory / _File(id_).name
        temporary = file.with_name(f"{id_}.tmp")
        try:
            with open(temporary, "xb", opener=_open_private) as writing:
                writing.write(head)
                writing.write(raw)
                writing.flush()
                os.fsync(writing.fileno())
            os.replace(temporary, file)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        _sync(self.directory)

    def _drop_oldest(self, newest: str) -> None:
        """Keep the bound. *newest* stays, even where the clock was set back since the others."""
        files, _ = _scan(self.directory)
        nbytes, count = sum(file.size for file in files), len(files)
        for file in files:
            if nbytes <= self.max_bytes and count <= self.max_files:
                return
            if file.id != newest:
                self._drop(file)
                nbytes -= file.size
                count -= 1

    def _drop(self, file: _File) -> None:
        try:
            said = _summary(_read(self.directory, file, whole=False))
        except FileNotFoundError:
            return
        except UnreadableItem as exc:
            said = exc.reason
        if self._unlink(file):
            self.dropped += 1
            log.warning("quarantine is full, its oldest goes: %s, %s", file.id, said)

    def _unlink(self, file: _File) -> bool:
        """Delete *file*; False: it was gone."""
        try:
            os.unlink(self.directory / file.name)
        except FileNotFoundError:
            return False
        return True


class _File(NamedTuple):
    """A file of ours; they sort by age. size in bytes."""

    id: str
    finished: bool = True
    size: int = 0

    @property
    def name(self) -> str:
        return f"{self.id}.mpq" if self.finished else f"{self.id}.tmp"


def _scan(directory: Path) -> tuple[list[_File], list[UnreadableItem]]:
    """Our files, oldest first, and those of others."""
    ours: list[_File] = []
    foreign: list[UnreadableItem] = []
    try:
        entries = os.scandir(directory)
    except FileNotFoundError:
        return ours, foreign
    with entries:
        for entry in entries:
            match = _FILE_NAME.fullmatch(entry.name)
            if match is None or not entry.is_file(follow_symlinks=False):
                foreign.append(UnreadableItem(entry.name, "is no file of the quarantine"))
                continue
            with suppress(FileNotFoundError):
                ours.append(_File(match[1], match[2] == "mpq", entry.stat().st_size))
    return sorted(ours), sorted(foreign, key=lambda exc: exc.name)


def _read(directory: Path, file: _File, *, whole: bool) -> Quarantined:
    """The item in *file*. Raises FileNotFoundError, UnreadableItem."""
    if not file.finished:
        raise UnreadableItem(file.name, "is being written, or its writer was killed")
    try:
        with open(directory / file.name, "rb") as reading:
            return read_item(reading, file.id, whole=whole)
    except FileNotFoundError:
        raise
    except OSError as exc:
        raise UnreadableItem(file.name, f"cannot be read: {exc.strerror}") from None
    except ValueError as exc:
        raise UnreadableItem(file.name, str(exc)) from None


def _new_id(at: float) -> str:
    return f"{datetime.fromtimestamp(at, UTC):%Y%m%dT%H%M%S.%f}-{secrets.token_hex(4)}"


def _only(beginning: str, known: Sequence[str]) -> str:
    alike = [id_ for id_ in known if beginning and id_.startswith(beginning)]
    if len(alike) != 1:
        raise UnknownItem(beginning, alike, known)
    return alike[0]


def _newest(ids: Sequence[str]) -> str:
    older = len(ids) - _MANY_IDS
    return ", ".join(ids[-_MANY_IDS:]) + (f" and {older} older ones" if older > 0 else "")


def _summary(item: Quarantined) -> str:
    return f"type {item.type:#x} tid {item.tid} of {item.entity} at {item.peer}: {item.cause}"


def _open_private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _sync(directory: Path) -> None:
    """Make what happened to the names in *directory* last."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
