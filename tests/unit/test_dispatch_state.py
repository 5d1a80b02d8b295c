"""The state of a lane: a copy to work on, committed or not, of what msgpack holds, and bounded."""

from __future__ import annotations

from typing import Any

import msgpack
import pytest

from mpmsgr.dispatch.state import State, StateError


def committed(value: Any, limit: int = 1 << 16) -> State:
    """A state that holds *value*."""
    return State(msgpack.packb(value), limit)


def commit(state: State) -> bytes | None:
    """What a handler that completes does."""
    packed = state.encode()
    if packed is not None:
        state.commit(packed)
    return packed


def test_it_begins_empty_and_nothing_is_nothing_to_commit() -> None:
    state = State()
    assert state.encode() is None, "nobody looked at it"
    assert state.value == {}
    assert state.encode() is None
    assert state.packed == b""


def test_what_is_committed_is_there_next_time() -> None:
    state = State()
    state.value["sum"] = 5
    packed = commit(state)
    assert packed == msgpack.packb({"sum": 5})
    assert state.value == {"sum": 5}
    assert State(packed or b"").value == {"sum": 5}, "at another worker"


def test_only_a_change_is_to_be_committed() -> None:
    state = committed({"sum": 5})
    assert state.value["sum"] == 5
    assert commit(state) is None
    state.value["sum"] = 6
    state.value["sum"] = 5
    assert commit(state) is None, "none in the end"
    state.value["list"] = []
    assert commit(state)
    state.value["list"].append(1)
    assert commit(state) == msgpack.packb({"sum": 5, "list": [1]}), "a change inside counts"


def test_what_a_handler_did_that_failed_is_undone() -> None:
    state = committed({"sum": 5, "list": [1]})
    state.value["list"].append(2)
    del state.value["sum"]
    state.roll_back()
    assert state.value == {"sum": 5, "list": [1]}
    assert state.encode() is None
    state.value.clear()
    state.roll_back()
    assert state.value == {"sum": 5, "list": [1]}


def test_an_emptied_state_is_none() -> None:
    state = committed({"sum": 5})
    state.value.clear()
    assert commit(state) == b""
    assert (state.packed, state.value, state.encode()) == (b"", {}, None)


def test_keys_may_be_numbers() -> None:
    state = committed({1: "one", "two": {3: b"three"}})
    assert state.value == {1: "one", "two": {3: b"three"}}


def test_keys_may_be_tuples() -> None:
    state = State()
    state.value.update({("a", (1, b"x")): [1, 2], "inside": {(1, 2): {"(1, 2)": None}}})
    state.commit(state.encode() or b"")
    before = dict(state.value)
    state.roll_back()
    assert state.value == before
    assert state.encode() is None


class Odd:
    """Nothing that msgpack knows."""


@pytest.mark.parametrize(
    ("value", "path", "text"),
    [
        ({"a": Odd()}, "state['a']", "is Odd: msgpack cannot hold it"),
        ({"a": {"b": [1, {2, 3}]}}, "state['a']['b'][1]", "is set: msgpack cannot hold it"),
        ({"a": ("x", Odd())}, "state['a'][1]", "is Odd"),
        ({("x", Odd()): 1}, "state key", "is Odd"),
        ({"a": 1 << 64}, "state['a']", "is int"),
        ({"a": "\ud800"}, "state['a']", "is str"),
    ],
)
def test_what_cannot_be_kept_is_named(value: dict[Any, Any], path: str, text: str) -> None:
    state = committed({"before": 1})
    state.value.update(value)
    with pytest.raises(StateError) as caught:
        state.encode()
    assert caught.value.path.startswith(path)
    assert caught.value.text.startswith(text)
    assert str(caught.value) == f"{caught.value.path} {caught.value.text}"
    state.roll_back()
    assert state.value == {"before": 1}


def test_a_state_that_contains_itself_is_refused_too() -> None:
    state = State()
    state.value["me"] = [state.value]
    with pytest.raises(StateError, match=r"^state\['me'\]\[0\].{,60}\.\.\. is nested too deeply"):
        state.encode()


def test_above_the_limit_the_largest_part_is_named() -> None:
    state = State(limit=100)
    state.value["small"] = 1
    state.value["large"] = "x" * 100
    with pytest.raises(StateError, match=r"state\['large'\] takes 102 of 1\d\d bytes, at most 100"):
        state.encode()
    state.value["large"] = "x" * 50
    assert commit(state)
