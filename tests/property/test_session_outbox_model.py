"""The outbox and a receiver, through any number of losses: everything once and in order."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mpmsgr.session.outbox import Outbox
from mpmsgr.wire.crc import Bytes
from mpmsgr.wire.message import Message
from mpmsgr.wire.name import EntityName
from mpmsgr.wire.v1.parcel import Parcel, encode_parcel

NAME = EntityName(8, 1)
PRIORITIES = (63, 127, 255, 300)

steps = st.lists(
    st.one_of(
        st.tuples(st.just("put"), st.sampled_from(PRIORITIES)),
        st.tuples(st.just("write"), st.integers(1, 200)),
        st.tuples(st.just("arrive"), st.integers(0, 5)),
        st.tuples(st.just("ack"), st.integers(0, 5)),
        st.tuples(st.just("lose"), st.sampled_from(["client", "server", "no SEQ"])),
    ),
    max_size=60,
)


class Wire:
    """A sender's outbox and a receiver, with what is on its way between them."""

    def __init__(self) -> None:
        self.box = Outbox()
        self.in_seq = 0
        self.way: list[tuple[int, Parcel]] = []
        self.put: list[Parcel] = []
        self.got: list[Parcel] = []

    def step(self, kind: str, argument: int | str) -> None:
        getattr(self, f"_{kind}")(argument)

    def _put(self, priority: int) -> None:
        m = Message(0x8001, tid=len(self.put) + 1, priority=priority)
        self.put.append(encode_parcel(m, NAME))
        self.box.put(self.put[-1:])

    def _write(self, budget: int) -> None:
        def note(out: list[Bytes], batch: list[Parcel], seq: int) -> None:
            for number, parcel in enumerate(batch, seq):
                parcel.seq = number
                self.way.append((number, parcel))

        self.box.write([], note, True, budget)

    def _arrive(self, count: int) -> None:
        for seq, parcel in self.way[:count]:
            if seq > self.in_seq:
                assert seq == self.in_seq + 1
                self.in_seq = seq
                self.got.append(parcel)
        del self.way[:count]

    def _ack(self, behind: int) -> None:
        self.box.acked(max(0, self.in_seq - behind))

    def _lose(self, exchange: str) -> None:
        self.way.clear()
        self.box.requeue_sent()
        if exchange == "client":
            self.box.skip_to(self.in_seq)
        elif exchange == "server":
            self.box.pass_over(self.in_seq)


@given(steps)
def test_everything_arrives_once_and_in_the_order_of_its_priority(
    history: list[tuple[str, int | str]],
) -> None:
    wire = Wire()
    for kind, argument in history:
        wire.step(kind, argument)
    wire.step("write", 1 << 30)
    wire.step("arrive", len(wire.way))
    wire.step("ack", 0)
    assert sorted(parcel.tid for parcel in wire.got) == [parcel.tid for parcel in wire.put]
    for priority in PRIORITIES:
        tids = [parcel.tid for parcel in wire.got if parcel.priority == priority]
        assert tids == sorted(tids)
    assert (wire.box.nbytes, wire.box.queued, len(wire.box.sent)) == (0, 0, 0)
    assert wire.box.out_seq == wire.in_seq == len(wire.put)
