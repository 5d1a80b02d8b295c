"""Frames of an open connection, written (wire spec §7, §8)."""

from __future__ import annotations

import struct
from collections.abc import Callable

from mpmsgr.wire.address import EntityAddr
from mpmsgr.wire.crc import ALL_ONES, Bytes, crc32c, raw_crc
from mpmsgr.wire.features import MSG_AUTH, NOSRCADDR, has_feature
from mpmsgr.wire.name import EntityName
from mpmsgr.wire.v1.parcel import FOOTER, FOOTER_SIZE, HEAD, OLD_FOOTER, Parcel
from mpmsgr.wire.v1.tags import Tag

Stamp = tuple[int, int]  # seconds and nanoseconds, u32 each, of the sender's clock

_TAG_SEQ = struct.Struct("<BQ")
_TAG_STAMP = struct.Struct("<BII")
_pack_seq = struct.Struct("<Q").pack
_pack_crc = struct.Struct("<I").pack
_MSG = bytes([Tag.MSG])

# Old header (334 bytes): the 36 bytes of fields the new one begins with, src and orig_src as
# name + address, reserved, crc.
_OLD_START = struct.Struct("<QQHHHIIIH")

CLOSE = bytes([Tag.CLOSE])
KEEPALIVE = bytes([Tag.KEEPALIVE])

#: Appends the buffers of message frames to a list: (out, parcels, seq of the first).
MessageWriter = Callable[[list[Bytes], list[Parcel], int], None]


def encode_ack(seq: int) -> bytes:
    """Acknowledges everything up to *seq*."""
    return _TAG_SEQ.pack(Tag.ACK, seq)


def encode_keepalive2(stamp: Stamp) -> bytes:
    """Asks the peer to return *stamp*."""
    return _TAG_STAMP.pack(Tag.KEEPALIVE2, *stamp)


def encode_keepalive2_ack(stamp: Stamp) -> bytes:
    """Returns the peer's *stamp*."""
    return _TAG_STAMP.pack(Tag.KEEPALIVE2_ACK, *stamp)


def write_messages(out: list[Bytes], parcels: list[Parcel], seq: int) -> None:
    """Append *parcels*, numbered from *seq*, in the new form (NOSRCADDR and MSG_AUTH)."""
    for parcel in parcels:
        parcel.seq = seq
        header = _pack_seq(seq) + parcel.head
        out += (_MSG, header, _pack_crc(crc32c(header, ALL_ONES) ^ ALL_ONES), *parcel.body)
        seq += 1


def message_writer(features: int, peer_addr: EntityAddr) -> MessageWriter:
    """The writer for the forms that *features* select (spec §8.2, §8.4)."""
    new_header = has_feature(features, NOSRCADDR)
    new_footer = has_feature(features, MSG_AUTH)
    if new_header and new_footer:
        return write_messages

    def write(out: list[Bytes], parcels: list[Parcel], seq: int) -> None:
        for parcel in parcels:
            parcel.seq = seq
            if new_header:
                header = _pack_seq(seq) + parcel.head
            else:
                header = _old_header(parcel, seq, peer_addr)
            out += (_MSG, header, _pack_crc(raw_crc(header)))
            out += parcel.body if new_footer else _old_footer(parcel)
            seq += 1

    return write


def _old_header(parcel: Parcel, seq: int, peer_addr: EntityAddr) -> bytes:
    """330 bytes; as in the reference, src carries the *peer's* address and orig_src repeats it."""
    *fields, src_type, src_num, _compat, _reserved = HEAD.unpack(parcel.head)
    instance = EntityName(src_type, src_num).encode() + peer_addr.encode()
    return _OLD_START.pack(seq, *fields) + instance * 2 + bytes(4)


def _old_footer(parcel: Parcel) -> tuple[Bytes, ...]:
    *front, last = parcel.body
    payload, footer = last[:-FOOTER_SIZE], last[-FOOTER_SIZE:]
    front_crc, middle_crc, data_crc, _sig, flags = FOOTER.unpack(footer)
    return (*front, payload, OLD_FOOTER.pack(front_crc, middle_crc, data_crc, flags))
