"""Rows and facts as text."""

from __future__ import annotations

from typing import Any

import pytest

from mpmsgr.admin.text import cell, duration, facts, size, table


def test_numbers_go_to_the_right_and_gaps_stay_gaps() -> None:
    rows = [{"id": 7, "peer": "a", "cpu_s": None}, {"id": 1234, "peer": "", "cpu_s": 75.0}]
    assert table(rows, {"id": "ID", "peer": "PEER", "cpu_s": "CPU"}).splitlines() == [
        "  ID  PEER  CPU",
        "   7  a       -",
        "1234  -     75s",
    ]


def test_a_column_of_mixed_values_is_text() -> None:
    assert table([{"v": 1}, {"v": "long"}]).splitlines() == ["v", "1", "long"]


def test_no_rows() -> None:
    assert table([]) == "none"


def test_facts_of_maps_in_maps() -> None:
    assert facts({"a": 1, "b": {"long": {"x": True}, "none": {}}}).splitlines() == [
        "a         1",
        "b.long.x  yes",
        "b.none    -",
    ]


@pytest.mark.parametrize(
    ("name", "value", "shown"),
    [
        ("ok", False, "no"),
        ("rss_bytes", 0, "0 B"),
        ("rss_bytes", None, "-"),
        ("modules", ["a", "b"], "a, b"),
        ("options", {"a": {"n": 1}}, '{"a": {"n": 1}}'),
        ("age_s", 0.25, "0.2s"),
        ("n", 12, "12"),
    ],
)
def test_cell(name: str, value: Any, shown: str) -> None:
    assert cell(name, value) == shown


@pytest.mark.parametrize(
    ("nbytes", "shown"),
    [(999, "999 B"), (1024, "1.0 KiB"), (150 << 10, "150 KiB"), (5 << 40, "5.0 TiB")],
)
def test_size(nbytes: int, shown: str) -> None:
    assert size(nbytes) == shown


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(0, "0.0s"), (99.9, "99s"), (185, "3m05s"), (7800, "2h10m"), (4 * 86400 + 3 * 3600, "4d03h")],
)
def test_duration(seconds: float, shown: str) -> None:
    assert duration(seconds) == shown
