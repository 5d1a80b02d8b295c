"""What a lost socket means (session spec §10): every row, every policy, and the moves it causes."""

from __future__ import annotations

from itertools import product

import pytest

from mpmsgr.session.actions import EventKind
from mpmsgr.session.faults import FAULTS, FaultFacts, FaultResult, decide_fault
from mpmsgr.session.policy import (
    LOSSLESS_CLIENT,
    LOSSLESS_PEER,
    LOSSLESS_PEER_REUSE,
    LOSSY_CLIENT,
    PRESETS,
    STATEFUL_SERVER,
    STATELESS_REGISTERED_SERVER,
    STATELESS_SERVER,
    Policy,
)
from mpmsgr.session.states import TRANSITIONS, Move, State
from mpmsgr.wire.v1.tags import Tag
from tests.dialogue import PEER, Dialogue, Line, reply

END, PARK = FaultResult.END, FaultResult.PARK
RECONNECT, BACK_OFF = FaultResult.RECONNECT, FaultResult.BACK_OFF

#: The table of the spec by policy: an open session is cut with nothing queued, with something.
WHEN_OPEN = {
    "lossy_client": (END, END),
    "stateless_server": (END, END),
    "stateless_registered_server": (END, END),
    "stateful_server": (PARK, PARK),
    "lossless_client": (RECONNECT, RECONNECT),
    "default": (RECONNECT, RECONNECT),
    "lossless_peer": (PARK, RECONNECT),
    "lossless_peer_reuse": (PARK, RECONNECT),
}


def facts(policy: Policy, state: State, *, queued: bool) -> FaultFacts:
    return FaultFacts(state, policy.lossy, policy.server, policy.standby, queued)


@pytest.mark.parametrize(("name", "queued"), list(product(PRESETS, (False, True))))
def test_an_open_session_of_every_preset(name: str, queued: bool) -> None:
    result = decide_fault(facts(PRESETS[name], State.OPEN, queued=queued)).result
    assert result is WHEN_OPEN[name][queued]


@pytest.mark.parametrize(
    ("row", "policy", "state", "queued", "result"),
    [
        (3, LOSSY_CLIENT, State.OPEN, True, END),
        (3, STATELESS_SERVER, State.OPEN, False, END),
        (4, LOSSLESS_PEER, State.OPEN, False, PARK),
        (4, LOSSLESS_PEER, State.CONNECTING, False, PARK),
        (4, STATEFUL_SERVER, State.OPEN, False, PARK),
        (5, STATEFUL_SERVER, State.OPEN, True, PARK),
        (6, LOSSLESS_CLIENT, State.OPEN, False, RECONNECT),
        (6, LOSSLESS_PEER, State.OPEN, True, RECONNECT),
        (7, LOSSLESS_CLIENT, State.CONNECTING, False, BACK_OFF),
        (7, LOSSLESS_PEER, State.CONNECTING, True, BACK_OFF),
        (7, LOSSY_CLIENT, State.CONNECTING, True, BACK_OFF),
    ],
)
def test_row(row: int, policy: Policy, state: State, queued: bool, result: FaultResult) -> None:
    found = decide_fault(facts(policy, state, queued=queued))
    assert (found.number, found.result) == (row, result)


def test_rows_are_the_specs_in_its_order() -> None:
    assert [row.number for row in FAULTS] == [3, 4, 5, 6, 7]  # 1, 2: threads; 8: `Backoff`


def spec(f: FaultFacts) -> FaultResult:
    """Spec §10 once more, the other way round."""
    connecting = f.state is State.CONNECTING
    if not connecting and f.lossy:
        return END
    if not f.queued and f.standby:
        return PARK
    if connecting:
        return BACK_OFF
    return PARK if f.server else RECONNECT


def test_the_whole_product_of_inputs() -> None:
    flags = (False, True)
    for values in product((State.CONNECTING, State.OPEN), flags, flags, flags, flags):
        some = FaultFacts(*values)
        assert decide_fault(some).result is spec(some), some


# the same through an endpoint


def opened(policy: Policy) -> tuple[Dialogue, Line]:
    """A session of *policy*, open: dialled by us, or by the peer where we are a server."""
    talk = Dialogue(policy)
    if policy.server:
        return talk, talk.open_incoming()
    talk.connect()
    flags = int(policy.lossy)
    return talk, talk.open_outgoing(reply(Tag.READY, 1, 1, flags=flags))


