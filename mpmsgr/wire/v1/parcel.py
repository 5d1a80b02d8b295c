"""A message encoded but for what its socket decides (wire spec §8).

    frame:   tag 1 | seq 8 | head 41 | header crc 4 | front | middle | data | footer 21
    parcel:                  head 41                | front | middle | data | footer 21
    raw:             seq 8 | head 41 | header crc 4 | front | middle | data | footer 21

A *parcel* goes out: seq and header crc are added when it is written, and again with other values
when a later socket of the session repeats it. A *raw* message came in: the canonical new form,
whatever form its socket used. Both are made and read in whatever process has the time for it.
"""

from __future__ import annotations

import struct

from mpmsgr.wire.crc import ALL_ONES, Bytes, crc32c
from mpmsgr.wire.limits import Limits
from mpmsgr.wire.message import PRIO_DEFAULT, Message
from mpmsgr.wire.name import EntityName

HEADER = struct.Struct("<QQHHHIIIHBqHHI")
HEADER_SIZE = HEADER.size  # 53
FOOTER = struct.Struct("<IIIQB")
FOOTER_SIZE = FOOTER.size  # 21
OLD_FOOTER = struct.Struct("<IIIB")
HEAD = struct.Struct("<QHHHIIIHBqHH")  # 41: the header without seq and crc

FLAG_COMPLETE, FLAG_NOCRC, FLAG_SIGNED = 1, 2, 4

#: How a footer ends that is complete, has all its crcs and no signature.
_PLAIN_FOOTER_END = bytes(8) + bytes([FLAG_COMPLETE])
#: Payloads up to this many bytes travel as one joined part: a join is cheaper than three buffers.
_JOIN_BELOW = 16384

#: Between our own endpoints: the reserved field of a message that is repeated in a new session.
RESENT = 1
_RESENT = RESENT.to_bytes(2, "little")
_RESERVED_AT = 47

_new_parcel = object.__new__
_new_message = Message.__new__
_new_name = tuple.__new__
_TID_TYPE_PRIO = struct.Struct("<QHH")
_SEQ_AND_TID = struct.Struct("<QQHH")


class Parcel:
    """An encoded outgoing message.

    head: 41 bytes; body: tuple of buffers (payload and, last, the 21-byte footer, possibly joined
    with it); priority u16 for the send order; size: bytes of the body; seq: the number it was last
    written with, 0 = never; push: nobody waits for it, so a full outbox may drop it.
    """

    __slots__ = ("__weakref__", "body", "head", "priority", "push", "seq", "size")

    def __init__(self, head: bytes, body: tuple[Bytes, ...], priority: int, size: int) -> None:
        self.head = head
        self.body = body
        self.priority = priority
        self.size = size
        self.seq = 0
        self.push = False

    @classmethod
    def revive(cls, head: bytes, body: bytes | list[bytes]) -> Parcel:
        """The parcel that another process encoded; *body*: its one part, or the list of them."""
        parcel = _new_parcel(cls)  # once per reply in the I/O process: __init__ would double it
        parcel.head = head
        parcel.priority = head[10] | head[11] << 8
        parcel.seq = 0
        parcel.push = False
        if isinstance(body, bytes):
            parcel.body, parcel.size = (body,), len(body)
        else:
            parcel.body, parcel.size = tuple(body), sum(map(len, body))
        return parcel

    def mark_resent(self) -> None:
        """Say in the header's reserved field that the peer may have seen it in an older session."""
        self.head = self.head[:-2] + _RESENT

    @property
    def tid(self) -> int:
        """Transaction id (u64)."""
        return int(_TID_TYPE_PRIO.unpack_from(self.head)[0])

    @property
    def type(self) -> int:
        """Message type (u16)."""
        return int(_TID_TYPE_PRIO.unpack_from(self.head)[1])


def encode_parcel(m: Message, src: EntityName, *, crc_data: bool = True) -> Parcel:
    """Encode *m* as sent by *src*. Raises ValueError naming the field that does not fit."""
    head, body = encode_parts(m, src, crc_data)
    size = len(body[0]) if len(body) == 1 else sum(map(len, body))
    return Parcel(head, body, m.priority or PRIO_DEFAULT, size)


