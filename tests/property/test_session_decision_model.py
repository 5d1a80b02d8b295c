"""The session decision against a naive restatement of the spec, over all combinations of inputs."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import NamedTuple

from hypothesis import given
from hypothesis import strategies as st

from mpmsgr.session.decision import Facts, Row, Verdict, decide
from mpmsgr.session.states import State

_YES_NO = (False, True)
_LIVE = (State.CONNECTING, State.OPEN, State.STANDBY, State.WAIT)


class Answer(NamedTuple):
    """What the accepting side does, told without rows."""

    verdict: Verdict
    reset: bool = False
    from_zero: bool = False


REPLACE = Answer(Verdict.REPLACE)


def spec(f: Facts) -> Answer:
    """Session spec §5 and its project notes, in the words of its tables by state."""
    if f.anonymous:
        return Answer(Verdict.OPEN)
    if not f.existing:
        return Answer(Verdict.OPEN if f.connect_seq == 0 else Verdict.RESETSESSION)
    if f.global_seq < f.existing_peer_global_seq:
        return Answer(Verdict.RETRY_GLOBAL)
    if f.existing_lossy:
        return Answer(Verdict.REPLACE, reset=True)
    if f.connect_seq == 0 and f.existing_connect_seq > 0:
        return Answer(Verdict.REPLACE, reset=f.resetcheck, from_zero=True)
    if f.connect_seq < f.existing_connect_seq:
        return Answer(Verdict.RETRY_SESSION)
    if f.connect_seq > f.existing_connect_seq:
        unknown = f.existing_connect_seq == 0 and f.resetcheck
        return Answer(Verdict.RESETSESSION) if unknown else REPLACE
    return _equal(f)


def _equal(f: Facts) -> Answer:
    """The column c.cseq = E of the table by state."""
    if f.state in (State.OPEN, State.STANDBY):
        livelock = f.resetcheck and f.connect_seq == 0
        return REPLACE if livelock else Answer(Verdict.RETRY_SESSION)
    if f.state is State.WAIT:
        return REPLACE
    assert f.state is State.CONNECTING
    incoming_wins = f.peer_sorts_first or f.existing_server
    return REPLACE if incoming_wins else Answer(Verdict.WAIT)


def told(row: Row) -> Answer:
    return Answer(row.verdict, row.resets, row.hard)


def everything() -> Iterator[Facts]:
    """Every combination that can make a difference: sequence numbers matter by their relation."""
    seqs, global_seqs = (0, 1, 2), (4, 5, 6)
    flags = product(_YES_NO, repeat=6)
    for (existing, lossy, server, resetcheck, first, anonymous), state in product(flags, _LIVE):
        for connect_seq, existing_seq, global_seq in product(seqs, seqs, global_seqs):
            yield Facts(
                existing, state, lossy, server, existing_seq, 5, connect_seq, global_seq,
                resetcheck, first, anonymous,
            )  # fmt: skip


def test_the_whole_product_of_inputs() -> None:
    seen = {}
    for facts in everything():
        row = decide(facts)
        assert told(row) == spec(facts), (row.number, facts)
        seen[row.number] = row
    assert len(seen) == 15  # no row is idle


U32 = st.integers(0, (1 << 32) - 1)
some_facts = st.builds(
    Facts,
    st.booleans(), st.sampled_from(_LIVE), st.booleans(), st.booleans(),
    U32, U32, U32, U32,
    st.booleans(), st.booleans(), st.booleans(),
)  # fmt: skip


@given(some_facts)
def test_any_numbers(facts: Facts) -> None:
    assert told(decide(facts)) == spec(facts)