@pytest.mark.parametrize(("name", "queued"), list(product(PRESETS, (False, True))))
def test_an_open_session_is_cut(name: str, queued: bool) -> None:
    talk, line = opened(PRESETS[name])
    session = talk.session
    if queued:
        talk.send(session, 1, 2)
    talk.told()
    line.breaks()
    result = WHEN_OPEN[name][queued]
    assert talk.told() == ([EventKind.RESET] if result is END else [])
    if result is END:
        assert session.state is State.CLOSED
        assert len(talk.endpoint.registry) == 0
    elif result is PARK:
        assert session.state is State.STANDBY
        assert session.connect_seq == 1
    else:
        assert session.state is State.CONNECTING
        assert session.connect_seq == 2
        assert len(talk.dials) == 2
    assert session.outbox.queued == (2 if queued and result is not END else 0)


@pytest.mark.parametrize("policy", [LOSSY_CLIENT, STATELESS_SERVER, STATELESS_REGISTERED_SERVER])
def test_a_lossy_fault_is_final_and_names_what_was_queued(policy: Policy) -> None:
    talk, line = opened(policy)
    session = talk.session
    talk.send(session, 5, 6)
    talk.events.clear()
    line.breaks("cut in the middle")
    (event,) = talk.events
    assert (event.kind, event.lost, event.cause) == (EventKind.RESET, (5, 6), "cut in the middle")
    assert not talk.send(session, 7)
    assert talk.dials[1:] == []


def test_unacknowledged_messages_count_as_queued() -> None:
    talk, line = opened(LOSSLESS_PEER)
    talk.send(talk.session, 1)
    line.heard()
    line.breaks()
    assert talk.session.state is State.CONNECTING
    assert talk.session.outbox.queued == 1
    assert talk.session.outbox.out_seq == 0


def test_a_connecting_session_with_standby_and_nothing_to_say_parks() -> None:
    talk = Dialogue(LOSSLESS_PEER_REUSE)
    session = talk.connect()
    talk.refused()
    assert session.state is State.STANDBY
    assert talk.told() == [EventKind.REFUSED]
    talk.send(session, 1)  # connect_seq unchanged, dialled at once
    assert (session.state, session.connect_seq) == (State.CONNECTING, 0)
    assert len(talk.dials) == 2


def test_a_lossy_client_that_never_connected_goes_on_for_ever() -> None:
    talk = Dialogue(LOSSY_CLIENT, port=0)
    session = talk.connect()
    talk.send(session, 1)
    talk.refused()
    for _ in range(30):
        talk.refused()
        talk.until_dial()
    assert talk.told() == [EventKind.REFUSED] * 31
    assert session.state is State.CONNECTING
    assert session.outbox.queued == 1


def test_a_session_that_cannot_dial_parks() -> None:
    talk = Dialogue(LOSSLESS_CLIENT)  # not a server, but its peer has no port
    line = talk.open_incoming()
    talk.send(talk.session, 1)
    line.breaks()
    assert talk.session.state is State.STANDBY


def test_a_peer_that_listens_is_dialled_back_at_the_address_it_announced() -> None:
    talk = Dialogue(LOSSLESS_PEER)
    line = talk.open_incoming(addr=PEER)
    talk.send(talk.session, 1)
    line.breaks()
    assert talk.dials[-1][1:] == ("10.0.0.2", 6801)


def test_the_socket_of_a_fault_is_closed_and_forgotten() -> None:
    talk, line = opened(STATEFUL_SERVER)
    line.breaks()
    assert line.closed
    assert not talk.endpoint.registry.pipes
    assert [fault.cause for fault in talk.faults] == ["cut"]
    line.breaks("once more")
    assert len(talk.faults) == 1


# moves


def test_only_a_closed_session_has_no_moves() -> None:
    assert {state for state, _ in TRANSITIONS} == set(State) - {State.CLOSED}
    for state in set(State) - {State.CLOSED}:
        assert TRANSITIONS[state, Move.END] is State.CLOSED
        assert TRANSITIONS[state, Move.ACCEPTED] is State.OPEN


def test_a_move_that_the_table_does_not_have_is_a_bug() -> None:
    talk, _ = opened(STATEFUL_SERVER)
    with pytest.raises(KeyError):
        talk.session.move(Move.SEND)