def encode_parts(
    m: Message, src: EntityName, crc_data: bool = True, limits: Limits | None = None
) -> tuple[bytes, tuple[Bytes, ...]]:
    """Head and body of the parcel of *m*, for another process to revive.

    Raises ValueError naming the field that does not fit, or the part longer than *limits* allow.
    """
    front, middle, data = m.front, m.middle, m.data
    front_len, middle_len, data_len = len(front), len(middle), len(data)
    size = front_len + middle_len + data_len + FOOTER_SIZE
    try:
        head = HEAD.pack(
            m.tid,
            m.type,
            m.priority or PRIO_DEFAULT,
            m.version,
            front_len,
            middle_len,
            data_len,
            m.data_off,
            src[0],
            src[1],
            m.compat_version or m.version,
            0,
        )
    except struct.error:
        raise ValueError(_misfit(m, src)) from None
    unchanged = _unchanged(m) if m.origin is not None else None
    if unchanged is not None:
        return head, (unchanged,)
    footer = FOOTER.pack(
        crc32c(front, ALL_ONES) ^ ALL_ONES if front_len else 0,
        crc32c(middle, ALL_ONES) ^ ALL_ONES if middle_len else 0,
        crc32c(data, ALL_ONES) ^ ALL_ONES if data_len and crc_data else 0,
        0,
        FLAG_COMPLETE if crc_data else FLAG_COMPLETE | FLAG_NOCRC,
    )
    body: tuple[Bytes, ...]
    if size <= _JOIN_BELOW:
        body = (b"".join((front, middle, data, footer)),)
        nbytes = len(body[0])
    else:
        if limits is not None:
            limits.check(front_len, middle_len, data_len)
        parts = (part for part in (front, middle, data) if part)
        body = (*(part if type(part) is bytes else _lasting(part) for part in parts), footer)
        nbytes = sum(memoryview(part).nbytes for part in body)
    if nbytes != size:
        raise ValueError("message part is a view of items wider than a byte: cast it to 'B'")
    return head, body


def _lasting(part: Bytes) -> Bytes:
    """*part*, or a copy if it can be written to: it may be sent, and sent again, much later."""
    view = memoryview(part)  # of our own, for the owner may release his
    return view if view.readonly else bytes(view)


def _unchanged(m: Message) -> Bytes | None:
    """Payload and footer as they came, if *m* sends back what it answers: their crcs are known."""
    origin = m.origin
    assert origin is not None
    if m.front is not origin.front or m.middle is not origin.middle or m.data is not origin.data:
        return None
    raw = origin.raw
    if raw is None or raw[-len(_PLAIN_FOOTER_END) :] != _PLAIN_FOOTER_END:
        return None
    return raw[HEADER_SIZE:]


_WIDTHS = {
    "tid": 64,
    "type": 16,
    "priority": 16,
    "version": 16,
    "compat_version": 16,
    "data_off": 16,
}


def _misfit(m: Message, src: EntityName) -> str:
    for field, bits in _WIDTHS.items():
        value = getattr(m, field)
        if not isinstance(value, int) or not 0 <= value < 1 << bits:
            return f"message {field} is {value!r}: must be an unsigned {bits}-bit number"
    for field in ("front", "middle", "data"):
        if len(getattr(m, field)) >> 32:
            return f"message {field} has {len(getattr(m, field))} bytes: must be below 2^32"
    return f"message source is {tuple(src)}: must be a u8 type and an s64 number"


def decode_raw(raw: Bytes, nonce: int = 0) -> Message:
    """The message in *raw* (checked when it was parsed); *nonce*: the sender's.

    Its front and middle are bytes; its data is a slice of *raw*, so a view where *raw* is one.
    """
    (
        seq,
        tid,
        type_,
        priority,
        version,
        front_len,
        middle_len,
        data_len,
        data_off,
        src_type,
        src_num,
        compat,
        reserved,
        _crc,
    ) = HEADER.unpack_from(raw)
    middle_at = HEADER_SIZE + front_len
    data_at = middle_at + middle_len
    # Attribute by attribute, not through __init__: this runs once per message of a worker, and
    # passing thirteen arguments takes as long as all of the rest.
    m = _new_message(Message)
    m.type = type_
    m.front = raw[HEADER_SIZE:middle_at]
    if middle_len or data_len:
        m.middle = raw[middle_at:data_at]
        m.data = raw[data_at : data_at + data_len]
    else:
        m.middle = m.data = b""
    if type(raw) is not bytes:
        m.front, m.middle = bytes(m.front), bytes(m.middle)
    m.tid = tid
    m.priority = priority
    m.version = version
    m.compat_version = compat
    m.data_off = data_off
    m.seq = seq
    m.src = _new_name(EntityName, (src_type, src_num))
    m.nonce = nonce
    m.obj = None
    m.resent = reserved == RESENT
    m.attempt = 1
    m.raw = raw
    m.origin = None
    return m


def raw_ids(raw: Bytes) -> tuple[int, int, int, int]:
    """seq, tid, type and priority of a raw message, without decoding the rest."""
    seq, tid, type_, priority = _SEQ_AND_TID.unpack_from(raw)
    return seq, tid, type_, priority


def is_resent(raw: Bytes) -> bool:
    """Is this raw message marked as possibly seen?"""
    return bytes(raw[_RESERVED_AT : _RESERVED_AT + 2]) == _RESENT
