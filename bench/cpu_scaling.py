"""What a second worker gains for a CPU-bound handler, against what a second bare process gains.

Four measurements take turns: one and two bare processes that only compute digests, and mpmsgr with
one and with two workers that do the same for clients. Both gains are taken within each round. Exits
1 if the median of (our gain / bare gain) is below `--min-ratio`.
"""

from __future__ import annotations

import subprocess
import sys

import click

from bench import measure
from bench.server import Server
from mpmsgr.load import LoadPlan, run
from workers.digest import DIGEST

CLIENTS, IN_FLIGHT = 16, 2


@click.command(help=__doc__)
@click.option("--rounds", default=5, show_default=True, type=click.IntRange(1))
@click.option("--seconds", default=2.0, show_default=True, help="Length of each measurement.")
@click.option("--size", default=4096, show_default=True, help="Bytes of one request.")
@click.option("--repeat", default=100, show_default=True, help="Digests per request.")
@click.option("--min-ratio", default=0.85, show_default=True)
def main(rounds: int, seconds: float, size: int, repeat: int, min_ratio: float) -> None:
    """Measure and print."""
    print(measure.machine())
    print(measure.command("bench.cpu_scaling"))
    print(f"digests of {size} bytes x {repeat} per second; gain of the second process\n")
    toml = f'[options."workers.digest:Digest"]\nrounds = {repeat}\n'
    serve = ("workers.digest:Digest",)
    with Server(*serve, workers=1, toml=toml) as one, Server(*serve, workers=2, toml=toml) as two:
        gains = [_round(one, two, size, repeat, seconds) for _ in range(rounds)]
    ratio = measure.Spread.of(ours / bare for bare, ours in gains)
    print(f"\nour gain / bare gain  {ratio.text()}  (min / median / max), wanted {min_ratio:.2f}")
    sys.exit(ratio.median < min_ratio)


def _round(one: Server, two: Server, size: int, repeat: int, seconds: float) -> tuple[float, float]:
    """One measurement of each kind; returns the bare gain and ours."""
    bare_1 = _bare_rate(1, size, repeat, seconds)
    ours_1 = _our_rate(one.address, size, seconds)
    bare_2 = _bare_rate(2, size, repeat, seconds)
    ours_2 = _our_rate(two.address, size, seconds)
    print(
        f"  bare {bare_1:6.0f} -> {bare_2:6.0f} ({bare_2 / bare_1:.2f} x)"
        f"    mpmsgr {ours_1:6.0f} -> {ours_2:6.0f} ({ours_2 / ours_1:.2f} x)",
        flush=True,
    )
    return bare_2 / bare_1, ours_2 / ours_1


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
