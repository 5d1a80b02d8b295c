"""The chain of dispatchers: who is asked, in which order, and which events stop at a True."""

from __future__ import annotations

from collections.abc import Collection
from typing import cast
from unittest.mock import Mock

import pytest

from mpmsgr import Connection, Dispatcher, Message
from mpmsgr.dispatch.chain import AT_ONCE, CALLBACKS, Chain, name_of, overrides
from mpmsgr.dispatch.handling import DEFAULT, Handling, declared
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


class Handles(Takes):
    """Says that its messages have a deadline."""

    def handling(self, type_: int) -> Handling:
        return declared(deadline=2.0)


def test_who_takes_everything_and_says_nothing_leaves_the_handling_to_others() -> None:
    chain = Chain()
    for dispatcher in (Takes(), Takes(6), Handles(5, 6)):
        chain.add_tail(dispatcher)
    assert chain.handling(5) == declared(deadline=2.0)
    assert chain.handling(6) == DEFAULT, "who names it has said so"
    assert chain.handling(7) == DEFAULT
    assert chain.routes() == {5: declared(deadline=2.0)}


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


class Fast(Takes):
    """Whose mind changes."""

    fast = True

    def can_fast_dispatch_any(self) -> bool:
        return self.fast

    def fast_dispatch(self, con: Connection, m: Message) -> None:
        """Enough to have one of its own."""


def test_the_fast_list_is_made_when_they_are_added_at_the_same_end() -> None:
    chain, (a, b, c, never) = Chain(), (Fast(), Fast(), Fast(), Fast())
    never.fast = False
    chain.add_tail(b)
    chain.add_tail(Takes())
    chain.add_tail(c)
    chain.add_head(a)
    chain.add_head(never)
    assert chain.fast == [a, b, c]
    never.fast, a.fast = True, False
    assert chain.fast == [a, b, c]
    assert len(chain) == 5


def test_by_default_the_types_it_names_are_dispatched_fast() -> None:
    fast = Fast(5, 6)
    assert [fast.can_fast_dispatch(Message(type_)) for type_ in (5, 6, 7)] == [True, True, False]
    assert not Fast().can_fast_dispatch(Message(5))


def test_what_it_has_of_its_own() -> None:
    fast = Fast()
    assert [name for name in AT_ONCE if overrides(fast, name)] == [
        "can_fast_dispatch_any",
        "fast_dispatch",
    ]
    assert not any(overrides(Takes(), name) for name in AT_ONCE)


def test_its_name() -> None:
    named = Takes()
    named.name = "shop"  # type: ignore[attr-defined]
    assert (name_of(named), name_of(Takes())) == ("shop", "Takes")
