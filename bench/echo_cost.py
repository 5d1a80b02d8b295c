"""Server CPU per echo round trip: mpmsgr with one worker against what people use instead.

Peers are pyzmq, a ROUTER/DEALER broker with one worker (proxy: the loop in C, `zmq.proxy`; poll:
the loop of the ZeroMQ guide; drain: many messages per poll; these three do not copy large messages;
plain: poll with pyzmq's defaults, which do), uvicorn with a plain HTTP echo, mpmsgr that dispatches
fast (fast: its I/O process answers), and the mpmsgr of another checkout (before).

All servers stay up for the whole run and take turns (A B C A B C ...), so that a slow moment of the
machine meets all of them. CPU is user + system time of the I/O process or broker and the worker, or
of uvicorn's one process. A ratio is taken within each round. Exits 1 if the median of a ratio is
above what --judge allows.
"""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import click

from bench import measure
from bench.contenders import Contender, HttpEcho, MsgrEcho, ZmqEcho
from bench.limits import FORM, Limit
from bench.loads import LOADS, Load
from bench.server import python_of

_OURS, _BEFORE, _FAST, _HTTP = "mpmsgr", "before", "fast", "uvicorn"
_PYZMQ = ("proxy", "poll", "drain", "plain")
_USUAL = ("proxy", "poll", "drain")


@dataclass(frozen=True)
class Turn:
    """One contender's part of one round."""

    cpu_us: float
    """CPU microseconds per round trip."""
    rate: float
    """Round trips per second."""


@click.command(help=__doc__)
@click.option("--load", "loads", multiple=True, type=click.Choice([*LOADS]), default=["64x16"])
@click.option("--rounds", default=5, show_default=True, type=click.IntRange(1))
@click.option("--scale", default=1.0, show_default=True, help="Factor on the round trips.")
@click.option(
    "--baseline",
    "baselines",
    multiple=True,
    type=click.Choice([*_PYZMQ, _HTTP, _FAST]),
    default=_USUAL,
    show_default=True,
    help="Peers; those that are judged take part in any case.",
)
@click.option(
    "--before",
    type=click.Path(exists=True, file_okay=False, resolve_path=True, path_type=Path),
    help="Checkout with its .venv; its mpmsgr takes part.",
)
@click.option(
    "--judge",
    "limits",
    multiple=True,
    metavar=FORM,
    help="Fail if mpmsgr costs more than RATIO times NAME.",
)
@click.option("--max-ratio", type=float, help="RATIO where --judge says none; alone: proxy's.")
@click.option("--baselines-only", is_flag=True, help="Leave mpmsgr out; nothing is judged.")
def main(
    loads: tuple[str, ...],
    rounds: int,
    scale: float,
    baselines: tuple[str, ...],
    before: Path | None,
    limits: tuple[str, ...],
    max_ratio: float | None,
    baselines_only: bool,
) -> None:
    """Measure each load and print what was found."""
    ours = [] if baselines_only else [_OURS, _BEFORE] if before else [_OURS]
    known = [*_PYZMQ, _HTTP, _FAST, _BEFORE]
    judged = _settled([Limit.read(text, LOADS, known) for text in limits], max_ratio)
    if baselines_only:
        judged = []
    names = {load: [*ours, *_peers(load, baselines, judged)] for load in loads}
    _check(names, judged, before)
    print(measure.machine())
    print(measure.command("bench.echo_cost"))
    kept = True
    for load in loads:
        turns = _measure(LOADS[load], names[load], before, rounds, scale)
        medians = _print(turns)
        kept &= _judge(medians, [limit for limit in judged if limit.concerns(load)])
    sys.exit(not kept)


def _settled(limits: Sequence[Limit], max_ratio: float | None) -> list[Limit]:
    """*limits* with *max_ratio* where they say nothing; that alone is about the proxy."""
    if max_ratio is not None:
        limits = limits or [Limit(None, "proxy", None)]
    return [replace(each, ratio=max_ratio) if each.ratio is None else each for each in limits]


def _peers(load: str, baselines: Sequence[str], limits: Sequence[Limit]) -> list[str]:
    judged = [each.name for each in limits if each.concerns(load) and each.name != _BEFORE]
    return list(dict.fromkeys([*baselines, *judged]))


