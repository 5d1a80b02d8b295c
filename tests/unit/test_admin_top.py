"""`top`: rates between two looks, and the screen made of them."""

from __future__ import annotations

import io
import time
from typing import Any, cast

import pytest
from rich.console import Console

from mpmsgr.admin.client import AdminClient
from mpmsgr.admin.sampling import Sample, Span, between, quantile
from mpmsgr.admin.top import view
from mpmsgr.cli import top as cli_top


def process(pid: int | None, cpu_s: float | None, **more: Any) -> dict[str, Any]:
    row = {"pid": pid, "phase": "ready", "since_s": 5.0, "rss_bytes": 1 << 20, "cpu_s": cpu_s}
    return row | more


def session(id_: int, seq: int, **more: Any) -> dict[str, Any]:
    row: dict[str, Any] = {"id": id_, "peer": f"peer-{id_}", "state": "open", "outbox_bytes": 0}
    more = {"queued": 0, "unacked": 0, "silent_s": 0.1, "paused": []} | more
    return row | {"in_seq": seq, "out_seq": seq} | more


def sample(at: float, count: int, **changes: Any) -> Sample:
    """After *count* messages; `changes` replace what is told."""
    told: dict[str, Any] = {
        "status": {
            "name": "svc.0",
            "addresses": ["127.0.0.1:6800"],
            "state": "serving",
            "up_s": at,
            "version": "1.0",
            "io": process(10, 1.0 + at / 2, incarnation=1),
        },
        "workers": [process(11, at, slot=0, generation=1)],
        "perf": {
            "messenger": {"sessions": {"open": 2}, "outbox_bytes": 17, "accepted_total": count},
            "pool": {"stage_s": {"queue": {"le": [0.001, 0.01], "counts": [count, 0, 0]}}},
        },
        "loads": [
            {
                "slot": 0,
                "generation": 1,
                "handled": count,
                "held": 3,
                "running": [{"type": 0x8001, "for_s": 2.0}],
            }
        ],
        "throttles": [],
        "busy": [session(1, 1000), session(2, count)],
        "worst": [session(1, 1000)],
    }
    return Sample(at, **{**told, **changes})


FIRST = sample(10.0, 100)
SPAN = Span(FIRST, sample(12.0, 300))


def screen(span: Span) -> str:
    console = Console(width=120, file=io.StringIO(), record=True)
    console.print(view(span, 5))
    return console.export_text()


def test_rates_are_per_second() -> None:
    assert SPAN.rate("messenger", "accepted_total") == 100.0
    assert SPAN.rate("messenger", "nothing_total") is None
    io_process, worker = SPAN.processes()
    assert (io_process["cpu"], io_process["handled_rate"]) == (0.5, None)
    assert (worker["cpu"], worker["handled_rate"], worker["held"]) == (1.0, 100.0, 3)


def test_the_first_look_shows_what_is_known_and_no_rates() -> None:
    first = Span(None, FIRST)
    assert first.rate("messenger", "accepted_total") is None
    assert [(row["cpu"], row["handled_rate"]) for row in first.processes()] == [(None, None)] * 2
    assert [(row["id"], row["in_rate"]) for row in first.busiest(1)] == [(1, None)]
    lines = screen(first).splitlines()
    assert lines[1].startswith("sessions: 2 open  waiting for peers: 17 B  connects: -")
    rows = {line.split("  ")[0]: line.split() for line in lines if line}
    assert rows["worker 0"][4:10] == ["5.0s", "-", "1.0", "MiB", "-", "3"]
    assert rows["queue"] == ["queue", "-", "-", "-"]
    assert rows["1"] == ["1", "peer-1", "open", "-", "-", "0", "B"]


def test_the_first_look_is_shown_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    looks, slept = iter([FIRST, SPAN.now]), list[float]()
    monkeypatch.setattr(cli_top, "take", lambda client, sessions: next(looks))
    monkeypatch.setattr(time, "sleep", slept.append)
    spans = cli_top._spans(cast(AdminClient, None), 2.0, 5)
    assert (next(spans), slept) == (Span(None, FIRST), [])
    assert (next(spans), slept) == (SPAN, [2.0])


