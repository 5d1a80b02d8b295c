"""Acks that wait for handlers, against a model: any order of completion, any reconnect."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from mpmsgr.session.handled import HandledPrefix
from mpmsgr.session.policy import STATEFUL_SERVER
from mpmsgr.wire.v1.tags import Tag
from tests.dialogue import Dialogue, Line, message

# the prefix alone


@given(st.lists(st.integers(1, 4), max_size=30), st.data())
def test_the_prefix_ends_before_the_oldest_in_work(steps: list[int], data: st.DataObject) -> None:
    """*steps*: from each message's number to the next one's."""
    prefix, in_work, last = HandledPrefix(), set[int](), 0
    coming = [sum(steps[: i + 1]) for i in range(len(steps))]
    while coming or in_work:
        if coming and (not in_work or data.draw(st.booleans())):
            last = coming.pop(0)
            prefix.arrived(last)
            in_work.add(last)
        else:
            seq = data.draw(st.sampled_from(sorted(in_work)))
            before = prefix.prefix
            in_work.remove(seq)
            assert prefix.handled(seq) == (prefix.prefix > before)
            assert not prefix.in_work(seq)
        assert prefix.prefix == (min(in_work) - 1 if in_work else last)
        assert all(map(prefix.in_work, in_work))


# a session of it


class Conversation(RuleBasedStateMachine):
    """A peer that keeps its messages until they are acknowledged, and repeats them till then."""

    def __init__(self) -> None:
        super().__init__()
        self.talk = Dialogue(replace(STATEFUL_SERVER, ack="handled"))
        self.connect_seq, self.global_seq, self.tid = 0, 1, 0
        self.kept: dict[int, int] = {}  # by seq, the tid
        self.out_seq = 0
        self.received: list[int] = []  # tids
        self.in_work: list[tuple[HandledPrefix, int, int]] = []
        self.handled: set[int] = set()
        self.line: Line = self.talk.open_incoming()

    def say(self, seqs: list[int]) -> None:
        """Send messages *seqs*; note which of them go to a handler."""
        before = len(self.talk.delivered)
        self.line.says(b"".join(message(seq, self.kept[seq]) for seq in seqs))
        seq_of = {tid: seq for seq, tid in self.kept.items()}
        prefix = self.talk.session.handled
        assert prefix is not None
        for tid in self.talk.delivered[before:]:
            self.received.append(tid)
            self.in_work.append((prefix, seq_of[tid], tid))

    def forget(self, seq: int) -> None:
        """The endpoint has announced *seq*."""
        for known in [known for known in self.kept if known <= seq]:
            assert self.kept.pop(known) in self.handled

    @rule(count=st.integers(1, 5))
    def send(self, count: int) -> None:
        """New messages."""
        if not self.out_seq:
            self.out_seq = self.tid * 1000  # a new session may begin with any number
        first = self.out_seq + 1
        for _ in range(count):
            self.out_seq += 1
            self.tid += 1
            self.kept[self.out_seq] = self.tid
        self.say(list(range(first, self.out_seq + 1)))

    @precondition(lambda self: self.in_work)
    @rule(data=st.data(), count=st.integers(1, 4))
    def complete(self, data: st.DataObject, count: int) -> None:
        """Handlers complete, in any order, some of them of a session that is no more."""
        chosen = data.draw(st.permutations(self.in_work))[:count]
        for prefix, seq, tid in chosen:
            self.in_work.remove((prefix, seq, tid))
            self.handled.add(tid)
            self.talk.endpoint.handled(self.talk.session, [seq], self.talk.now, prefix=prefix)
        self.talk.execute()

    @rule(seconds=st.sampled_from([0.0, 0.05]))
    def listen(self, seconds: float) -> None:
        """Hear the acks."""
        self.talk.turn(seconds)
        for tag, value, _ in self.line.frames():
            if tag == Tag.ACK:
                assert isinstance(value, int)
                self.forget(value)

    @precondition(lambda self: self.kept)
    @rule(data=st.data())
    def repeat(self, data: st.DataObject) -> None:
        """Repeat what is kept, from some message on: nothing of it is handled twice."""
        seqs = sorted(self.kept)
        self.say(seqs[data.draw(st.integers(0, len(seqs) - 1)) :])

    @rule()
    def reconnect(self) -> None:
        """The socket breaks; the peer forgets what it is told and repeats the rest."""
        self.line.breaks()
        self.connect_seq += 2
        self.global_seq += 1
        self.line = self.talk.open_incoming(self.connect_seq, self.global_seq)
        announced = self.line.in_seq
        assert announced is not None
        self.forget(announced)
        if self.kept:
            assert min(self.kept) == announced + 1, "it would number them differently"
            self.say(sorted(self.kept))

    @precondition(lambda self: self.out_seq)
    @rule()
    def begin_anew(self) -> None:
        """The peer loses its session."""
        self.line.breaks()
        self.kept, self.out_seq = {}, 0
        self.connect_seq = 0
        self.global_seq += 1
        self.line = self.talk.open_incoming(0, self.global_seq)

    @invariant()
    def nothing_is_handled_twice(self) -> None:
        """Every message goes to a handler once."""
        assert len(self.received) == len(set(self.received))

    def teardown(self) -> None:
        """In the end all is handled, and the peer knows."""
        for prefix, seq, tid in self.in_work:
            self.handled.add(tid)
            self.talk.endpoint.handled(self.talk.session, [seq], self.talk.now, prefix=prefix)
        self.talk.execute()
        self.in_work = []
        self.listen(1.0)
        assert not self.kept
        assert self.talk.session.in_seq_acked == self.talk.session.in_seq


Conversation.TestCase.settings = settings(max_examples=60, stateful_step_count=30)
TestConversation = Conversation.TestCase
