"""The outbox alone: what it counts, what it drops, what it keeps for another session."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mpmsgr.session.outbox import Outbox
from mpmsgr.wire.crc import Bytes
from mpmsgr.wire.message import PRIO_DEFAULT, PRIO_HIGH, PRIO_LOW, Message
from mpmsgr.wire.v1.frames import write_messages
from mpmsgr.wire.v1.parcel import FOOTER_SIZE, RESENT, Parcel, encode_parcel
from tests.streams import SENDER

#: Payload and footer.
SIZE = 100 + FOOTER_SIZE


def parcel(
    tid: int, *, push: bool = False, priority: int = PRIO_DEFAULT, size: int = 100
) -> Parcel:
    made = encode_parcel(Message(0x8001, bytes(size), tid=tid, priority=priority), SENDER)
    made.push = push
    return made


def push(tid: int, priority: int = PRIO_DEFAULT) -> Parcel:
    return parcel(tid, push=True, priority=priority)


def outbox(*parcels: Parcel) -> Outbox:
    made = Outbox()
    made.put(parcels)
    return made


def write(box: Outbox, budget: int = 1 << 30) -> None:
    """Write about *budget* bytes as a lossless session does."""
    box.write([], write_messages, True, budget)


def tids(box: Outbox) -> list[int]:
    """Everything in it, in the order it is to arrive."""
    return [one.tid for one in everything(box)]


def everything(box: Outbox) -> list[Parcel]:
    return [*box.sent, *(one for queue in box._queues.values() for one in queue)]


def is_marked(one: Parcel) -> bool:
    return one.head[-2:] == RESENT.to_bytes(2, "little")


# what a full outbox drops


def test_the_oldest_pushes_go_and_no_more_than_needed() -> None:
    box = outbox(push(1), push(2), push(3))
    assert box.drop_pushes(SIZE + 1) == [1, 2]
    assert (tids(box), box.nbytes) == ([3], SIZE)


def test_replies_stay() -> None:
    box = outbox(parcel(1), push(2), parcel(3), push(4))
    assert box.drop_pushes(2 * SIZE) == [2, 4]
    assert tids(box) == [1, 3]


def test_the_least_urgent_go_first() -> None:
    box = outbox(push(1, PRIO_HIGH), push(2, PRIO_LOW), push(3), push(4, PRIO_LOW))
    assert box.drop_pushes(3 * SIZE) == [2, 4, 3]
    assert tids(box) == [1]


def test_nothing_goes_in_vain() -> None:
    box = outbox(parcel(1), push(2))
    assert box.drop_pushes(SIZE + 1) == []
    assert (tids(box), box.nbytes) == ([1, 2], 2 * SIZE)


def test_what_was_written_stays() -> None:
    box = outbox(push(1), push(2))
    write(box, SIZE)
    assert box.drop_pushes(SIZE) == [2]
    box.requeue_sent()
    assert box.drop_pushes(1) == []
    assert tids(box) == [1]


class Watched(deque[Parcel]):
    """Counts what is looked at."""

    looked_at = 0

    def __iter__(self) -> Iterator[Parcel]:
        for one in super().__iter__():
            self.looked_at += 1
            yield one


def test_dropping_one_does_not_look_at_all_the_others() -> None:
    box = outbox(*map(push, range(1, 1001)))
    queue = box._queues[PRIO_DEFAULT] = Watched(box._queues[PRIO_DEFAULT])
    assert box.drop_pushes(2 * SIZE) == [1, 2]
    assert queue.looked_at == 2


# another session


def test_it_begins_again_with_everything_in_order() -> None:
    box = outbox(parcel(1), parcel(2), parcel(3, priority=PRIO_HIGH))
    write(box, SIZE)  # 3 is written first
    box.put([parcel(4, priority=PRIO_HIGH), push(5)])
    assert box.begin_again(500) == [3, 4, 1, 2, 5]
    assert [is_marked(one) for one in everything(box)] == [True, False, False, False, False]
    write(box)
    assert [one.tid for one in box.sent] == [3, 4, 1, 2, 5]
    assert [one.seq for one in box.sent] == [501, 502, 503, 504, 505]


def test_it_begins_again_twice() -> None:
    box = outbox(parcel(1), parcel(2), parcel(3))
    write(box, 2 * SIZE)
    box.begin_again(0)
    write(box, SIZE)
    assert box.begin_again(0) == [1, 2, 3]
    assert [is_marked(one) for one in everything(box)] == [True, True, False]
    box.skip_to(0)
    write(box)
    assert [one.seq for one in box.sent] == [1, 2, 3]
    box.acked(2)
    assert (tids(box), box.nbytes) == ([3], SIZE)


def test_a_number_of_the_old_session_acknowledges_nothing_of_the_new_one() -> None:
    box = outbox(parcel(1), parcel(2))
    write(box)
    box.begin_again(0)
    box.discard_requeued_up_to(2)
    assert tids(box) == [1, 2]


# accounting

KINDS = ["put", "push", "write", "ack", "requeue", "discard_up_to", "drop", "again", "discard"]


@given(steps=st.lists(st.sampled_from(KINDS), max_size=60), seed=st.integers(0, 1 << 32))
def test_the_bytes_are_those_of_what_is_in_it(steps: list[str], seed: int) -> None:
    rng = Random(seed)
    box = Outbox()
    for number, step in enumerate(steps, 1):
        priority = rng.choice([PRIO_LOW, PRIO_DEFAULT, PRIO_HIGH])
        size = rng.randrange(300)
        match step:
            case "put" | "push":
                box.put([parcel(number, push=step == "push", priority=priority, size=size)])
            case "write":
                write(box, size)
            case "ack":
                box.acked(rng.randint(0, box.out_seq))
            case "requeue":
                box.requeue_sent()
            case "discard_up_to":
                box.requeue_sent()
                box.discard_requeued_up_to(box.out_seq + rng.randrange(5))
            case "drop":
                box.drop_pushes(size)
            case "again":
                box.begin_again(rng.randrange(100))
            case "discard":
                box.discard()
        assert box.nbytes == sum(one.size for one in everything(box))
        assert box.queued == len(everything(box)) - len(box.sent)
        numbers = [one.seq for one in box.sent]
        assert numbers == list(range(box.out_seq - len(numbers) + 1, box.out_seq + 1))


@pytest.mark.parametrize("keep", [True, False])
def test_a_lossy_session_keeps_nothing_that_is_written(keep: bool) -> None:
    box = outbox(parcel(1), parcel(2))
    out: list[Bytes] = []
    assert box.write(out, write_messages, keep, 1 << 20)
    assert (len(box.sent), box.nbytes) == ((2, 2 * SIZE) if keep else (0, 0))
