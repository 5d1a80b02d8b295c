"""An open connection of a session: frames in, frames out (session spec §9, §11).

Nobody is given a place for a message (`Place`) before this stage, that is before READY.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from mpmsgr.errors import ProtocolError
from mpmsgr.session.actions import (
    Answered,
    Arrived,
    Deliver,
    Flush,
    FlushSoon,
    Place,
    Report,
)
from mpmsgr.session.handled import HandledPrefix, Work
from mpmsgr.wire.crc import Bytes
from mpmsgr.wire.features import MSGR_KEEPALIVE2, has_feature
from mpmsgr.wire.v1.frames import (
    KEEPALIVE,
    Stamp,
    encode_ack,
    encode_keepalive2,
    encode_keepalive2_ack,
    message_writer,
)
from mpmsgr.wire.v1.parcel import is_resent, raw_ids
from mpmsgr.wire.v1.parser import Claim, Frame, FrameParser
from mpmsgr.wire.v1.tags import Tag

if TYPE_CHECKING:
    from mpmsgr.session.endpoint import Endpoint
    from mpmsgr.session.pipe import Pipe
    from mpmsgr.session.session import Session

_MSG, _ACK = int(Tag.MSG), int(Tag.ACK)

#: So many messages are acknowledged at once; fewer wait for the next write or the ack delay.
_ACK_EVERY = 128
#: About so many bytes are handed to the socket before its back-pressure is asked again.
_WRITE_BUDGET = 256 * 1024


class Established:
    """The frames of one socket of an OPEN session.

    drained: nothing waits to be written; flush_soon: an ack is due and a flush is on its way;
    refusing: messages are not taken (`Endpoint.overrun`), refused: some were not.
    """

    __slots__ = (
        "drained",
        "endpoint",
        "flush_soon",
        "keepalive_ack",
        "parser",
        "pipe",
        "refused",
        "refusing",
        "session",
        "writer",
    )

    def __init__(
        self, endpoint: Endpoint, pipe: Pipe, session: Session, *, offset: int = 0
    ) -> None:
        self.endpoint, self.pipe, self.session = endpoint, pipe, session
        self.parser = FrameParser(
            endpoint.limits, session.features, offset=offset, claims_above=endpoint.claims_above
        )
        self.writer = message_writer(session.features, session.peer_addr)
        self.keepalive_ack: Stamp | None = None
        self.drained = True
        self.flush_soon = False
        self.refusing = self.refused = False

    def received(self, data: bytes, now: float) -> None:
        """The next bytes. Raises ProtocolError, after what came whole before it was handled."""
        try:
            frames = self.parser.feed(data)
        except ProtocolError:
            # Or a session would never get past a bad frame that always comes with good ones.
            self.handle(self.parser.completed, now)
            raise
        self.handle(frames, now)
        if self.parser.claim is not None:
            self._place(self.parser.claim)

    def _place(self, claim: Claim) -> None:
        if self.refusing or self.endpoint.draining:
            self.parser.decline()  # it will not be taken
        else:
            self.endpoint.emit(Place(self.pipe, claim.size, claim.lead))

    def handle(self, frames: Sequence[Frame], now: float) -> None:
        """Frames in the order they came; messages leave as one Deliver."""
        session = self.session
        session.last_received = now
        if self.parser.claim_is_over:
            self.parser.claim_is_over = False
            self.endpoint.emit(Arrived(self.pipe))
        if not frames:  # a piece of a large message
            return
        if self.refusing:
            frames = self._refuse(frames)
        raws: list[Bytes] = []
        window = session.policy.dedupe_window
        plain = not (window or self.endpoint.draining or session.handled is not None)
        for tag, value, raw in frames:
            if tag == _MSG:
                if plain and value == session.in_seq + 1:
                    session.in_seq = value  # the one case that is worth no call
                    raws.append(raw)  # type: ignore[arg-type]
                elif self._counts(value) and not (window and self._seen(raw, window)):  # type: ignore[arg-type]
                    raws.append(raw)  # type: ignore[arg-type]
            elif tag == _ACK:
                session.outbox.acked(value)  # type: ignore[arg-type]
                if session.full:
                    self._emptied(now)
            elif tag == Tag.CLOSE:
                self._deliver(raws)
                self.endpoint.peer_closed(self.pipe, now)
                return
            else:
                self._keepalive(tag, value, now)  # type: ignore[arg-type]
        self._deliver(raws)

    def _refuse(self, frames: Sequence[Frame]) -> list[Frame]:
        """*frames* without messages, which stay unacknowledged."""
        others = [frame for frame in frames if frame[0] != _MSG]
        self.refused |= len(others) < len(frames)
        return others

    def _emptied(self, now: float) -> None:
        """An ack has shortened a full outbox. If that made room, have what was refused repeated."""
        self.endpoint.emptied(self.session)
        if self.refusing and not self.session.full:
            self.refusing = False
            if self.refused:
                self.endpoint.pipe_failed(self.pipe, "it has to repeat what was refused", now)

    def _counts(self, seq: int) -> bool:
        """Is message *seq* new? Rules of spec §9.2."""
        session = self.session
        if seq == session.in_seq + 1:
            if self.endpoint.draining:
                return False  # neither handled nor acknowledged: the sender still has it
        elif seq <= session.in_seq:
            self._repeated(seq)
            return False
        elif self.endpoint.draining:
            return False
        elif session.in_seq:
            self._gap(session.in_seq, seq)
        session.in_seq = seq
        if session.handled is not None:
            self._in_work(session.handled, seq)
        return True

    def _in_work(self, handled: HandledPrefix, seq: int) -> None:
        nothing_owed = handled.prefix <= self.session.in_seq_acked
        handled.arrived(seq)
        if nothing_owed:  # nor is it now, if numbers were left out
            self.session.in_seq_acked = handled.prefix

    def _repeated(self, seq: int) -> None:
        """Without RECONNECT_SEQ a peer sends again what we have: our ack was lost, it needs one.

        Or *seq* is in work still, and its ack is to come.
        """
        self.endpoint.counters.duplicates += 1
        session, acked = self.session, self.session.ack_seq
        if seq <= acked:
            session.in_seq_acked = min(session.in_seq_acked, acked - 1)
            self.ack_due()

    def _seen(self, raw: Bytes, window: int) -> bool:
        """Is it a repeat from an older session? It counts as received, but is not delivered."""
        session, seen, tid = self.session, self.endpoint.seen, raw_ids(raw)[1]
        handled = session.handled
        work = None if handled is None else Work(handled, session.in_seq)
        if not tid or not seen.note(session.peer_addr, tid, window, work):
            return False
        if not is_resent(raw):
            return False
        self.endpoint.counters.duplicates += 1
        first = seen.work(session.peer_addr, tid)
        if work is not None and first is not None and first.prefix.in_work(first.seq):
            first.prefix.repeats[first.seq] = session, work
        elif work is not None:
            work.prefix.handled(work.seq)
        self.ack_due()
        return True

    def _gap(self, before: int, seq: int) -> None:
        """Legal (spec §9.5), but worth a line. A session may begin with any number (§9.3)."""
        self.endpoint.counters.gaps += 1
        text = f"message {seq} came after {before}"
        self.endpoint.emit(Report(self.session, "gap", text))

    def _deliver(self, raws: list[Bytes]) -> None:
        if not raws:
            return
        self.endpoint.emit(Deliver(self.session, raws))
        self.ack_due()

    def ack_due(self) -> None:
        """An ack may be due, unless the session is lossy: at once for many messages, else soon."""
        session = self.session
        if session.policy.lossy:
            return
        handled = session.handled
        owed = (session.in_seq if handled is None else handled.prefix) - session.in_seq_acked
        if owed >= _ACK_EVERY:
            self.endpoint.emit(Flush(self.pipe))
        elif owed > 0 and not self.flush_soon:
            self.flush_soon = True
            self.endpoint.emit(FlushSoon(self.pipe))

    def _keepalive(self, tag: int, stamp: Stamp | None, now: float) -> None:
        if tag in (Tag.KEEPALIVE, Tag.KEEPALIVE2):
            self.session.last_keepalive = now
        if tag == Tag.KEEPALIVE2:
            self.keepalive_ack = stamp
            self.endpoint.emit(Flush(self.pipe))
        elif tag == Tag.KEEPALIVE2_ACK and stamp is not None:
            self.session.last_keepalive_ack = stamp[0] + stamp[1] / 1e9
            self.endpoint.emit(Answered(self.session))

    def output(self, now: float) -> list[Bytes]:
        """Buffers to write: keepalive, keepalive ack, one ack, messages up to the write budget."""
        session = self.session
        out: list[Bytes] = []
        if session.keepalive_due:
            session.keepalive_due = False
            out.append(self._encode_keepalive(now))
        if self.keepalive_ack is not None:
            out.append(encode_keepalive2_ack(self.keepalive_ack))
            self.keepalive_ack = None
        self.flush_soon = False
        lossless = not session.policy.lossy
        handled = session.handled
        ack = session.in_seq if handled is None else handled.prefix
        if lossless and ack > session.in_seq_acked:
            out.append(encode_ack(ack))
            session.in_seq_acked = ack
        self.drained = session.outbox.write(out, self.writer, lossless, _WRITE_BUDGET)
        if session.full:
            self.endpoint.emptied(session)
        return out

    def _encode_keepalive(self, now: float) -> bytes:
        if not has_feature(self.session.features, MSGR_KEEPALIVE2):
            return KEEPALIVE
        sec = int(now)
        return encode_keepalive2((sec & 0xFFFFFFFF, int((now - sec) * 1e9)))
