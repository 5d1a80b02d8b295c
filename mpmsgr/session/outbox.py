"""What a session has to send, and what it has sent without an acknowledgement (session spec §8)."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator

from mpmsgr.errors import ProtocolError
from mpmsgr.wire.crc import Bytes
from mpmsgr.wire.v1.frames import MessageWriter
from mpmsgr.wire.v1.parcel import Parcel

#: Rank of what was written before: above every u16 priority. (The reference's 255 lets a message
#: of a higher priority overtake it and take its seq.)
_REQUEUED = 1 << 16


class Outbox:
    """Queues by priority (strict, higher first), and `sent` in seq order.

    out_seq: the last number given; nbytes: payload bytes queued or unacknowledged.
    """

    __slots__ = ("_queues", "nbytes", "out_seq", "sent")

    def __init__(self) -> None:
        self.out_seq = 0
        self.nbytes = 0
        self.sent: list[Parcel] = []  # a list: most are empty, and an empty deque takes 760 bytes
        self._queues: dict[int, deque[Parcel]] = {}

    @property
    def queued(self) -> int:
        """Messages not written yet."""
        return sum(map(len, self._queues.values())) if self._queues else 0

    def put(self, parcels: Iterable[Parcel]) -> None:
        """Queue each behind what has the same priority."""
        size, priority, append = 0, -1, None
        for parcel in parcels:
            if parcel.priority != priority or append is None:
                priority = parcel.priority
                append = (self._queues.get(priority) or self._new_queue(priority)).append
            append(parcel)
            size += parcel.size
        self.nbytes += size

    def _new_queue(self, priority: int) -> deque[Parcel]:
        queue: deque[Parcel] = deque()
        self._queues[priority] = queue
        if len(self._queues) > 1:
            self._queues = dict(sorted(self._queues.items(), reverse=True))
        return queue

    def write(self, out: list[Bytes], write: MessageWriter, keep: bool, budget: int) -> bool:
        """Number and write queued messages into *out*, about *budget* bytes of them.

        keep: remember them in `sent` (lossless). Returns True when nothing is left to write.
        """
        if not self._queues:
            return True
        batch = self._take(budget)
        write(out, batch, self.out_seq + 1)
        self.out_seq += len(batch)
        if keep:
            self.sent.extend(batch)
        else:
            self.nbytes -= sum(parcel.size for parcel in batch)
        return not self._queues

    def _take(self, budget: int) -> list[Parcel]:
        if self.nbytes <= budget and len(self._queues) == 1:  # as often: no need to look at each
            (queue,) = self._queues.values()
            self._queues.clear()
            return list(queue)
        batch = []
        for priority in list(self._queues):
            queue = self._queues[priority]
            while queue and budget > 0:
                parcel = queue.popleft()
                budget -= parcel.size
                batch.append(parcel)
            if queue:
                break
            del self._queues[priority]
        return batch

    def acked(self, seq: int) -> None:
        """The peer has everything up to *seq*."""
        sent = self.sent
        if sent and sent[0].seq <= seq:
            count = seq - sent[0].seq + 1  # numbers in `sent` are consecutive
            self.nbytes -= sum([parcel.size for parcel in sent[:count]])
            del sent[:count]

    def requeue_sent(self) -> None:
        """Put `sent` before everything else; the same numbers will be given again."""
        if not self.sent:
            return
        self.out_seq -= len(self.sent)
        first = self._queues.get(_REQUEUED) or self._new_queue(_REQUEUED)
        first.extendleft(reversed(self.sent))
        self.sent.clear()

    def discard_requeued_up_to(self, seq: int) -> None:
        """The peer had these before the socket broke (accept side of the SEQ exchange)."""
        queue = self._queues.get(_REQUEUED)
        while queue and 0 < queue[0].seq <= seq:
            self.nbytes -= queue.popleft().size
            self.out_seq += 1
        if queue is not None and not queue:
            del self._queues[_REQUEUED]

    def pass_over(self, seq: int) -> None:
        """The same for a peer that may remember more than we ever sent (without resetcheck, spec
        §5, or because we ended the session it speaks of): it would take messages numbered up to
        *seq* for repeats.

        Raises ProtocolError for a number that leaves no room.
        """
        if seq >> 63:
            raise ProtocolError("in_seq", seq, "below 2^63")
        self.discard_requeued_up_to(seq)
        self.out_seq = max(self.out_seq, seq)

    def skip_to(self, seq: int) -> None:
        """The same on the connect side: the server has everything up to *seq* (spec §7).

        Raises ProtocolError when that is more than was ever sent to it.
        """
        queue = self._queues.get(_REQUEUED, ())
        sent_before = sum(1 for parcel in queue if parcel.seq)
        if seq > self.out_seq + sent_before:
            allowed = f"at most {self.out_seq + sent_before}, the last seq sent"
            raise ProtocolError("in_seq", seq, allowed)
        self.discard_requeued_up_to(seq)
        self.out_seq = seq

    def begin_again(self, out_seq: int) -> list[int]:
        """Keep everything for a new session that begins after *out_seq*; return the tids.

        What was written before is marked as possibly seen.
        """
        self.requeue_sent()
        kept = []
        for queue in self._queues.values():
            for parcel in queue:
                if parcel.seq:
                    parcel.mark_resent()
                    parcel.seq = 0
                kept.append(parcel.tid)
        self.out_seq = out_seq
        return kept

    def drop_pushes(self, nbytes: int) -> list[int]:
        """Drop the oldest pushes never written, *nbytes* of them at least; return their tids.

        None, where there are not so many.
        """
        dropped = []
        for queue, parcel in self._pushes():
            dropped.append((queue, parcel))
            nbytes -= parcel.size
            if nbytes <= 0:
                break
        else:
            return []
        for queue, parcel in dropped:
            queue.remove(parcel)
            self.nbytes -= parcel.size
        self._queues = {priority: queue for priority, queue in self._queues.items() if queue}
        return [parcel.tid for _, parcel in dropped]

    def _pushes(self) -> Iterator[tuple[deque[Parcel], Parcel]]:
        """Pushes never written, each with its queue: the least urgent first, then the oldest."""
        for priority, queue in reversed(self._queues.items()):
            if priority != _REQUEUED:
                yield from ((queue, parcel) for parcel in queue if parcel.push)

    def discard(self) -> list[int]:
        """Drop everything; return the tids dropped, in the order they were to arrive."""
        dropped = [parcel.tid for parcel in self.sent]
        for queue in self._queues.values():
            dropped += [parcel.tid for parcel in queue]
        self.sent.clear()
        self._queues.clear()
        self.nbytes = 0
        return dropped