def test_a_counter_that_was_started_anew_has_no_rate() -> None:
    assert Span(sample(10.0, 300), sample(12.0, 5)).rate("messenger", "accepted_total") is None


def test_another_process_in_the_slot_has_no_rate_yet() -> None:
    now = sample(12.0, 5, workers=[process(99, 0.1, slot=0, generation=2)])
    worker = Span(SPAN.before, now).processes()[1]
    assert (worker["cpu"], worker["handled_rate"]) == (None, None)


def test_a_process_that_is_gone_is_shown() -> None:
    gone = [process(None, None, slot=0, generation=1, phase="absent", rss_bytes=None)]
    text = screen(Span(SPAN.before, sample(12.0, 300, workers=gone)))
    assert "absent" in text


def test_the_busiest_is_who_was_busy_meanwhile() -> None:
    assert [(row["id"], row["in_rate"]) for row in SPAN.busiest(5)] == [(2, 100.0), (1, 0.0)]
    assert len(SPAN.busiest(1)) == 1


def test_percentiles_of_what_was_done_meanwhile() -> None:
    (row,) = SPAN.stages()
    assert (row["stage"], row["rate"], row["p50_s"], row["p99_s"]) == ("queue", 100.0, 0.001, 0.001)


@pytest.mark.parametrize(
    ("counts", "share", "bound"),
    [
        ([10, 0, 0], 0.99, 0.001),
        ([5, 5, 0], 0.5, 0.001),
        ([5, 5, 0], 0.51, 0.01),
        ([0, 0, 5], 0.5, None),
        ([0, 0, 0], 0.5, None),
    ],
)
def test_quantile(counts: list[int], share: float, bound: float | None) -> None:
    assert quantile([0.001, 0.01], counts, share) == bound


def test_a_histogram_that_was_started_anew_counts_from_zero() -> None:
    old, new = {"le": [1.0], "counts": [5, 5]}, {"le": [1.0], "counts": [2, 6]}
    assert between(old, new) == [2, 6]
    assert between(None, new) == [2, 6]
    assert between(new, {"le": [1.0], "counts": [3, 6]}) == [1, 0]


def test_the_screen() -> None:
    lines = screen(SPAN).splitlines()
    assert lines[0].startswith("svc.0 at 127.0.0.1:6800  serving  up 12s")
    assert lines[1].startswith("sessions: 2 open  waiting for peers: 17 B  connects: 100.0/s")
    (worker,) = [line for line in lines if line.startswith("worker 0")]
    assert worker.split()[5:] == ["100", "1.0", "MiB", "100.0", "3", "0x8001", "for", "2.0s"]
    titles = [line.strip() for line in lines]
    assert "Busiest sessions" in titles
    assert "Throttles" not in titles, "this server keeps none"
    assert "Sessions with the most waiting for them" not in titles, "nobody waits"


def test_who_waits_is_shown() -> None:
    worst = [session(7, 5, outbox_bytes=1 << 20, queued=9)]
    throttles = [{"name": "dispatch", "in_use_bytes": 5, "limit_bytes": 1 << 20}]
    text = screen(Span(SPAN.before, sample(12.0, 300, worst=worst, throttles=throttles)))
    assert "peer-7" in text.partition("most waiting")[2]
    assert "IN_USE_BYTES" in text


def test_an_io_process_that_is_away() -> None:
    away = sample(12.0, 0, perf={}, loads=[], busy=[], worst=[])
    text = screen(Span(SPAN.before, away))
    assert "the I/O process does not answer" in text


def test_markup_in_what_a_peer_says_is_text() -> None:
    text = screen(Span(SPAN.before, sample(12.0, 0, worst=[session(7, 1, state="[red]x[/]")])))
    assert "[red]x[/]" in text


def test_a_picture_fetches_nothing() -> None:
    console = Console(width=80, file=io.StringIO(), record=True)
    console.print(view(SPAN, 5))
    svg = cli_top.picture(console)
    assert svg.startswith("<svg")
    assert 'url("http' not in svg
    assert "worker" in svg
