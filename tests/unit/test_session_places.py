"""Places for long messages, asked for by an open session and by nobody else."""

from __future__ import annotations

import gc
import weakref

import pytest

from mpmsgr.session.actions import Arrived, Deliver, Place
from mpmsgr.session.policy import STATEFUL_SERVER
from mpmsgr.session.states import State
from mpmsgr.wire.v1.frames import CLOSE, KEEPALIVE
from mpmsgr.wire.v1.handshake import BANNER
from tests.dialogue import CLIENT, Dialogue, Line, connect, message

LONG = bytes(1000)
SIZE = 53 + 5 + 1000 + 21


class Memory(bytearray):
    """A place whose end can be noticed."""


def serving() -> tuple[Dialogue, Line]:
    """A session that its peer opened, at an endpoint that gives places."""
    talk = Dialogue(STATEFUL_SERVER)
    talk.endpoint.claims_above = 500
    return talk, talk.open_incoming()


def test_a_place_is_asked_for_behind_what_came_before() -> None:
    talk, line = serving()
    line.pipe.receive(message(1) + message(2) + message(3, data=LONG)[:200], talk.now)
    kinds = [type(action) for action in talk.endpoint.take()]
    assert [kind for kind in kinds if kind in (Deliver, Place)] == [Deliver, Place]


def test_a_long_message_is_received_into_its_place() -> None:
    talk, line = serving()
    frame = message(1, data=LONG)
    line.says(frame[:60])
    assert talk.places == [Place(line.pipe, SIZE, 53 + 5)]
    assert line.pipe.landing() is None
    memory = bytearray(SIZE)
    assert line.pipe.land(memoryview(memory))
    landing = line.pipe.landing()
    assert landing is not None
    landing[:] = frame[60:]
    line.pipe.landed(len(frame) - 60, talk.now)
    (deliver,) = [a for a in talk.endpoint.take() if isinstance(a, Deliver)]
    assert memory == frame[1:]
    assert deliver.raws[0].obj is memory  # type: ignore[union-attr]
    assert talk.session.in_seq == 1


def test_a_message_that_gets_none_is_received_anyway() -> None:
    talk, line = serving()
    frame = message(1, data=LONG)
    line.says(frame[:60])
    assert line.pipe.land(None)
    line.says(frame[60:], message(2))
    assert talk.delivered == [1, 2]
    assert len(talk.places) == 1


def test_none_is_asked_for_in_a_handshake() -> None:
    """Not even if the message came along with it: READY goes out first."""
    talk = Dialogue(STATEFUL_SERVER)
    talk.endpoint.claims_above = 500
    line = talk.accept()
    frame = message(1, data=LONG)
    line.says(BANNER, CLIENT.encode(), connect().encode()[:-1])
    assert not talk.places
    line.says(connect().encode()[-1:] + frame[:60])
    assert talk.places == [Place(line.pipe, SIZE, 53 + 5)]
    assert talk.session.state is State.OPEN


def test_none_is_asked_for_what_will_not_be_taken() -> None:
    for refuse in ("draining", "refusing"):
        talk, line = serving()
        assert line.pipe.established is not None
        if refuse == "draining":
            talk.endpoint.draining = True
        else:
            line.pipe.established.refusing = True
        line.says(message(1, data=LONG)[:60])
        line.says(message(1, data=LONG)[60:], KEEPALIVE)
        assert talk.places == []
        assert talk.delivered == []


def test_none_is_asked_for_behind_a_close() -> None:
    talk, line = serving()
    line.says(CLOSE, message(1, data=LONG)[:60])
    assert talk.places == []
    assert not line.pipe.land(None)


def test_a_pipe_that_is_closed_has_no_use_for_a_place() -> None:
    _talk, line = serving()
    line.says(message(1, data=LONG)[:60])
    line.breaks()
    assert not line.pipe.land(memoryview(bytearray(SIZE)))
    assert line.pipe.landing() is None


def test_a_place_is_left_when_the_pipe_is_closed_not_when_it_is_forgotten() -> None:
    _talk, line = serving()
    line.says(message(1, data=LONG)[:60])
    memory = Memory(SIZE)
    gone = weakref.ref(memory)
    line.pipe.land(memoryview(memory))
    del memory
    gc.collect()
    assert gone() is not None
    line.breaks()
    assert gone() is None


def test_a_repeated_message_leaves_its_place() -> None:
    talk, line = serving()
    frame = message(1, data=LONG)
    for _ in range(2):
        line.says(frame[:60])
        memory = Memory(SIZE)
        gone = weakref.ref(memory)
        line.pipe.land(memoryview(memory))
        del memory
        line.says(frame[60:])
    assert talk.delivered == [1]
    gc.collect()
    assert gone() is None


# how it ends


def kinds(talk: Dialogue) -> list[type]:
    """What is said of messages and places."""
    actions = [type(action) for action in talk.endpoint.take()]
    return [kind for kind in actions if kind in (Deliver, Place, Arrived)]


@pytest.mark.parametrize("landed", [True, False])
def test_a_message_has_arrived_before_it_is_delivered(landed: bool) -> None:
    talk, line = serving()
    frame = message(1, data=LONG)
    line.says(frame[:60])
    line.pipe.land(memoryview(bytearray(SIZE)) if landed else None)
    line.pipe.receive(frame[60:] + message(2), talk.now)
    assert kinds(talk) == [Arrived, Deliver]


def test_the_next_one_is_asked_for_after_that() -> None:
    talk, line = serving()
    frame = message(1, data=LONG)
    line.says(frame[:60])
    line.pipe.land(None)
    line.pipe.receive(frame[60:] + message(2, data=LONG)[:60], talk.now)
    assert kinds(talk) == [Arrived, Deliver, Place]


@pytest.mark.parametrize("how", ["a repeat", "given up", "refused"])
def test_one_that_is_not_delivered_is_over_as_well(how: str) -> None:
    talk, line = serving()
    frame = bytearray(message(1, data=LONG))
    if how == "a repeat":
        line.says(message(1))
    if how == "given up":
        frame[-1] &= ~1
    line.says(bytes(frame[:60]))
    line.pipe.land(memoryview(bytearray(SIZE)))
    if how == "refused":
        assert line.pipe.established is not None
        line.pipe.established.refusing = True
    line.says(bytes(frame[60:]))
    assert talk.arrived == [line.pipe]
    assert len(talk.delivered) == (how == "a repeat")


def test_one_that_was_whole_at_once_was_not_asked_for() -> None:
    talk, line = serving()
    line.says(message(1, data=LONG), message(2, data=LONG)[:40])
    line.says(message(2, data=LONG)[40:])
    assert (talk.places, talk.arrived, talk.delivered) == ([], [], [1, 2])
