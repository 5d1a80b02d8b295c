"""What a second worker gains for a CPU-bound handler, against what a second bare process gains.

Four measurements take turns: one and two bare processes that only compute digests, and mpmsgr with
one and with two workers that do the same for clients. Both gains are taken within each round. A
round in which other processes of the machine were busy does not count and is repeated. Exits 1 if
the median of (our gain / bare gain) is below `--min-ratio`.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass

import click

from bench import measure
from bench.server import Server
from mpmsgr.load import LoadPlan, run
from workers.digest import DIGEST

CLIENTS, IN_FLIGHT = 8, 2


@click.command(help=__doc__)
@click.option("--rounds", default=7, show_default=True, type=click.IntRange(1))
@click.option("--seconds", default=1.5, show_default=True, help="Length of each measurement.")
@click.option("--size", default=4096, show_default=True, help="Bytes of one request.")
@click.option("--repeat", default=400, show_default=True, help="Digests per request.")
@click.option("--min-ratio", default=0.85, show_default=True)
@click.option("--max-others", default=0.1, show_default=True, help="Cores other processes may use.")
def main(
    rounds: int, seconds: float, size: int, repeat: int, min_ratio: float, max_others: float
) -> None:
    """Measure and print."""
    print(measure.machine())
    print(measure.command("bench.cpu_scaling"))
    print(f"digests of {size} bytes x {repeat} per second; gain of the second process\n")
    toml = f'[options."workers.digest:Digest"]\nrounds = {repeat}\n'
    serve = ("workers.digest:Digest",)
    with Server(*serve, workers=1, toml=toml) as one, Server(*serve, workers=2, toml=toml) as two:
        take_turns = _Turns(one, two, size, repeat, seconds)
        quiet = list(_quiet_rounds(take_turns, rounds, max_others))
    if not quiet:
        sys.exit(f"in {3 * rounds} rounds other processes always used over {max_others:g} cores")
    ratio = measure.Spread.of(turn.ratio for turn in quiet)
    bare = measure.Spread.of(turn.bare_gain for turn in quiet)
    ours = measure.Spread.of(turn.our_gain for turn in quiet)
    print(f"\nmin / median / max    bare gain {bare.text()}    mpmsgr gain {ours.text()}")
    print(f"our gain / bare gain  {ratio.text()}, wanted {min_ratio:.2f}")
    sys.exit(ratio.median < min_ratio)


@dataclass(frozen=True)
class Round:
    """Digest requests per second of bare processes and of mpmsgr, one and two at work."""

    bare: tuple[float, float]
    ours: tuple[float, float]
    others: float
    """Cores that other processes of the machine used."""

    @property
    def bare_gain(self) -> float:
        """What the second bare process gained."""
        return self.bare[1] / self.bare[0]

    @property
    def our_gain(self) -> float:
        """What the second worker gained."""
        return self.ours[1] / self.ours[0]

    @property
    def ratio(self) -> float:
        """Our gain by the bare one."""
        return self.our_gain / self.bare_gain

    def text(self) -> str:
        """One line."""
        (bare_1, bare_2), (ours_1, ours_2) = self.bare, self.ours
        return (
            f"  bare {bare_1:6.0f} -> {bare_2:6.0f} ({self.bare_gain:.2f} x)"
            f"    mpmsgr {ours_1:6.0f} -> {ours_2:6.0f} ({self.our_gain:.2f} x)"
        )


@dataclass(frozen=True)
class _Turns:
    """Measures a round."""

    one: Server
    two: Server
    size: int
    repeat: int
    seconds: float

    def __call__(self) -> Round:
        servers = [process.pid for s in (self.one, self.two) for process in s.family()]
        others = measure.Others(servers)
        bare_1 = _bare_rate(1, self.size, self.repeat, self.seconds)
        ours_1 = _our_rate(self.one.address, self.size, self.seconds)
        bare_2 = _bare_rate(2, self.size, self.repeat, self.seconds)
        ours_2 = _our_rate(self.two.address, self.size, self.seconds)
        return Round((bare_1, bare_2), (ours_1, ours_2), others.cores())


def _quiet_rounds(take_turns: _Turns, wanted: int, max_others: float) -> Iterator[Round]:
    """Up to *wanted* rounds without disturbance, out of three times as many at most."""
    found = 0
    for _ in range(3 * wanted):
        turn = take_turns()
        disturbed = turn.others > max_others
        remark = f"    not counted, others used {turn.others:.2f} cores" * disturbed
        print(turn.text() + remark, flush=True)
        if not disturbed:
            yield turn
            found += 1
        if found == wanted:
            return


def _our_rate(address: str, size: int, seconds: float) -> float:
    """Replies per second, each one checked."""
    plan = LoadPlan(
        address=address,
        clients=CLIENTS,
        in_flight=IN_FLIGHT,
        size=size,
        duration_s=seconds,
        type=DIGEST,
    )
    report = run(plan)
    if report.violations or report.errors:
        raise RuntimeError(report.text())
    return report.rate


def _bare_rate(processes: int, size: int, repeat: int, seconds: float) -> float:
    """Digests per second of bare processes, together."""
    command = [sys.executable, "-m", "bench.bare_digest", str(size), str(repeat), str(seconds)]
    started = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(processes)
    ]
    try:
        for process in started:
            assert process.stdout is not None
            if process.stdout.readline() != "ready\n":
                raise RuntimeError("a bare process did not start")
        for process in started:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        return sum(float(process.communicate()[0]) for process in started)
    finally:
        for process in started:
            process.kill()
            process.communicate()


if __name__ == "__main__":
    main()
