"""Tags of msgr v1 (wire spec §7)."""

from __future__ import annotations

from enum import IntEnum


class Tag(IntEnum):
    """The leading byte of a frame, or the tag of a connect reply."""

    READY = 1
    RESETSESSION = 2
    WAIT = 3
    RETRY_SESSION = 4
    RETRY_GLOBAL = 5
    CLOSE = 6
    MSG = 7
    ACK = 8
    KEEPALIVE = 9
    BADPROTOVER = 10
    BADAUTHORIZER = 11
    FEATURES = 12
    SEQ = 13
    KEEPALIVE2 = 14
    KEEPALIVE2_ACK = 15
    CHALLENGE_AUTHORIZER = 16


#: Tags of an open connection; the others are answers of a handshake.
FRAME_TAGS = frozenset(
    {Tag.CLOSE, Tag.MSG, Tag.ACK, Tag.KEEPALIVE, Tag.KEEPALIVE2, Tag.KEEPALIVE2_ACK}
)
REPLY_TAGS = frozenset(Tag) - FRAME_TAGS
