"""Counters of a server as Prometheus metrics. Needs prometheus-client, the extra `metrics`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)

#: What the kinds of a counter are, by its name; no label ever names a peer.
_LABELS = {
    "sessions": "state",
    "workers": "state",
    "decisions_total": "row",
    "sessions_refused_total": "reason",
    "starts_total": "process",
    "deaths_total": "process",
    "stage_s": "stage",
    "arena_size_bytes": "arena",
    "arena_used_bytes": "arena",
}
_BASE_UNITS = {"_s": "_seconds", "_s_total": "_seconds_total"}


@dataclass
class Snapshot:
    """What a server said of itself, as the verbs of the admin socket return it.

    perf: of the I/O process, None if it did not answer.
    """

    status: Mapping[str, Any]
    health: Mapping[str, Any]
    workers: Sequence[Mapping[str, Any]]
    own: Mapping[str, Any]
    perf: Mapping[str, Any] | None = field(default=None)

    def collect(self) -> Iterator[Metric]:
        """Every metric there is (the interface of prometheus-client's collectors)."""
        facts = {"version": self.status["version"], "name": self.status["name"]}
        yield InfoMetricFamily("mpmsgr", "The server.", value=facts)
        yield _gauge("mpmsgr_ready", "Whether peers may be sent here.", self.health["ready"])
        yield _gauge("mpmsgr_io_up", "Whether the I/O process answers.", self.perf is not None)
        yield from self._processes()
        for section, counters in {**self.own, **(self.perf or {})}.items():
            for name, value in counters.items():
                yield from _metric(section, name, value)

    def _processes(self) -> Iterator[Metric]:
        memory = GaugeMetricFamily(
            "mpmsgr_process_resident_memory_bytes", "Memory in use.", labels=["process"]
        )
        cpu = CounterMetricFamily(
            "mpmsgr_process_cpu_seconds", "CPU time, user and system.", labels=["process"]
        )
        fds = GaugeMetricFamily("mpmsgr_process_open_fds", "Descriptors.", labels=["process"])
        rows = {"io": self.status["io"], **{f"worker-{w['slot']}": w for w in self.workers}}
        for process, row in rows.items():
            for metric, key in ((memory, "rss_bytes"), (cpu, "cpu_s"), (fds, "fds")):
                if row[key] is not None:
                    metric.add_metric([process], row[key])
        return iter((memory, cpu, fds))


def metric_name(section: str, name: str) -> str:
    """The Prometheus name of counter *name* of *section*: base units, spelled out."""
    for end, spelled in _BASE_UNITS.items():
        if name.endswith(end):
            name = name.removesuffix(end) + spelled
    return f"mpmsgr_{section}_{name}"


def _metric(section: str, name: str, value: Any) -> Iterable[Metric]:
    """The metric of one counter: a number, a map by kind, a histogram, a map of those."""
    kinds = value if _has_kinds(value) else {"": value}
    if not kinds:
        return
    full = metric_name(section, name)
    text = f"{name.removesuffix('_total').replace('_', ' ')} of the {section}".capitalize()
    labels = [_LABELS.get(name, "kind")] if _has_kinds(value) else []
    family: Any
    if any(isinstance(one, Mapping) for one in kinds.values()):
        family = HistogramMetricFamily(full, text, labels=labels)
    elif name.endswith("_total"):
        family = CounterMetricFamily(full.removesuffix("_total"), text, labels=labels)
    else:
        family = GaugeMetricFamily(full, text, labels=labels)
    for kind, one in kinds.items():
        said = [str(kind)] if labels else []
        if isinstance(one, Mapping):
            family.add_metric(said, *_histogram(one))
        elif one is not None:
            family.add_metric(said, one)
    yield family


def _has_kinds(value: Any) -> bool:
    return isinstance(value, Mapping) and "le" not in value


def _histogram(value: Mapping[str, Any]) -> tuple[list[tuple[str, float]], float]:
    """Cumulative buckets and sum of {"le": bounds, "counts": one per bucket and above, "sum"}."""
    total, buckets = 0, []
    for bound, count in zip([*value["le"], float("inf")], value["counts"], strict=True):
        total += count
        buckets.append(("+Inf" if bound == float("inf") else str(float(bound)), total))
    return buckets, value["sum"]


def _gauge(name: str, text: str, value: bool) -> Metric:
    return GaugeMetricFamily(name, text, value=float(value))