def _check(names: dict[str, list[str]], limits: Sequence[Limit], before: Path | None) -> None:
    """Whatever would stop the run later stops it now."""
    for limit in limits:
        if limit.load not in (None, *names):
            raise click.UsageError(f"{limit.load} is judged and not measured: add --load")
        if limit.name == _BEFORE and before is None:
            raise click.UsageError(f"{_BEFORE} is judged and not given: add --before")
    missing = HttpEcho.missing_packages()
    if missing and any(_HTTP in contenders for contenders in names.values()):
        install = f"{sys.executable} -m pip install -r requirements/bench.txt"
        raise click.ClickException(f"{_HTTP} needs {', '.join(missing)}: {install}")
    if before is not None:
        try:
            python_of(before)
        except RuntimeError as error:
            raise click.ClickException(str(error)) from error


def _measure(
    load: Load, names: Sequence[str], before: Path | None, rounds: int, scale: float
) -> dict[str, list[Turn]]:
    """What each contender's turns have cost, in order."""
    print(f"\n{load.text()}, {rounds} rounds; server CPU in us per round trip, min / median / max")
    requests = max(load.in_flight, int(load.requests * scale))
    with contextlib.ExitStack() as stack:
        contenders = {}
        for name in names:
            contenders[name] = _start(name, load, before)
            stack.callback(contenders[name].stop)
        for contender in contenders.values():
            contender.clients.drive(max(20, requests // 10))
        others = measure.Others(pid for each in contenders.values() for pid in each.pids)
        turns: dict[str, list[Turn]] = {name: [] for name in names}
        for _ in range(rounds):
            for name, contender in contenders.items():
                turns[name].append(_turn(contender, requests, load.bursts))
        print(f"  (other processes of the machine kept {others.cores():.2f} cores busy)")
    return turns


def _start(name: str, load: Load, before: Path | None) -> Contender:
    if name in _PYZMQ:
        return ZmqEcho(name, *load.shape)
    if name == _HTTP:
        return HttpEcho(*load.shape)
    checkout = before if name == _BEFORE else None
    return MsgrEcho(*load.shape, checkout=checkout, fast=name == _FAST)


def _turn(contender: Contender, requests: int, bursts: int) -> Turn:
    cpu_s, began = measure.cpu_s(contender.pids), time.perf_counter()
    done = sum(contender.clients.drive(requests) for _ in range(bursts))
    elapsed = time.perf_counter() - began
    return Turn((measure.cpu_s(contender.pids) - cpu_s) / done * 1e6, done / elapsed)


def _print(turns: dict[str, list[Turn]]) -> dict[str, float]:
    """Print the figures of one load; returns the median ratio of our cost to each other one."""
    for name, series in turns.items():
        cpu = measure.Spread.of(turn.cpu_us for turn in series)
        rate = measure.Spread.of(turn.rate for turn in series)
        print(f"  {_label(name):<12} {cpu.text():<24} at {rate.median:.0f} round trips/s")
    ours = turns.get(_OURS, [])
    medians = {}
    for name, series in turns.items():
        if ours and name != _OURS:
            ratios = [a.cpu_us / b.cpu_us for a, b in zip(ours, series, strict=True)]
            spread = measure.Spread.of(ratios)
            rounds = "  by round: " + " ".join(f"{ratio:.2f}" for ratio in ratios)
            print(f"  mpmsgr / {_label(name):<12} {spread.text()}{rounds * (name == _BEFORE)}")
            medians[name] = spread.median
    return medians


def _label(name: str) -> str:
    return f"pyzmq {name}" if name in _PYZMQ else name


def _judge(medians: dict[str, float], limits: Sequence[Limit]) -> bool:
    """Print how each limit stands; True if all are kept."""
    kept = True
    for limit in limits:
        if limit.ratio is not None:
            within = medians[limit.name] <= limit.ratio
            verdict = "kept" if within else "EXCEEDED"
            found = f"{medians[limit.name]:.2f}, allowed {limit.ratio:.2f}"
            print(f"  limit: mpmsgr / {_label(limit.name)} {found}: {verdict}")
            kept &= within
    return kept


if __name__ == "__main__":
    main()
