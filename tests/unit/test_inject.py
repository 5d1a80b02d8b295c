"""Faults on purpose, drawn: by seed, in scope, as often as asked; and the delay queue."""

from __future__ import annotations

from dataclasses import replace
from random import Random
from typing import Any

import pytest

from mpmsgr.session.inject import DelayQueue, Injection, Injector
from mpmsgr.session.policy import Policy
from mpmsgr.session.session import Session
from mpmsgr.wire.address import EntityAddr
from mpmsgr.wire.name import EntityType

EVERYTHING = Injection(
    seed=7,
    socket_failures=10,
    short_reads=0.3,
    short_writes=0.3,
    delay_probability=0.3,
    delay_max_s=2.0,
)


def injector(injection: Injection = EVERYTHING, **changes: Any) -> Injector:
    made = replace(injection, **changes)
    return Injector(made, Random(made.seed))


def session(id_: int = 1, peer_type: int = EntityType.CLIENT) -> Session:
    return Session(id_, peer_type, EntityAddr(), Policy())


def draws(faults: Injector, of: Session | None, count: int = 2000) -> list[object]:
    """What is drawn for *count* reads, writes and messages."""
    drawn: list[object] = []
    for _ in range(count):
        drawn += [faults.cuts(of), faults.read_size(of), faults.write_size(of)]
        if of is not None:
            drawn.append(faults.delay(of, 0x8001))
    return drawn


def test_the_same_seed_the_same_faults() -> None:
    assert draws(injector(), session()) == draws(injector(), session())


def test_another_seed_other_faults() -> None:
    assert draws(injector(), session()) != draws(injector(seed=8), session())


def test_as_often_as_asked() -> None:
    faults, one = injector(), session()
    count = 5000
    cuts = sum(faults.cuts(one) for _ in range(count))
    assert 0.08 < cuts / count < 0.12
    sizes = [faults.read_size(one) for _ in range(count)]
    assert 0.27 < sum(size > 0 for size in sizes) / count < 0.33
    assert set(sizes) == set(range(17)), "a few bytes, at least one"
    delays = [faults.delay(one, 0x8001) for _ in range(count)]
    assert 0.27 < sum(delay > 0 for delay in delays) / count < 0.33
    assert 0 <= min(delays) <= max(delays) <= 2.0


def test_off_by_default() -> None:
    assert set(draws(injector(Injection()), session())) == {0}


def test_nothing_is_drawn_where_nothing_may_happen() -> None:
    """So that one kind of fault does not change when another one strikes."""
    rng = Random(1)
    faults = Injector(Injection(socket_failures=0), rng)
    draws(faults, session())
    assert rng.random() == Random(1).random()


@pytest.mark.parametrize(
    ("scope", "inside", "outside"),
    [
        ({"peer_types": ("client",)}, session(), session(1, EntityType.OSD)),
        ({"peer_types": ("osd", "svc")}, session(1, EntityType.SERVICE), session()),
        ({"sessions": (3, 5)}, session(5), session(4)),
        ({"peer_types": ("osd",), "sessions": (3,)}, session(3, EntityType.OSD), session(3)),
        (
            {"peer_types": ("osd",), "sessions": (3,)},
            session(3, EntityType.OSD),
            session(4, EntityType.OSD),
        ),
    ],
)
def test_scope(scope: dict[str, Any], inside: Session, outside: Session) -> None:
    faults = injector(**scope)
    assert any(draws(faults, inside))
    assert not any(draws(faults, outside))
    assert not any(draws(faults, None)), "nobody knows yet whose socket it is"


def test_without_a_scope_handshakes_are_concerned() -> None:
    assert any(draws(injector(), None))


def test_delays_of_some_types_only() -> None:
    faults = injector(delay_types=(0x9001,), delay_probability=1.0)
    assert faults.delay(session(), 0x9001) > 0
    assert faults.delay(session(), 0x8001) == 0


@pytest.mark.parametrize("name", ["short_reads", "short_writes", "delay_probability"])
@pytest.mark.parametrize("value", [-0.1, 1.1, float("nan")])
def test_what_is_no_probability(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"{name} is .*: must be from 0 to 1"):
        Injection(**{name: value})  # type: ignore[arg-type]


def test_from_a_table() -> None:
    table = {"seed": 3, "peer_types": ["client"], "short_reads": 1, "delay_types": [32769]}
    assert Injection.from_table(table) == Injection(
        seed=3, peer_types=("client",), short_reads=1, delay_types=(0x8001,)
    )
    assert Injection.from_table({}) == Injection()


# the delay queue


def test_the_first_one_holds_up_the_rest() -> None:
    queue = DelayQueue()
    for raw, release_at in (("a", 5.0), ("b", 0.0), ("c", 3.0), ("d", 7.0)):
        queue.push(raw, release_at)
    assert (queue.due(4.0), queue.next_at) == ([], 5.0)
    assert (queue.due(5.0), len(queue)) == (["a", "b", "c"], 1)
    assert queue.due(7.0) == ["d"]
    assert (queue.due(100.0), len(queue)) == ([], 0)


def test_what_is_not_delayed_passes_through() -> None:
    queue = DelayQueue()
    queue.push("a", 0.0)
    queue.push("b", 0.0)
    assert queue.due(1.0) == ["a", "b"]


def test_flush() -> None:
    queue = DelayQueue()
    queue.push("a", 5.0)
    queue.push("b", 0.0)
    assert (queue.flush(), len(queue), queue.flush()) == (["a", "b"], 0, [])
