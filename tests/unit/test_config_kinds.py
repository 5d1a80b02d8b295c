"""Kinds of values: what each accepts, and the words it refuses with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mpmsgr.config import kinds
from mpmsgr.config.policies import PolicyTables


@pytest.mark.parametrize(
    ("kind", "raw", "value"),
    [
        (kinds.Kind(), "x", "x"),
        (kinds.Choice(words=("info", "error")), "INFO", "info"),
        (kinds.Whole(), "0x40", 64),
        (kinds.Whole(), "1_000", 1000),
        (kinds.Whole(low=1, high=5), 5, 5),
        (kinds.Size(), "64KiB", 65536),
        (kinds.Size(), "64 kib", 65536),
        (kinds.Size(), "1GiB", 1 << 30),
        (kinds.Size(), 17, 17),
        (kinds.Seconds(), "1.5", 1.5),
        (kinds.Seconds(), 30, 30.0),
        (kinds.Name(), "mon.0", "mon.0"),
        (kinds.Name(), "client.?", "client.?"),
        (kinds.Address(), "192.0.2.1:6800", "192.0.2.1:6800"),
        (kinds.Address(), "[2001:db8::1]:6800", "[2001:db8::1]:6800"),
        (kinds.Binds(), "127.0.0.1:0, [::1]:6800-6810", ["127.0.0.1:0", "[::1]:6800-6810"]),
        (kinds.Binds(), ["localhost:6800"], ["localhost:6800"]),
        (kinds.Modules(), "a.b:C d", ["a.b:C", "d"]),
        (kinds.Modules(), [], []),
        (kinds.Tables(), {"a": {"n": 1}}, {"a": {"n": 1}}),
        (kinds.Switch(), True, True),
        (kinds.Switch(), "Yes", True),
        (kinds.Switch(), "0", False),
        (kinds.Cpus(), "AUTO", "auto"),
        (kinds.Cpus(), "0, 2-5", "0,2-5"),
        (kinds.Cpus(), 3, "3"),
        (PolicyTables(), {"svc": {"ack": "handled"}}, {"svc": {"ack": "handled"}}),
    ],
)
def test_reads(kind: kinds.Kind, raw: Any, value: Any) -> None:
    assert kind.read(raw) == value


@pytest.mark.parametrize(
    ("kind", "raw", "words"),
    [
        (kinds.Kind(), "", "must be text"),
        (kinds.Kind(), 3, "must be text"),
        (kinds.Choice(words=("debug", "info", "error")), "loud", "one of debug, info, error"),
        (kinds.Choice(words=("none",)), "cephx", "must be none"),
        (kinds.Whole(low=1, high=9), "10", "a whole number from 1 to 9"),
        (kinds.Whole(), True, "a whole number from 0 to 2^64-1"),
        (kinds.Whole(), 1.0, "a whole number"),
        (kinds.Whole(), "0xzz", "a whole number"),
        (kinds.Whole(high=kinds.U32_MAX), 1 << 32, "to 2^32-1"),
        (kinds.Workers(), "many", "from 0 to 1024, or auto"),
        (kinds.Size(), "64 blocks", "such as 65536 or 64KiB"),
        (kinds.Seconds(), "nan", "seconds from 0"),
        (kinds.Seconds(), "inf", "seconds from 0"),
        (kinds.Seconds(), False, "seconds from 0"),
        (kinds.Seconds(), [1], "seconds from 0"),
        (kinds.Seconds(low=0.1), 0, "seconds from 0.1"),
        (kinds.Switch(), "perhaps", "must be true or false"),
        (kinds.Switch(), 1, "must be true or false"),
        (kinds.Cpus(), "5-2", "such as 0,2-5"),
        (kinds.Cpus(), "", "such as 0,2-5"),
        (kinds.Cpus(), True, "such as 0,2-5"),
        (kinds.Name(), "svc", "TYPE.NUMBER"),
        (kinds.Name(), "foo.1", "one of mon, mds, osd"),
        (kinds.Name(), 5, "TYPE.NUMBER"),
        (kinds.Address(note="HOST:PORT"), "192.0.2.1", "HOST:PORT"),
        (kinds.Address(note="HOST:PORT"), "192.0.2.1:0", "HOST:PORT"),
        (kinds.Address(note="HOST:PORT"), "1.2.3.4:5/6", "HOST:PORT"),
        (kinds.Address(note="HOST:PORT"), "gate.example:6800", "HOST:PORT"),
        (kinds.Binds(note="HOST:PORT"), "127.0.0.1", "'127.0.0.1' must be HOST:PORT"),
        (kinds.Binds(note="HOST:PORT"), [], "must be HOST:PORT"),
        (kinds.Binds(note="HOST:PORT"), 6800, "must be HOST:PORT"),
        (kinds.Modules(note="MODULE"), ["a", "b c"], "'b c' must be MODULE"),
        (kinds.Modules(note="MODULE"), "echo.py:", "'echo.py:' must be MODULE"),
        (kinds.Modules(note="MODULE"), [3], "3 must be MODULE"),
        (kinds.Tables(note="tables"), {"a": 1}, "must be tables"),
        (PolicyTables(), {"who": {}}, "'who' must be one of mon"),
        (PolicyTables(), {"mon": {"preset": "x"}}, "must be one of default, stateful_server"),
        (
            PolicyTables(),
            {"mon": {"acks": 1}},
            r"\[policy.mon\]: acks = 1: must be one of preset",
        ),
        (PolicyTables(), {"mon": {"ack": "sent"}}, "must be received or handled"),
        (PolicyTables(), {"mon": {"ack": 1}}, "must be received or handled"),
        (
            PolicyTables(),
            {"mon": {"outbox_full": "x"}},
            "must be block or fail or drop_oldest",
        ),
        (PolicyTables(), {"mon": {"outbox_bytes": -1}}, "must be bytes from 0 to"),
        (PolicyTables(), {"mon": {"outbox_bytes": 1.5}}, "must be bytes from 0 to"),
        (PolicyTables(), {"mon": {"dedupe_window": True}}, "must be a whole number"),
        (PolicyTables(), {"mon": {"throttle_messages": -1}}, "must be a whole number"),
        (PolicyTables(), {"mon": {"throttle_bytes": "1 KB"}}, "must be bytes from 0 to"),
        (PolicyTables(), {"mon": {"urgent": 1}}, "must be true or false"),
        (PolicyTables(), {"mon": {"urgent": "perhaps"}}, "must be true or false"),
        (PolicyTables(), {"mon": {"dedupe_window": float("inf")}}, "must be a whole number"),
        (PolicyTables(), {"mon": {"idle_timeout_s": float("nan")}}, "must be seconds"),
        (kinds.Faults(note="[inject]"), {"short_reads": 2}, "must be from 0 to 1"),
        (kinds.Faults(note="[inject]"), {"short": 2}, "'short' must be one of seed"),
        (kinds.Faults(note="[inject]"), {"seed": True}, "seed is True: must be a number"),
        (kinds.Faults(note="[inject]"), {"socket_failures": 0.5}, "must be a whole number"),
        (kinds.Faults(note="[inject]"), {"socket_failures": -1}, "must not be negative"),
        (kinds.Faults(note="[inject]"), {"delay_max_s": float("inf")}, "must not be negative"),
        (kinds.Faults(note="[inject]"), {"peer_types": "client"}, "must be a list"),
        (kinds.Faults(note="[inject]"), {"peer_types": ["nobody"]}, "entity type 'nobody': must"),
        (kinds.Faults(note="[inject]"), {"peer_types": [8]}, "peer_types has 8: must be str"),
        (kinds.Faults(note="[inject]"), {"sessions": ["1"]}, "sessions has '1': must be int"),
        (kinds.Faults(note="[inject]"), {"delay_types": [[]]}, "must be int"),
        (kinds.Faults(note="must be a table"), 5, "must be a table"),
    ],
)
def test_refuses(kind: kinds.Kind, raw: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words.replace("^", r"\^")):
        kind.read(raw)


@pytest.mark.parametrize(
    ("bind", "loopback"),
    [
        ("127.3.4.5:1", True),
        ("[::1]:1", True),
        ("localhost:1", True),
        ("0.0.0.0:1", False),
        ("[::]:1", False),
        ("10.0.0.1:1", False),
        ("example.org:1", False),
        ("nonsense", False),
    ],
)
def test_is_loopback(bind: str, loopback: bool) -> None:
    assert kinds.is_loopback(bind) is loopback


def test_folder_is_absolute_and_may_have_to_exist(tmp_path: Path) -> None:
    assert kinds.Folder().read("somewhere") == str(Path.cwd() / "somewhere")
    assert kinds.Folder(exists=True).read(str(tmp_path)) == str(tmp_path)
    with pytest.raises(ValueError, match="exists"):
        kinds.Folder(exists=True).read(str(tmp_path / "missing"))


@pytest.mark.parametrize(
    ("text", "cpus"), [("0", [0]), ("4,0-2,1", [4, 0, 1, 2]), ("auto", []), ("1,,2", [])]
)
def test_cpu_numbers(text: str, cpus: list[int]) -> None:
    assert kinds.cpu_numbers(text) == cpus
