"""Streams of frames for tests: written by the package, parsed in chunks of any size."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Iterator

from mpmsgr.errors import ProtocolError
from mpmsgr.wire.address import EntityAddr
from mpmsgr.wire.crc import Bytes, raw_crc
from mpmsgr.wire.features import SUPPORTED
from mpmsgr.wire.message import Message
from mpmsgr.wire.name import EntityName
from mpmsgr.wire.v1.frames import message_writer
from mpmsgr.wire.v1.parcel import encode_parcel
from mpmsgr.wire.v1.parser import Claim, Frame, FrameParser

SENDER = EntityName(8, 4242)
RECEIVER_ADDR = EntityAddr.of("127.0.0.1", 6800, 12345)


def message_frame(
    m: Message, seq: int = 1, features: int = SUPPORTED, *, crc_data: bool = True
) -> bytes:
    """One message frame, tag byte first."""
    out: list[Bytes] = []
    parcel = encode_parcel(m, SENDER, crc_data=crc_data)
    message_writer(features, RECEIVER_ADDR)(out, [parcel], seq)
    return b"".join(out)


def with_length(frame: bytes, at: int, length: int) -> bytes:
    """*frame* (new form) with *length* in the u32 at *at* of its header, and the crc that fits."""
    header = bytearray(frame[1:50])
    struct.pack_into("<I", header, at, length)
    return frame[:1] + bytes(header) + struct.pack("<I", raw_crc(header)) + frame[54:]


def chunks(stream: bytes, sizes: Iterable[int]) -> Iterator[bytes]:
    """*stream* cut into *sizes*, repeated until it ends."""
    cycle, at = list(sizes), 0
    while at < len(stream):
        for size in cycle:
            yield stream[at : at + size]
            at += size


def parse(
    parser: FrameParser,
    stream: bytes,
    sizes: Iterable[int],
    *,
    land: bool = False,
    place: Callable[[Claim], memoryview | None] = lambda claim: None,
) -> tuple[list[Frame], ProtocolError | None]:
    """The frames of *stream* given to *parser* in chunks of *sizes*, and the error that ended it.

    land: what fits is received through `landing` and `landed`, the rest through `feed`. place:
    answers claims, with None declines them; those of an old form are declined.
    """
    frames: list[Frame] = []
    try:
        for chunk in chunks(stream, sizes):
            frames += _give(parser, chunk) if land else parser.feed(chunk)
            if parser.claim is not None:
                answer_claim(parser, place(parser.claim) if parser.can_land else None)
    except ProtocolError as err:
        return [*frames, *parser.completed], err
    return frames, None


def answer_claim(parser: FrameParser, view: memoryview | None) -> None:
    """Land in *view*, or decline."""
    if view is None:
        parser.decline()
    else:
        parser.land(view)


def _give(parser: FrameParser, chunk: bytes) -> list[Frame]:
    view = parser.landing()
    if view is None:
        return parser.feed(chunk)
    with view:
        fits = len(chunk) <= len(view)
        if fits:
            view[: len(chunk)] = chunk
    return parser.landed(len(chunk)) if fits else parser.feed(chunk)
