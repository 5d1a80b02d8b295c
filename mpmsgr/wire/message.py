"""A message as the application sees it (wire spec §8), and its priorities (§11)."""

from __future__ import annotations

from typing import Any

from mpmsgr.wire.crc import Bytes
from mpmsgr.wire.name import EntityName

PRIO_LOW, PRIO_DEFAULT, PRIO_HIGH, PRIO_HIGHEST = 64, 127, 196, 255

#: Type of the error reply: front is a msgpack map with ``code``, ``text`` and facts.
ERROR_REPLY = 0x8000
#: First type an application may take; below 0x8000 belongs to Ceph.
FIRST_APPLICATION_TYPE = 0x8001

NOBODY = EntityName(0, -1)
_new = object.__new__


class Message:
    """One typed message: front, middle and data are bytes-like, every length in bytes.

    type u16; tid u64, 0 = given when sent; priority u16, 0 = the messenger's default (127);
    version u16 of the payload's encoding and compat_version, the oldest that can read it
    (0 = same as version); data_off u16, an alignment hint that is kept and passed on.
    A received message also has: seq (u64, of its session and direction), src (the sender's
    `EntityName`), nonce (of the sender's address), resent (it may have been seen in an older
    session: policy `on_remote_reset`), attempt (how often it was begun, counting this time), raw
    (its bytes) and obj, the decoded payload where its type is a registered class or a plain value.
    A reply has origin, the message it answers.
    """

    __slots__ = (
        "attempt",
        "compat_version",
        "data",
        "data_off",
        "front",
        "middle",
        "nonce",
        "obj",
        "origin",
        "priority",
        "raw",
        "resent",
        "seq",
        "src",
        "tid",
        "type",
        "version",
    )

    def __init__(
        self,
        type: int,
        front: Bytes = b"",
        middle: Bytes = b"",
        data: Bytes = b"",
        *,
        tid: int = 0,
        priority: int = 0,
        version: int = 1,
        compat_version: int = 0,
        data_off: int = 0,
        seq: int = 0,
        src: EntityName = NOBODY,
        nonce: int = 0,
    ) -> None:
        self.type = type
        self.front = front
        self.middle = middle
        self.data = data
        self.tid = tid
        self.priority = priority
        self.version = version
        self.compat_version = compat_version
        self.data_off = data_off
        self.seq = seq
        self.src = src
        self.nonce = nonce
        self.obj: Any = None
        self.resent = False
        self.attempt = 1
        self.raw: Bytes | None = None
        self.origin: Message | None = None

    @property
    def message_id(self) -> tuple[str, int, int]:
        """Its name for ever: (sender entity, sender nonce, tid)."""
        return (str(self.src), self.nonce, self.tid)

    @property
    def size(self) -> int:
        """Payload bytes: front + middle + data."""
        return len(self.front) + len(self.middle) + len(self.data)

    def reply(
        self,
        front: Bytes = b"",
        middle: Bytes = b"",
        data: Bytes = b"",
        *,
        type: int | None = None,
        version: int = 1,
    ) -> Message:
        """An answer to this message: its tid and priority, and its type unless told otherwise."""
        # Attribute by attribute: a worker does this for every request.
        m = _new(Message)
        m.type = self.type if type is None else type
        m.front = front
        m.middle = middle
        m.data = data
        m.tid = self.tid
        m.priority = self.priority
        m.version = version
        m.compat_version = m.data_off = m.seq = m.nonce = 0
        m.src = NOBODY
        m.obj = m.raw = None
        m.resent = False
        m.attempt = 1
        m.origin = self
        return m

    def __repr__(self) -> str:
        return (
            f"<Message {self.type:#x} seq={self.seq} tid={self.tid} prio={self.priority}"
            f" front={len(self.front)} middle={len(self.middle)} data={len(self.data)}>"
        )
