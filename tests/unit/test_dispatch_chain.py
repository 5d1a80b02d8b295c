"""The chain of dispatchers: who is asked, in which order, and which events stop at a True."""

from __future__ import annotations

from collections.abc import Collection
from typing import cast
from unittest.mock import Mock

import pytest

from mpmsgr import Connection, Dispatcher
from mpmsgr.dispatch.chain import CALLBACKS, Chain
from mpmsgr.session.actions import EventKind


class Takes(Dispatcher):
    def __init__(self, *types: int) -> None:
        self.message_types: Collection[int] = types


def test_head_and_tail() -> None:
    chain, (a, b, c) = Chain(), (Takes(), Takes(), Takes())
    chain.add_tail(b)
    chain.add_tail(c)
    chain.add_head(a)
    assert (list(chain), len(chain)) == ([a, b, c], 3)


def test_takers_of_a_type_in_order() -> None:
    chain, (five, every, six) = Chain(), (Takes(5), Takes(), Takes(6, 7))
    for dispatcher in (five, every, six):
        chain.add_tail(dispatcher)
    assert chain.takers(5) == (five, every)
    assert chain.takers(7) == (every, six)
    assert chain.takers(9) == (every,)


def test_a_dispatcher_added_later_is_asked_too() -> None:
    chain, (first, second, third) = Chain(), (Takes(5), Takes(5), Takes(5))
    chain.add_tail(first)
    assert chain.takers(5) == (first,)
    chain.add_head(second)
    assert chain.takers(5) == (second, first)
    chain.add_tail(third)
    assert chain.takers(5) == (second, first, third)


def test_there_is_a_callback_for_every_event() -> None:
    assert set(CALLBACKS) == {kind.value for kind in EventKind} | {"lane_moved"}


@pytest.mark.parametrize(
    ("event", "stops"),
    [
        ("connect", False),
        ("accept", False),
        ("remote_reset", False),
        ("reset", True),
        ("refused", True),
        ("lane_moved", False),
    ],
)
def test_events(event: str, stops: bool) -> None:
    con = cast(Connection, object())
    dispatcher = Mock(spec_set=Dispatcher)
    callback, stops_at_true = CALLBACKS[event]
    callback(dispatcher, con)
    getattr(dispatcher, f"handle_{event}").assert_called_once_with(con)
    assert stops_at_true is stops


def test_a_plain_dispatcher_takes_nothing_and_minds_nothing() -> None:
    con, plain = Mock(), Dispatcher()
    assert plain.dispatch(con, Mock()) is False
    assert {callback(plain, con) for callback, _ in CALLBACKS.values()} == {None}
    assert plain.on_start() is None
    assert plain.on_stop() is None
