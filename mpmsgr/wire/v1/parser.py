"""The frames of an open connection, read incrementally (wire spec §7, §8, §15).

Any chunking gives the same frames, and the same error behind the same frames. What is kept between
chunks is at most the incomplete last frame, in a buffer that grows with the bytes that really came,
never with a claimed length; or, where the owner gives one, in a place of exactly its size.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, NamedTuple

from mpmsgr.errors import ProtocolError
from mpmsgr.wire.crc import ALL_ONES, Bytes, crc32c, raw_crc
from mpmsgr.wire.features import MSG_AUTH, NOSRCADDR, has_feature
from mpmsgr.wire.limits import Limits
from mpmsgr.wire.name import NAME_SIZE
from mpmsgr.wire.v1.parcel import (
    FLAG_COMPLETE,
    FLAG_NOCRC,
    FOOTER,
    FOOTER_SIZE,
    HEADER_SIZE,
    OLD_FOOTER,
)
from mpmsgr.wire.v1.tags import Tag

#: One frame: (tag, value, raw). MSG: value = seq, raw = the canonical raw message of parcel.py.
#: ACK: value = seq. KEEPALIVE2 and its ACK: value = (sec, nsec). Others: value = None.
#: raw is bytes, for a large message a read-only view of the buffer in which it was received, and
#: for one that was landed the very view that was given for it.
Frame = tuple[int, "int | tuple[int, int] | None", "Bytes | None"]

_MSG, _ACK = int(Tag.MSG), int(Tag.ACK)
_unpack_seq = struct.Struct("<Q").unpack_from
_unpack_stamp = struct.Struct("<II").unpack_from
_PAYLOADLESS = {int(Tag.KEEPALIVE), int(Tag.CLOSE)}
_STAMPED = {int(Tag.KEEPALIVE2), int(Tag.KEEPALIVE2_ACK)}
_OLD_HEADER_SIZE = 334
_OLD_NAME_AT = 36
_NEVER = 1 << 63

#: A message longer than this is received straight into its own buffer.
_LARGE = 256 * 1024
#: ... once so much of it has come; a claimed length alone reserves nothing.
_LAND_ABOVE = 32 * 1024
#: Of every parser that keeps nothing: an empty bytearray that nobody can change.
_NOTHING: Any = b""
#: Below this a slice that copies is cheaper than one of a memoryview.
_SLICE_BELOW = 4096


class Claim(NamedTuple):
    """A place wanted for a raw message: its size, and what comes before its data, in bytes."""

    size: int
    lead: int


class _Form(NamedTuple):
    """A header and footer form: sizes, and what is read from them.

    unpack_header: seq, front, middle and data length, crc; unpack_footer: three crcs and flags.
    """

    header: int
    footer: int
    unpack_header: Callable[[Bytes, int], tuple[int, int, int, int, int]]
    unpack_footer: Callable[[Bytes, int], tuple[int, int, int, int]]


@cache
def _form(new_header: bool, new_footer: bool) -> _Form:
    header = HEADER_SIZE if new_header else _OLD_HEADER_SIZE
    footer = struct.Struct("<III8xB" if new_footer else "<IIIB")
    fields = struct.Struct(f"<Q14xIII{header - 4 - 34}xI")
    return _Form(header, footer.size, fields.unpack_from, footer.unpack_from)


class FrameParser:
    """Turns the bytes of one open connection into frames.

    features: the negotiated set, which selects the header and footer form; offset: position of
    the first byte in the socket's stream, for errors. `feed` for bytes that lie somewhere else;
    `landing` and `landed` to receive a large message in place. `aborted` counts messages that
    their sender gave up (dropped, the stream goes on: spec §8.4). `completed` holds the frames
    before the fault once a ProtocolError was raised: they are valid, and a session that drops
    them would be sent the same chunk again for ever.

    claims_above: an incomplete message, its raw longer than so many bytes, gets a `claim` once its
    header is there and good (0 = none does). Until the claim is answered by `land` or `decline`
    nothing may be fed. `can_land`: not so in an old form, which has to be converted.
    `claim_is_over` is set when such a message is whole, or was given up; whoever wants to know
    resets it. `expects_large`: the last message was landed, so the next one will be claimed as
    well; what of it is fed has to be copied, so little should be.
    """

    __slots__ = (
        "_check_data",
        "_check_header",
        "_claimed",
        "_claims_above",
        "_filled",
        "_footer",
        "_header",
        "_max_data",
        "_max_front",
        "_max_middle",
        "_need",
        "_offset",
        "_partial",
        "_small_front",
        "_unpack_footer",
        "_unpack_header",
        "_view",
        "aborted",
        "can_land",
        "claim",
        "claim_is_over",
        "completed",
        "expects_large",
    )

    def __init__(
        self,
        limits: Limits,
        features: int,
        *,
        offset: int = 0,
        check_header: bool = True,
        check_data: bool = True,
        claims_above: int = 0,
    ) -> None:
        self._max_front, self._max_middle = limits.max_front, limits.max_middle
        self._max_data = limits.max_data
        form = _form(has_feature(features, NOSRCADDR), has_feature(features, MSG_AUTH))
        self._header, self._footer, self._unpack_header, self._unpack_footer = form
        self.can_land = form[:2] == (HEADER_SIZE, FOOTER_SIZE)
        self._check_header, self._check_data = check_header, check_data
        self._claims_above = claims_above or _NEVER
        # The longest front of the short way; -1: there is none.
        self._small_front = min(limits.max_front, _SLICE_BELOW) if check_header else -1
        self._offset = offset
        self._partial: bytearray = _NOTHING
        self._filled = 0  # bytes of _partial that are real; the rest waits for `landed`
        self._need = 0  # length of the frame in _partial, 0 = not known yet
        self._view: memoryview | None = None  # holds it in place of _partial, but for its tag
        self.claim: Claim | None = None
        self._claimed = self.claim_is_over = False
        self.expects_large = False
        self.aborted = 0
        self.completed: Sequence[Frame] = ()

    @property
    def buffered(self) -> int:
        """Bytes kept for the incomplete last frame."""
        return self._filled

    def feed(self, data: bytes) -> list[Frame]:
        """Frames completed by *data*. Raises ProtocolError; the connection is of no use then."""
        frames: list[Frame] = []
        try:
            if self._filled:
                data = self._complete_partial(data, frames)
            if data:
                self._keep_rest(data, self._parse(data, frames))
            if self.expects_large and any(tag == _MSG for tag, _, _ in frames):
                self.expects_large = False
        except ProtocolError:
            self.completed = frames
            raise
        return frames

    def land(self, view: memoryview) -> None:
        """Answer the claim: the message goes into *view*, writable and of exactly its size.

        Raises ValueError for another size.
        """
        assert self.claim is not None
        assert self.can_land
        if len(view) != self.claim.size:
            raise ValueError(f"the place has {len(view)} bytes, {self.claim.size} were claimed")
        view[: self._filled - 1] = memoryview(self._partial)[1:]
        self.claim, self._view, self._partial = None, view, _NOTHING
        self._claimed = True

    def decline(self) -> None:
        """Answer the claim: there is no place, the message goes into memory of its own."""
        self.claim = None
        self._claimed = True
        self.expects_large = False

    def abandon(self) -> None:
        """Drop what is kept of an incomplete frame, a view too: nothing more will come."""
        self._partial, self._filled, self._need = _NOTHING, 0, 0
        self._view = self.claim = None
        self._claimed = False

    def landing(self) -> memoryview | None:
        """Where the next bytes of a large incomplete message may be received, or None.

        The view must be released before the parser is used again; `landed` alone may be called
        while an event loop still holds it for its read.
        """
        if not self._need or self.claim is not None:
            return None
        if self._view is not None:
            return self._view[self._filled - 1 :]
        missing = self._need - self._filled
        if missing < _LARGE or self._filled < _LAND_ABOVE:
            return None
        if self._filled == len(self._partial):
            # Doubling keeps the copying linear and the memory within twice what really came.
            self._partial += bytes(min(missing, self._filled))
        return memoryview(self._partial)[self._filled :]

    def landed(self, size: int) -> list[Frame]:
        """Frames completed by *size* bytes received into `landing()`. Raises as `feed` does."""
        frames: list[Frame] = []
        self._filled += size
        if self._filled == self._need:
            self._finish_partial(frames)
        return frames

    # an incomplete frame

    def _keep_rest(self, data: bytes, used: int) -> None:
        """Keep what follows the *used* bytes of *data*: the beginning of a frame."""
        self._offset += used
        if used < len(data):
            self._partial = bytearray(memoryview(data)[used:])
            self._filled = len(self._partial)
            self._need = self._frame_length()

    def _complete_partial(self, data: bytes, frames: list[Frame]) -> bytes:
        """Move bytes of *data* to the incomplete frame; return what is left of them."""
        assert self.claim is None, "fed before its claim was answered"
        if not self._need:  # a message whose header is incomplete
            data = self._append(data, 1 + self._header - self._filled)
            self._need = self._frame_length()
            if not self._need:
                return data
        data = self._append(data, self._need - self._filled)
        if self._filled == self._need:
            self._finish_partial(frames)
        return data

    def _append(self, data: bytes, size: int) -> bytes:
        if self._view is not None:
            part = memoryview(data)[:size]
            self._view[self._filled - 1 : self._filled - 1 + len(part)] = part
            self._filled += len(part)
        else:
            del self._partial[self._filled :]
            self._partial += data[:size]
            self._filled = len(self._partial)
        return data[size:]

    def _finish_partial(self, frames: list[Frame]) -> None:
        self.claim = None
        if self._claimed:
            self._claimed, self.claim_is_over = False, True
        if self._view is not None:
            self._finish_landed(self._view, frames)
            return
        partial, need = self._partial, self._need
        small = need < _SLICE_BELOW
        whole: Bytes = bytes(partial) if small else memoryview(partial).toreadonly()
        self._partial, self._filled, self._need = _NOTHING, 0, 0
        self._parse(whole, frames)
        self._offset += need

    def _finish_landed(self, view: memoryview, frames: list[Frame]) -> None:
        self._view, self._filled, self._need = None, 0, 0
        self.expects_large = True
        self._offset += 1  # the tag is not in the view
        before = len(frames)
        self._parse_message(view, -1, len(view), frames)
        self._offset += len(view)
        if len(frames) > before:  # it was not aborted
            tag, seq, _slice = frames[-1]
            frames[-1] = (tag, seq, view)

    def _frame_length(self) -> int:
        """Length of the frame at the front of _partial, 0 while it cannot be known.

        A long message gets its claim.
        """
        tag = self._partial[0]
        if tag == _MSG:
            if self._filled <= self._header:
                return 0
            _, front, middle, data, crc = self._unpack_header(self._partial, 1)
            self._check_sizes(self._partial, 0, front, middle, data, crc)
            lead = self._header + front + middle
            size = lead + data + self._footer
            if size > self._claims_above:
                self.claim = Claim(size, lead)
            return 1 + size
        return _control_length(tag, self._offset)

    # complete frames

    def _parse(self, data: Bytes, frames: list[Frame]) -> int:
        """Append the complete frames at the front of *data*; return the bytes they took."""
        at, end = 0, len(data)
        while at < end:
            tag = data[at]
            if tag == _MSG:
                stop = self._parse_message(data, at, end, frames)
                if not stop:
                    break
                at = stop
            else:
                length = _control_length(tag, self._offset + at)
                if end - at < length:
                    break
                frames.append((tag, _control_value(tag, data, at + 1), None))
                at += length
        return at

    def _parse_message(self, data: Bytes, at: int, end: int, frames: list[Frame]) -> int:
        """Append the message frame at *at*; return where it stops, 0 if it is incomplete.

        at = -1: *data* is a raw message that stays where it is, and whose header was checked.
        """
        front_at = at + 1 + self._header
        if front_at > end:
            return 0
        seq, front, middle, rest, crc = self._unpack_header(data, at + 1)
        if not middle and not rest and front <= self._small_front:
            # A crc that follows what it covers brings the register to 0, the seed of the next
            # one: header and front are checked in one go. Anything odd takes the long way.
            crc_end = front_at + front + 4
            stop = crc_end + self._footer - 4
            good = stop <= end and crc32c(data[at + 1 : crc_end], ALL_ONES) == ALL_ONES
            if good and data[stop - 1] & FLAG_COMPLETE:
                raw = data[at + 1 : stop]
                frames.append((_MSG, seq, raw if self.can_land else self._convert(raw)))
                return stop
        middle_at = front_at + front
        data_at = middle_at + middle
        footer_at = data_at + rest
        stop = footer_at + self._footer
        if stop > end:
            return 0  # `_frame_length` checks its header
        if at >= 0:
            self._check_sizes(data, at, front, middle, rest, crc)
        front_crc, middle_crc, data_crc, flags = self._unpack_footer(data, footer_at)
        if not flags & FLAG_COMPLETE:
            self.aborted += 1
            return stop
        part = data if at < 0 or stop - at < _SLICE_BELOW else memoryview(data)
        if self._check_header:
            if front and crc32c(part[front_at:middle_at], ALL_ONES) ^ ALL_ONES != front_crc:
                self._bad_crc("front", front_crc, part[front_at:middle_at], footer_at)
            if middle and crc32c(part[middle_at:data_at], ALL_ONES) ^ ALL_ONES != middle_crc:
                self._bad_crc("middle", middle_crc, part[middle_at:data_at], footer_at + 4)
        checked = rest and self._check_data and not flags & FLAG_NOCRC
        if checked and crc32c(part[data_at:footer_at], ALL_ONES) ^ ALL_ONES != data_crc:
            self._bad_crc("data", data_crc, part[data_at:footer_at], footer_at + 8)
        raw = part[at + 1 : stop]
        if part is not data and stop - at <= _LARGE:
            raw = bytes(raw)
        frames.append((_MSG, seq, raw if self.can_land else self._convert(raw)))
        return stop

    def _check_sizes(
        self, data: Bytes, at: int, front: int, middle: int, rest: int, crc: int
    ) -> None:
        """Check the crc of the header at *at* + 1, then the lengths against the caps."""
        crc_at = at + self._header - 3
        if self._check_header and crc32c(data[at + 1 : crc_at], ALL_ONES) ^ ALL_ONES != crc:
            actual = raw_crc(data[at + 1 : crc_at])
            self._bad("header.crc", f"{crc:#010x}", f"{actual:#010x}", crc_at)
        if front > self._max_front or middle > self._max_middle or rest > self._max_data:
            self._too_long((front, middle, rest), at)

    def _too_long(self, sizes: tuple[int, int, int], at: int) -> None:
        caps = (self._max_front, self._max_middle, self._max_data)
        names = ("front_len", "middle_len", "data_len")
        for i, (name, size, cap) in enumerate(zip(names, sizes, caps, strict=True)):
            if size > cap:
                self._bad(f"header.{name}", size, f"at most {cap}", at + 23 + 4 * i)

    def _convert(self, raw: Bytes) -> bytes:
        """The canonical form of a message that came with an old header or footer."""
        header, payload = raw[: self._header], raw[self._header :]
        if self._header == _OLD_HEADER_SIZE:
            name = header[_OLD_NAME_AT : _OLD_NAME_AT + NAME_SIZE]
            # No compat_version in the old header: 0, unknown. The crc was checked already.
            header = bytes(header[:_OLD_NAME_AT]) + bytes(name) + bytes(8)
        if self._footer != FOOTER_SIZE:
            cut = len(payload) - OLD_FOOTER.size
            front, middle, data, flags = OLD_FOOTER.unpack_from(payload, cut)
            payload = bytes(payload[:cut]) + FOOTER.pack(front, middle, data, 0, flags)
        return bytes(header) + bytes(payload)

    def _bad_crc(self, part: str, claimed: int, data: Bytes, at: int) -> None:
        self._bad(f"footer.{part}_crc", f"{claimed:#010x}", f"{raw_crc(data):#010x}", at)

    def _bad(self, field: str, value: object, allowed: str, at: int) -> None:
        raise ProtocolError(field, value, allowed, offset=self._offset + at)


def _control_length(tag: int, offset: int) -> int:
    if tag == _ACK or tag in _STAMPED:
        return 9
    if tag in _PAYLOADLESS:
        return 1
    raise ProtocolError("tag", tag, "a frame tag (6-9, 14, 15)", offset=offset)


def _control_value(tag: int, data: Bytes, at: int) -> int | tuple[int, int] | None:
    if tag == _ACK:
        return int(_unpack_seq(data, at)[0])
    if tag in _STAMPED:
        sec, nsec = _unpack_stamp(data, at)
        return sec, nsec
    return None
