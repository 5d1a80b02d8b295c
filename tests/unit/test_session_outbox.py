"""Queue operations (session spec §8, §9)."""

from __future__ import annotations

import pytest

from mpmsgr.errors import ProtocolError
from mpmsgr.session.outbox import Outbox
from mpmsgr.wire.crc import Bytes
from mpmsgr.wire.message import Message
from mpmsgr.wire.name import EntityName
from mpmsgr.wire.v1.parcel import Parcel, encode_parcel

NAME = EntityName(8, 1)
ALL = 1 << 30


def parcel(tid: int, priority: int = 127, size: int = 0) -> Parcel:
    return encode_parcel(Message(0x8001, bytes(size), tid=tid, priority=priority), NAME)


def outbox(*tids: int) -> Outbox:
    box = Outbox()
    box.put([parcel(tid) for tid in tids])
    return box


def write(box: Outbox, budget: int = ALL, *, keep: bool = True) -> list[tuple[int, int]]:
    """What one write takes: (seq, tid) of each."""
    written: list[tuple[int, int]] = []

    def note(out: list[Bytes], batch: list[Parcel], seq: int) -> None:
        for number, one in enumerate(batch, seq):
            one.seq = number
            written.append((number, one.tid))

    box.write([], note, keep, budget)
    return written


def sizes(box: Outbox) -> int:
    queued = [one for queue in box._queues.values() for one in queue]
    return sum(one.size for one in [*box.sent, *queued])


def waiting(box: Outbox) -> list[int]:
    """Tids in the order in which they would be written."""
    return [one.tid for queue in box._queues.values() for one in queue]


def test_numbers_are_given_when_written_from_1_on() -> None:
    box = outbox(11, 12)
    assert box.out_seq == 0
    assert write(box) == [(1, 11), (2, 12)]
    box.put([parcel(13)])
    assert write(box) == [(3, 13)]
    assert (box.out_seq, box.queued, len(box.sent)) == (3, 0, 3)


def test_the_highest_priority_first_each_in_order() -> None:
    box = Outbox()
    box.put([parcel(1, 63), parcel(2, 127), parcel(3, 255), parcel(4, 127), parcel(5, 300)])
    assert [tid for _, tid in write(box)] == [5, 3, 2, 4, 1]


def test_a_budget_stops_a_write_and_the_next_goes_on() -> None:
    box = Outbox()
    box.put([parcel(tid, size=100) for tid in range(1, 6)])
    assert write(box, budget=150) == [(1, 1), (2, 2)]
    assert box.queued == 3
    assert write(box, budget=1) == [(3, 3)]
    assert write(box) == [(4, 4), (5, 5)]


def test_lossy_sessions_keep_nothing() -> None:
    box = outbox(1, 2)
    write(box, keep=False)
    assert not box.sent
    assert box.nbytes == 0


def test_an_ack_is_cumulative() -> None:
    box = outbox(1, 2, 3)
    write(box)
    box.acked(2)
    assert [one.tid for one in box.sent] == [3]
    box.acked(2)
    box.acked(0)
    assert [one.tid for one in box.sent] == [3]
    box.acked(99)
    assert not box.sent
    assert box.nbytes == 0


def test_requeue_puts_what_was_sent_in_front_with_the_same_numbers() -> None:
    box = outbox(1, 2, 3)
    write(box)
    box.acked(1)
    box.put([parcel(4), parcel(5, 255)])
    box.requeue_sent()
    assert (box.out_seq, box.queued, list(box.sent)) == (1, 4, [])
    assert waiting(box) == [2, 3, 5, 4]
    assert write(box) == [(2, 2), (3, 3), (4, 5), (5, 4)]


def test_no_priority_overtakes_what_was_sent() -> None:
    box = outbox(1, 2)
    write(box)
    box.requeue_sent()
    box.put([parcel(3, 65535)])
    assert write(box) == [(1, 1), (2, 2), (3, 3)]


def test_requeue_twice_keeps_the_order() -> None:
    box = outbox(1, 2, 3, 4)
    write(box)
    box.requeue_sent()
    write(box, budget=1)
    box.requeue_sent()
    assert waiting(box) == [1, 2, 3, 4]
    assert box.out_seq == 0


def test_requeue_of_nothing_changes_nothing() -> None:
    box = outbox(1)
    box.requeue_sent()
    assert (box.out_seq, box.queued) == (0, 1)


def test_the_accepting_side_discards_what_the_peer_has() -> None:
    box = outbox(1, 2, 3)
    write(box)
    box.requeue_sent()
    box.put([parcel(4)])
    box.discard_requeued_up_to(2)
    assert box.out_seq == 2
    assert write(box) == [(3, 3), (4, 4)]


def test_what_was_never_sent_stops_the_scan() -> None:
    box = outbox(1, 2)
    box.discard_requeued_up_to(2)
    assert box.queued == 2
    box = outbox(1)
    write(box)
    box.put([parcel(2, 255)])
    box.requeue_sent()
    box.discard_requeued_up_to(99)
    assert waiting(box) == [2]
    assert box.out_seq == 1


def test_the_accepting_side_goes_on_above_a_number_it_never_sent() -> None:
    box = outbox(1)
    box.pass_over(36)
    assert write(box) == [(37, 1)]
    with pytest.raises(ProtocolError, match="in_seq"):
        box.pass_over(1 << 63)


def test_the_connecting_side_skips_to_what_the_server_has() -> None:
    box = outbox(1, 2, 3)
    write(box)
    box.requeue_sent()
    box.skip_to(2)
    assert write(box) == [(3, 3)]


def test_a_server_that_has_less_is_sent_all_that_is_left_from_there() -> None:
    box = outbox(1, 2, 3)
    write(box)
    box.acked(2)
    box.requeue_sent()
    box.skip_to(0)
    assert write(box) == [(1, 3)]


def test_a_server_cannot_have_more_than_was_sent() -> None:
    box = outbox(1, 2, 3)
    write(box, budget=1)
    box.requeue_sent()
    with pytest.raises(ProtocolError) as caught:
        box.skip_to(2)
    assert (caught.value.field, caught.value.value) == ("in_seq", 2)
    assert waiting(box) == [1, 2, 3]
    box.skip_to(1)
    assert waiting(box) == [2, 3]


def test_discard_names_everything_in_the_order_it_would_have_arrived() -> None:
    box = outbox(1, 2)
    write(box)
    box.put([parcel(3, 63), parcel(4, 196)])
    assert box.discard() == [1, 2, 4, 3]
    assert (box.queued, box.nbytes, list(box.sent)) == (0, 0, [])


def test_bytes_are_counted_until_they_are_acknowledged() -> None:
    box = Outbox()
    box.put([parcel(1, size=1000), parcel(2, size=30000)])
    assert box.nbytes == sizes(box) == 31000 + 2 * 21
    write(box)
    assert box.nbytes == sizes(box)
    box.requeue_sent()
    assert box.nbytes == sizes(box)
    box.discard_requeued_up_to(1)
    assert box.nbytes == sizes(box) == 30021
    write(box)
    box.acked(2)
    assert box.nbytes == 0


def test_begin_again_keeps_everything_and_marks_what_was_sent() -> None:
    box = outbox(1, 2)
    write(box, budget=1)
    assert box.begin_again(500) == [1, 2]
    first, second = (one for queue in box._queues.values() for one in queue)
    assert first.head[-2:] != second.head[-2:]  # the mark is in the reserved field
    assert write(box) == [(501, 1), (502, 2)]
