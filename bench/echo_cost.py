"""Server CPU per echo round trip: mpmsgr with one worker against a pyzmq broker with one worker.

All servers stay up for the whole run and take turns (A B C A B C ...), so that a slow moment of the
machine meets all of them. CPU is user + system time of the I/O process (or broker) and the worker.
A ratio is taken within each round. The loop in C (`zmq.proxy`) is the cheapest of the baselines and
by default the one judged: exits 1 if the median ratio to it is above `--max-ratio`.
"""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass

import click

from bench import measure
from bench.contenders import Contender, MsgrEcho, ZmqServer

_BASELINES = ("proxy", "poll", "drain")


@dataclass(frozen=True)
class Load:
    """A row of the table of cost targets."""

    size: int
    clients: int
    in_flight: int
    requests: int
    """Round trips per client and turn; about a second of work."""

    def text(self) -> str:
        """The row's name."""
        return f"{self.size} B, {self.clients} clients x {self.in_flight} in flight"


LOADS = {
    "64x16": Load(64, 50, 16, 1200),
    "64x1": Load(64, 50, 1, 600),
    "2k": Load(2048, 50, 16, 1000),
    "2kx1": Load(2048, 50, 1, 500),
    "64k": Load(64 << 10, 8, 2, 250),
    "1m": Load(1 << 20, 4, 2, 60),
}


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
@click.option("--baseline", "baselines", multiple=True, type=click.Choice(_BASELINES))
@click.option("--judge", multiple=True, type=click.Choice(_BASELINES), default=["proxy"])
@click.option("--max-ratio", type=float, help="Fail above this.")
@click.option("--baselines-only", is_flag=True, help="Leave mpmsgr out.")
def main(
    loads: tuple[str, ...],
    rounds: int,
    scale: float,
    baselines: tuple[str, ...],
    judge: tuple[str, ...],
    max_ratio: float | None,
    baselines_only: bool,
) -> None:
    """Measure each load and print what was found."""
    print(measure.machine())
    print(measure.command("bench.echo_cost"))
    worst = 0.0
    for name in loads:
        medians = _measure(LOADS[name], rounds, scale, baselines or _BASELINES, baselines_only)
        worst = max([worst, *(medians[f"pyzmq {how}"] for how in judge if not baselines_only)])
    if max_ratio is not None:
        print(f"worst judged ratio {worst:.2f}, allowed {max_ratio:.2f}")
        sys.exit(worst > max_ratio)


def _measure(
    load: Load, rounds: int, scale: float, baselines: tuple[str, ...], baselines_only: bool
) -> dict[str, float]:
    """Print the figures of one load; returns the median ratio to each baseline."""
    print(f"\n{load.text()}, {rounds} rounds; server CPU in us per round trip, min / median / max")
    contenders = _start(load, baselines, baselines_only)
    try:
        turns = _take_turns(contenders, max(load.in_flight, int(load.requests * scale)), rounds)
    finally:
        for contender in contenders:
            contender.stop()
    return _print(turns)


def _start(load: Load, baselines: tuple[str, ...], baselines_only: bool) -> list[Contender]:
    shape = (load.clients, load.in_flight, load.size)
    started: list[Contender] = [] if baselines_only else [MsgrEcho(*shape)]
    return started + [ZmqServer(how, *shape) for how in baselines]


def _take_turns(contenders: list[Contender], requests: int, rounds: int) -> dict[str, list[Turn]]:
    for contender in contenders:
        contender.clients.drive(max(20, requests // 10))
    turns: dict[str, list[Turn]] = {contender.name: [] for contender in contenders}
    for _ in range(rounds):
        for contender in contenders:
            turns[contender.name].append(_turn(contender, requests))
    return turns


def _turn(contender: Contender, requests: int) -> Turn:
    cpu, began = measure.cpu_s(contender.pids), time.perf_counter()
    done = contender.clients.drive(requests)
    elapsed = time.perf_counter() - began
    return Turn((measure.cpu_s(contender.pids) - cpu) / done * 1e6, done / elapsed)


def _print(turns: dict[str, list[Turn]]) -> dict[str, float]:
    for name, series in turns.items():
        cpu = measure.Spread.of(turn.cpu_us for turn in series)
        rate = measure.Spread.of(turn.rate for turn in series)
        print(f"  {name:<12} {cpu.text():<24} at {rate.median:.0f} round trips/s")
    ours = turns.pop("mpmsgr", None)
    if ours is None:
        return {}
    ratios = {
        name: measure.Spread.of(a.cpu_us / b.cpu_us for a, b in zip(ours, series, strict=True))
        for name, series in turns.items()
    }
    for name, ratio in ratios.items():
        print(f"  mpmsgr / {name:<12} {ratio.text()}")
    return {name: ratio.median for name, ratio in ratios.items()}


if __name__ == "__main__":
    main()
