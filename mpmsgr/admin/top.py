"""The view of ``mpmsgr top``. Needs rich, the extra `top`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from mpmsgr.admin.sampling import Span
from mpmsgr.admin.text import cell, duration, running_text, size

Row = Mapping[str, Any]
Column = tuple[str, Callable[[Row], str]]

_COLOURS = {"serving": "green", "starting": "yellow", "degraded": "red", "stopping": "yellow"}


def view(span: Span, sessions: int) -> RenderableType:
    """The whole screen of *span*, with at most *sessions* rows of each table of sessions."""
    return Group(*_parts(span, sessions))


def _parts(span: Span, sessions: int) -> Iterator[RenderableType]:
    yield _head(span)
    yield _rates(span)
    yield _table("Processes", _PROCESSES, span.processes())
    if stages := span.stages():
        yield _table("Latency by stage", _STAGES, stages)
    if span.now.throttles:
        yield _table("Throttles", _any(span.now.throttles), span.now.throttles)
    yield _table("Busiest sessions", _BUSIEST, span.busiest(sessions))
    waiting = [row for row in span.now.worst if row["outbox_bytes"] or row["state"] != "open"]
    if waiting:
        yield _table("Sessions with the most waiting for them", _WORST, waiting)


def _head(span: Span) -> Text:
    status = span.now.status
    head = Text(f"{status['name']} at {', '.join(status['addresses']) or '-'}  ", style="bold")
    head.append(status["state"], style=_COLOURS.get(status["state"], ""))
    head.append(f"  up {duration(status['up_s'])}  mpmsgr {status['version']}", style="dim")
    return head


def _rates(span: Span) -> Text:
    messenger = span.now.perf.get("messenger")
    if messenger is None:
        return Text("the I/O process does not answer", style="red")
    states = ", ".join(f"{n} {state}" for state, n in messenger["sessions"].items()) or "none"
    parts = [f"sessions: {states}", f"waiting for peers: {size(messenger['outbox_bytes'])}"]
    for text, section, name in _RATES:
        if span.keeps(section, name):
            rate = span.rate(section, name)
            parts.append(f"{text}: -" if rate is None else f"{text}: {rate:.1f}/s")
    return Text("  ".join(parts))


_RATES = (
    ("handled", "pool", "handled_total"),
    ("connects", "messenger", "accepted_total"),
    ("faults", "messenger", "faults_total"),
    ("resets", "messenger", "resets_total"),
)


def _plain(key: str) -> Callable[[Row], str]:
    return lambda row: cell(key, row.get(key))


def _rate(key: str) -> Callable[[Row], str]:
    return lambda row: "-" if row.get(key) is None else f"{row[key]:.1f}"


def _milliseconds(key: str) -> Callable[[Row], str]:
    return lambda row: "-" if row[key] is None else f"{row[key] * 1e3:.3f}"


def _percent(row: Row) -> str:
    return "-" if row["cpu"] is None else f"{row['cpu'] * 100:.0f}"


_PROCESSES: Sequence[Column] = (
    ("PROCESS", _plain("process")),
    ("PID", _plain("pid")),
    ("PHASE", _plain("phase")),
    ("SINCE", _plain("since_s")),
    ("CPU %", _percent),
    ("RSS", _plain("rss_bytes")),
    ("HANDLED/S", _rate("handled_rate")),
    ("HELD", _plain("held")),
    ("RUNNING", lambda row: running_text(row.get("running")) or "-"),
)
_STAGES: Sequence[Column] = (
    ("STAGE", _plain("stage")),
    ("SAMPLES/S", _rate("rate")),
    ("P50 MS", _milliseconds("p50_s")),
    ("P99 MS", _milliseconds("p99_s")),
)
_BUSIEST: Sequence[Column] = (
    ("ID", _plain("id")),
    ("PEER", _plain("peer")),
    ("STATE", _plain("state")),
    ("IN/S", _rate("in_rate")),
    ("OUT/S", _rate("out_rate")),
    ("OUTBOX", _plain("outbox_bytes")),
)
_WORST: Sequence[Column] = (
    ("ID", _plain("id")),
    ("PEER", _plain("peer")),
    ("STATE", _plain("state")),
    ("QUEUED", _plain("queued")),
    ("UNACKED", _plain("unacked")),
    ("OUTBOX", _plain("outbox_bytes")),
    ("SILENT", _plain("silent_s")),
    ("PAUSED", _plain("paused")),
)


def _any(rows: Sequence[Row]) -> Sequence[Column]:
    """Every column that *rows* have."""
    return [(name.upper(), _plain(name)) for name in rows[0]]


def _table(title: str, columns: Sequence[Column], rows: Sequence[Row]) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False)
    for i, (name, _) in enumerate(columns):
        table.add_column(name, justify="left" if i == 0 else "right", no_wrap=True, style="")
    for row in rows:
        table.add_row(*(Text(show(row)) for _, show in columns))
    if not rows:
        table.add_row("none")
    return table
