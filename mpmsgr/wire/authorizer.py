"""The authorizer of authorizer_protocol 1, ``none``: who the client says it is (wire spec §13).

    u8 1 | u32 entity type | u32 length, id in text | u64 global_id

A server answers it with an empty authorizer reply. Those of other protocols stay opaque bytes.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from mpmsgr.errors import ProtocolError

PROTOCOL_UNKNOWN, PROTOCOL_NONE, PROTOCOL_CEPHX = 0, 1, 2

_VERSION = 1
_HEAD = struct.Struct("<BII")  # version, entity type, length of the id
_GLOBAL_ID = struct.Struct("<Q")


class NoneAuthorizer(NamedTuple):
    """A claimed identity: entity type (u32), id in text (``"admin"``), global_id (u64)."""

    type: int
    id: str
    global_id: int = 0

    def encode(self) -> bytes:
        """17 bytes and the id."""
        text = self.id.encode()
        return _HEAD.pack(_VERSION, self.type, len(text)) + text + _GLOBAL_ID.pack(self.global_id)

    @classmethod
    def decode(cls, buf: bytes) -> NoneAuthorizer:
        """Read a whole authorizer.

        Raises ProtocolError for another version, a length that is not the id's, or an id that is
        not UTF-8.
        """
        least = _HEAD.size + _GLOBAL_ID.size
        if len(buf) < least:
            raise ProtocolError("authorizer.length", len(buf), f"{least} bytes or more", offset=0)
        version, kind, length = _HEAD.unpack_from(buf)
        if version != _VERSION:
            raise ProtocolError("authorizer.version", version, f"{_VERSION}", offset=0)
        if length != len(buf) - least:
            raise ProtocolError("authorizer.id_len", length, f"{len(buf) - least}", offset=5)
        text, (global_id,) = buf[_HEAD.size : -_GLOBAL_ID.size], _GLOBAL_ID.unpack(buf[-8:])
        try:
            return cls(kind, text.decode(), global_id)
        except UnicodeDecodeError:
            raise ProtocolError("authorizer.id", text, "UTF-8", offset=_HEAD.size) from None
