from __future__ import annotations

import json

import pytest

from mpmsgr.errors import ConfigError
from mpmsgr.load.plan import LoadPlan, spread


def test_shards_cover_all_clients_and_requests_once() -> None:
    plan = LoadPlan("h:1", clients=7, count=100, processes=3)
    shards = plan.shards()
    assert [s.clients for s in shards] == [3, 2, 2]
    assert sum(s.count or 0 for s in shards) == 100
    assert [s.first_client for s in shards] == [1, 4, 6]
    assert all(s.processes == 1 for s in shards)


def test_no_process_is_left_without_a_client_or_a_request() -> None:
    assert len(LoadPlan("h:1", clients=2, duration_s=1, processes=5).shards()) == 2
    assert len(LoadPlan("h:1", clients=9, count=3, processes=5).shards()) == 3


def test_requests_of_clients() -> None:
    assert LoadPlan("h:1", clients=3, count=8).client_counts() == [3, 3, 2]
    assert LoadPlan("h:1", clients=2, duration_s=1.5).client_counts() == [None, None]
    assert spread(2, 3) == [1, 1, 0]


def test_a_plan_survives_json() -> None:
    plan = LoadPlan("h:1", clients=3, count=8, type=0x8002)
    assert LoadPlan.from_dict(json.loads(json.dumps(plan.as_dict()))) == plan
    assert not plan.echo


@pytest.mark.parametrize(
    ("field", "fields"),
    [
        ("address", {"address": ""}),
        ("clients", {"clients": 0}),
        ("in_flight", {"in_flight": 0}),
        ("size", {"size": -1}),
        ("size", {"size": 1 << 40}),
        ("type", {"type": 0x10000}),
        ("processes", {"processes": 0}),
        ("count", {"count": 0}),
        ("duration_s", {"count": None, "duration_s": 0.0}),
        ("count", {"duration_s": 1.0}),
        ("count", {"count": None}),
    ],
)
def test_a_wrong_field_is_named(field: str, fields: dict[str, object]) -> None:
    with pytest.raises(ConfigError) as caught:
        LoadPlan.from_dict({"address": "h:1", "count": 1, **fields})
    assert caught.value.field == field
