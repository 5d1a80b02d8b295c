"""``mpmsgr load``: many clients at once, every reply verified."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

import click
from click.decorators import FC

from mpmsgr.cli import params
from mpmsgr.cli.exit_codes import ExitCode
from mpmsgr.config import kinds
from mpmsgr.errors import ConfigError

if TYPE_CHECKING:
    from mpmsgr.load import LoadPlan, Progress

_STEPS = 1000  # of the progress bar


def _number(
    flag: str, metavar: str, help_: str, kind: kinds.Kind, **more: Any
) -> Callable[[FC], FC]:
    return click.option(flag, metavar=metavar, help=help_, type=params.Value(kind), **more)


_COUNT = kinds.Whole(low=1, high=1 << 40)
_MANY = kinds.Whole(low=1, high=1 << 16)


@click.command("load")
@params.address
@_number("--clients", "C", "Sessions.", _MANY, default=1, show_default=True)
@_number("--in-flight", "W", "Requests each keeps open.", _MANY, default=1, show_default=True)
@_number(
    "--size",
    "BYTES",
    "Payload of a request.",
    kinds.Size(high=16 << 20),
    default=64,
    show_default=True,
)
@_number("--count", "N", "Requests in total.", _COUNT)
@_number("--duration", "S", "Seconds to send for.", kinds.Seconds(low=0.001))
@_number(
    "--type",
    "T",
    "Message type. Replies to 0x8001 have all parts of the request, to others its front in middle."
    "  [default: 0x8001]",
    kinds.Whole(low=1, high=0xFFFF),
    default=0x8001,
)
@_number(
    "--processes",
    "P",
    "Client processes.",
    kinds.Whole(low=1, high=256),
    default=1,
    show_default=True,
)
@params.timeout(10.0)
@params.as_json
def command(
    address: str,
    count: int | None,
    duration: float | None,
    type: int,
    timeout_s: float,
    as_json: bool,
    **amounts: Any,
) -> int:
    """Put the server at ADDR under load: every reply once, in order, intact.

    A handler has to send back what comes: see --type. Say --count or --duration. Prints counts,
    rate and latencies; exits 1 on any violation. Ctrl-C ends the run early, with its report.
    --timeout is how long to wait for the sessions, and for a reply when none comes any more.
    """
    if (count is None) == (duration is None):
        given = "both" if count is not None else "neither"
        raise ConfigError("--count, --duration", given, "exactly one of them must be given")
    from mpmsgr.load import LoadPlan

    plan = LoadPlan(
        address,
        count=count,
        duration_s=duration,
        type=type,
        connect_timeout_s=timeout_s,
        reply_timeout_s=timeout_s,
        **amounts,
    )
    return _run(plan, as_json)


def _run(plan: LoadPlan, as_json: bool) -> int:
    from mpmsgr.load import Interrupted, run

    interrupted = False
    with _bar() as bar:
        try:
            report = run(plan, _follow(bar) if bar else None)
        except Interrupted as early:
            report, interrupted = early.report, True
        else:
            if bar:
                bar.label = _so_far(report.answered, sum(report.errors.values()), report.rate)
                bar.update(_STEPS - bar.pos)
                bar.render_progress()
    click.echo(json.dumps(report.as_dict()) if as_json else report.text())
    found = report.violations + ["interrupted"] * interrupted
    if found:
        click.echo(f"mpmsgr load: {', '.join(found)}", err=True)
    if report.violations:
        return ExitCode.FAILED
    return ExitCode.INTERRUPTED if interrupted else ExitCode.OK


def _bar() -> AbstractContextManager[Any]:
    """A progress bar on stderr, None where nobody is looking."""
    if not sys.stderr.isatty():
        return nullcontext()
    return click.progressbar(length=_STEPS, label="connecting", file=sys.stderr)


def _follow(bar: Any) -> Callable[[Progress], None]:
    def show(progress: Progress) -> None:
        rate = progress.answered / progress.elapsed_s
        bar.label = _so_far(progress.answered, progress.errors, rate)
        bar.update(max(int(progress.fraction * _STEPS) - bar.pos, 0))

    return show


def _so_far(answered: int, errors: int, rate: float) -> str:
    with_errors = f", {errors} with an error" if errors else ""
    return f"{answered} answered{with_errors}, {rate:.0f}/s"
