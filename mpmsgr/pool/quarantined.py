"""A message in quarantine, and the file it is kept in.

    0x92 | facts | 0xc6 | length of raw, u32 big-endian | raw

That is one msgpack array of two: a map of the fields of `Quarantined` (without id and raw, with
``format``), and the raw message. The bin always has its long form, so that raw is written from
where it lies, and a listing need not read it.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Any, BinaryIO, get_type_hints

import msgpack

from mpmsgr.wire.crc import Bytes
from mpmsgr.wire.limits import MIB
from mpmsgr.wire.message import Message
from mpmsgr.wire.v1.parcel import FOOTER_SIZE, HEADER_SIZE, decode_raw

_FORMAT = 1
_ARRAY_OF_TWO, _BIN32 = b"\x92", b"\xc6"
_BIN_HEAD_SIZE = 5
_MAX_CAUSE, _MAX_TRACEBACK = 1000, 1 << 16  # characters
#: Longest facts that are read; with their texts cut, none as long are written.
_MAX_FACTS_BYTES = MIB
_YEAR_10000 = 253402300800.0


@dataclass(frozen=True, kw_only=True)
class Quarantined:
    """A message in quarantine, and why it is there.

    id: "" until it is stored; at: unix seconds; peer: its address; entity: its name (client.7);
    nonce: of its address; session: id of its connection; size: bytes of the raw message;
    attempts: how often it was handed out; cause: one line; signal: what the last worker died of,
    0 = it did not; traceback: the handler's, "" = none; truncated: raw was too large to be kept;
    raw: the message in its canonical form (`mpmsgr.wire.v1.parcel`), b"" in a listing.
    """

    at: float
    peer: str
    entity: str
    nonce: int
    session: int
    type: int
    tid: int
    seq: int
    priority: int
    version: int
    size: int
    attempts: int
    cause: str
    signal: int = 0
    traceback: str = ""
    truncated: bool = False
    id: str = ""
    raw: bytes = field(default=b"", repr=False)

    @classmethod
    def of(
        cls,
        raw: Bytes,
        *,
        at: float,
        peer: str,
        nonce: int,
        session: int,
        attempts: int,
        cause: str,
        signal: int = 0,
        traceback: str = "",
    ) -> Quarantined:
        """The item for a raw message, which says the rest itself; a view of it is copied."""
        m = decode_raw(raw, nonce)
        return cls(
            at=at,
            peer=peer,
            entity=str(m.src),
            nonce=nonce,
            session=session,
            type=m.type,
            tid=m.tid,
            seq=m.seq,
            priority=m.priority,
            version=m.version,
            size=len(raw),
            attempts=attempts,
            cause=cause,
            signal=signal,
            traceback=traceback,
            raw=bytes(raw),
        )

    def message(self) -> Message:
        """The message itself. Raises ValueError where raw is not there."""
        if not self.raw:
            raise ValueError(f"the {self.size} bytes of message {self.id} are not there")
        return decode_raw(self.raw, self.nonce)


#: Names and types of the facts in a file.
_FACTS = {n: t for n, t in get_type_hints(Quarantined).items() if n not in ("id", "raw")}


def file_head(item: Quarantined) -> bytes:
    """All of the item's file but raw, which follows; cause and traceback are cut to a length."""
    facts: dict[str, Any] = {name: getattr(item, name) for name in _FACTS}
    facts["format"] = _FORMAT
    facts["at"] = float(item.at)
    facts["cause"] = " ".join(item.cause.split())[:_MAX_CAUSE]
    facts["traceback"] = item.traceback[-_MAX_TRACEBACK:]  # what was raised stands at its end
    packed: bytes = msgpack.packb(facts, unicode_errors="backslashreplace")
    return _ARRAY_OF_TWO + packed + _BIN32 + len(item.raw).to_bytes(_BIN_HEAD_SIZE - 1, "big")


def read_item(file: BinaryIO, id_: str, *, whole: bool) -> Quarantined:
    """The item in *file*, with its raw message only if *whole*.

    Raises ValueError saying what is wrong with the file, OSError.
    """
    facts = _read_facts(file)
    size = _raw_size(file)
    return Quarantined(id=id_, raw=_read_raw(file, size) if whole and size else b"", **facts)


def _read_facts(file: BinaryIO) -> dict[str, Any]:
    """The facts; leaves *file* where they end."""
    unpacker = msgpack.Unpacker(file, read_size=4096, max_buffer_size=_MAX_FACTS_BYTES)
    try:
        parts, facts = unpacker.read_array_header(), unpacker.unpack()
    except (ValueError, msgpack.exceptions.UnpackException):
        raise ValueError("holds no facts in msgpack") from None
    if parts != 2 or not isinstance(facts, dict):
        raise ValueError("holds msgpack, but no message")
    if (form := facts.pop("format", None)) != _FORMAT:
        raise ValueError(f"has format {form!r}, known is {_FORMAT}")
    _check_facts(facts)
    file.seek(unpacker.tell())
    return facts


def _check_facts(facts: dict[str, Any]) -> None:
    names = sorted(facts.keys() | _FACTS.keys(), key=str)
    wrong = [str(name) for name in names if type(facts.get(name)) is not _FACTS.get(name)]
    if wrong:
        raise ValueError(f"facts missing, unknown or of another type: {', '.join(wrong)}")
    if not 0 <= facts["at"] < _YEAR_10000:
        raise ValueError(f"at = {facts['at']!r} is no time")


def _raw_size(file: BinaryIO) -> int:
    """Bytes of raw, which *file* is left before; they are all there."""
    head = file.read(_BIN_HEAD_SIZE)
    at = file.tell()
    there = file.seek(0, os.SEEK_END) - at
    file.seek(at)
    size = int.from_bytes(head[1:], "big")
    if len(head) < _BIN_HEAD_SIZE or head[:1] != _BIN32 or there != size:
        raise ValueError("is damaged: facts and size of the message do not fit the file")
    return size


def _read_raw(file: BinaryIO, size: int) -> bytes:
    raw = file.read(size)
    if size < HEADER_SIZE or decode_raw(raw).size + HEADER_SIZE + FOOTER_SIZE != size:
        raise ValueError(f"is damaged: its {size} bytes are no message")
    return raw
