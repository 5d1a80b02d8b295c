"""``mpmsgr top``: a running server, live in a terminal."""

from __future__ import annotations

import io
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mpmsgr.admin.client import AdminClient
from mpmsgr.admin.sampling import Span, take
from mpmsgr.cli import params
from mpmsgr.cli.server import connect
from mpmsgr.config import kinds
from mpmsgr.errors import ConfigError

if TYPE_CHECKING:
    from rich.console import Console


@click.command("top")
@click.option("--run-dir", metavar="DIR", help="Run directory of the server.")
@click.option("-c", "--config", metavar="FILE", help="Configuration file of the server.")
@params.timeout(5.0)
@click.option(
    "--interval",
    "interval_s",
    metavar="S",
    type=params.Value(kinds.Seconds(low=0.1)),
    default=2.0,
    show_default=True,
    help="Seconds between two looks.",
)
@click.option(
    "--sessions",
    metavar="N",
    type=params.Value(kinds.Whole(low=1, high=100)),
    default=8,
    show_default=True,
    help="Rows of them.",
)
@click.option("--once", is_flag=True, help="Print one screen and end.")
@click.option("--svg", metavar="FILE", help="Write one screen as a picture to FILE, and end.")
@click.option(
    "--width",
    metavar="N",
    type=params.Value(kinds.Whole(low=40, high=1000)),
    help="Columns; default: those of the terminal.",
)
def command(
    run_dir: str | None,
    config: str | None,
    timeout_s: float,
    interval_s: float,
    sessions: int,
    once: bool,
    svg: str | None,
    width: int | None,
) -> None:
    """Watch a running server: rates, what each worker runs, who is busiest, who waits.

    Ctrl-C ends it. Needs the extra `top`.
    """
    console = _console(width, svg)
    with connect(run_dir, config, timeout_s) as client:
        spans = _spans(client, interval_s, sessions)
        if once or svg:
            next(spans)  # the first look, which has no rates
            _print(console, next(spans), sessions, svg)
        else:
            _watch(console, spans, sessions)


def _console(width: int | None, svg: str | None) -> Console:
    try:
        from rich.console import Console
    except ImportError:
        raise ConfigError("top", "rich", "is missing: pip install 'mpmsgr[top]'") from None
    if svg is None:
        return Console(width=width)
    return Console(width=width or 110, record=True, file=io.StringIO())


def _spans(client: AdminClient, interval_s: float, sessions: int) -> Iterator[Span]:
    before = None
    while True:
        now = take(client, sessions)
        yield Span(before, now)
        before = now
        time.sleep(interval_s)


def _print(console: Any, span: Span, sessions: int, svg: str | None) -> None:
    from mpmsgr.admin.top import view

    console.print(view(span, sessions))
    if svg is not None:
        Path(svg).write_text(picture(console), encoding="utf-8")


def picture(console: Any) -> str:
    """What was recorded as SVG, without the fonts that would be fetched from elsewhere."""
    return re.sub(r"@font-face\s*\{[^}]*\}\s*", "", console.export_svg(title="mpmsgr top"))


def _watch(console: Any, spans: Iterator[Span], sessions: int) -> None:
    from rich.live import Live

    from mpmsgr.admin.top import view

    try:
        # Its own refreshing would draw the same again four times a second.
        with Live(console=console, screen=True, auto_refresh=False) as live:
            for span in spans:
                live.update(view(span, sessions), refresh=True)
    except KeyboardInterrupt:
        pass
