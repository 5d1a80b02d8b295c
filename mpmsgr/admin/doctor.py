"""``mpmsgr doctor``: what this machine gives a server, and what to do about it."""

from __future__ import annotations

import os
import platform
import resource
import sys
from collections.abc import Callable, Iterator
from importlib import metadata, util
from pathlib import Path
from typing import NamedTuple

import mpmsgr
from mpmsgr.messenger.accepter import BACKLOG
from mpmsgr.supervisor.cpus import auto_workers, cgroup_cpus

_MIB = 1 << 20
#: Descriptors below which a thousand clients and a reconnect storm do not fit.
_FEW_FDS = 4096
#: What malloc keeps, receive buffers and code of one process need at least.
_PROCESS_BYTES = 64 * _MIB


class Finding(NamedTuple):
    """One thing looked at. advice: what to do, "" where nothing is wrong."""

    topic: str
    name: str
    value: str
    advice: str = ""


def examine(root: Path = Path("/")) -> list[Finding]:
    """Every finding; *root* is where /proc and /sys are looked up. Never raises."""
    found: list[Finding] = []
    for look in _LOOKS:
        try:
            found += look(root)
        except (OSError, ValueError, ArithmeticError) as exc:
            found.append(Finding(look.__name__.lstrip("_"), "looking", f"failed: {exc}"))
    return found


def report(findings: list[Finding]) -> str:
    """The findings for people: by topic, advice below what it is about, a verdict at the end."""
    lines: list[str] = []
    topic = ""
    width = max(len(f.name) for f in findings)
    for f in findings:
        if f.topic != topic:
            lines += ["", f.topic] if lines else [f.topic]
            topic = f.topic
        lines.append(f"  {'!' if f.advice else ' '} {f.name:<{width}}  {f.value}".rstrip())
        if f.advice:
            lines.append(f"    {'':<{width}}  -> {f.advice}")
    count = sum(bool(f.advice) for f in findings)
    verdict = f"{count} of {len(findings)} findings have advice" if count else "nothing to advise"
    return "\n".join([*lines, "", verdict])


def _versions(root: Path) -> Iterator[Finding]:
    yield Finding("versions", "mpmsgr", mpmsgr.__version__)
    old = sys.version_info < (3, 11)
    yield Finding(
        "versions", "Python", platform.python_version(), "3.11 or newer is needed" if old else ""
    )
    for name in ("click", "crc32c", "msgpack", "psutil", "pyzmq", "uvloop"):
        version = _installed(name)
        yield Finding(
            "versions", name, version or "missing", "" if version else f"pip install {name}"
        )
    for name, extra in (("prometheus-client", "metrics"), ("rich", "top")):
        yield Finding("versions", name, _installed(name) or f"not there (extra `{extra}`)")


def _installed(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def _accelerators(root: Path) -> Iterator[Finding]:
    flags = _cpu_flags(root)
    hardware = bool(flags & {"sse4_2", "crc32", "asimd"})
    advice = "" if hardware or not flags else "large messages cost more CPU here than elsewhere"
    yield Finding("accelerators", "crc32c in hardware", _yes(hardware), advice)
    loop = util.find_spec("uvloop") is not None
    advice = "" if loop else "pip install uvloop: asyncio's own loop costs several times as much"
    yield Finding("accelerators", "uvloop", _yes(loop), advice)
    packed = _is_compiled("msgpack._cmsgpack")
    advice = "" if packed else "msgpack runs in pure Python: install a wheel for this platform"
    yield Finding("accelerators", "msgpack in C", _yes(packed), advice)


def _is_compiled(module: str) -> bool:
    try:
        return util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False


def _cpu_flags(root: Path) -> set[str]:
    for line in _text(root / "proc/cpuinfo").splitlines():
        name, _, flags = line.partition(":")
        if name.strip() in ("flags", "Features"):
            return set(flags.split())
    return set()


def _cpus(root: Path) -> Iterator[Finding]:
    usable, limit = len(os.sched_getaffinity(0)), cgroup_cpus(root)
    yield Finding("CPUs", "usable", f"{usable} of {os.cpu_count()}")
    shown = "none" if limit == float("inf") else f"{limit:g} CPUs"
    advice = ""
    if limit < 2:
        advice = "the I/O process and a worker share less than two CPUs: raise the limit"
    yield Finding("CPUs", "cgroup limit", shown, advice)
    yield Finding("CPUs", "--workers auto", str(auto_workers()))


def _descriptors(root: Path) -> Iterator[Finding]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    advice = ""
    if 0 <= hard < _FEW_FDS:
        advice = "each session takes one: raise the hard limit (LimitNOFILE=, ulimit -Hn)"
    # The I/O process raises its soft limit by itself.
    yield Finding("limits", "open files", f"{_limit(soft)}, hard {_limit(hard)}", advice)
    processes = resource.getrlimit(resource.RLIMIT_NPROC)[0]
    yield Finding("limits", "processes", _limit(processes))
    core = resource.getrlimit(resource.RLIMIT_CORE)[0]
    yield Finding("limits", "core file", _limit(core))


def _limit(value: int) -> str:
    return "unlimited" if value == resource.RLIM_INFINITY else str(value)


def _kernel(root: Path) -> Iterator[Finding]:
    release = platform.release()
    parts = release.split("-")[0].split(".")
    old = tuple(int(p) for p in parts[:2] if p.isdigit()) < (5, 10)
    yield Finding("kernel", "Linux", release, "5.10 or newer is supported" if old else "")
    for name, least, why in (
        ("net/core/somaxconn", BACKLOG, "clients that connect at once are refused above it"),
        ("net/ipv4/tcp_max_syn_backlog", 512, "clients that connect at once wait for retries"),
    ):
        text = _text(root / "proc/sys" / name).strip()
        if text.isdigit():
            advice = f"sysctl -w {name.replace('/', '.')}={least}: {why}"
            yield Finding(
                "kernel", name.replace("/", "."), text, advice if int(text) < least else ""
            )
    ports = _text(root / "proc/sys/net/ipv4/ip_local_port_range").split()
    if len(ports) == 2:
        yield Finding("kernel", "local ports", "-".join(ports))


def _memory(root: Path) -> Iterator[Finding]:
    total = _meminfo(root).get("MemTotal", 0)
    free = _meminfo(root).get("MemAvailable", 0)
    if total:
        yield Finding("memory", "available", f"{free // _MIB} of {total // _MIB} MiB")
    limit = _memory_limit(root)
    needed = (auto_workers() + 2) * _PROCESS_BYTES
    shown, advice = "none", ""
    if limit is not None:
        shown = f"{limit // _MIB} MiB"
        if limit < needed:
            advice = (
                f"{auto_workers()} workers want {needed // _MIB} MiB: raise it, or fewer workers"
            )
    yield Finding("memory", "cgroup limit", shown, advice)
    swap = _meminfo(root).get("SwapTotal", 0)
    yield Finding("memory", "swap", f"{swap // _MIB} MiB" if swap else "none")


def _meminfo(root: Path) -> dict[str, int]:
    """Fields of /proc/meminfo, in bytes."""
    found = {}
    for line in _text(root / "proc/meminfo").splitlines():
        name, _, rest = line.partition(":")
        words = rest.split()
        if words and words[0].isdigit():
            found[name] = int(words[0]) * 1024
    return found


def _memory_limit(root: Path) -> int | None:
    """Of our cgroup (v2 at its root as containers see it, v1), in bytes; None: no limit."""
    for name in ("sys/fs/cgroup/memory.max", "sys/fs/cgroup/memory/memory.limit_in_bytes"):
        text = _text(root / name).strip()
        if text.isdigit() and int(text) < 1 << 60:
            return int(text)
    return None


def _places(root: Path) -> Iterator[Finding]:
    named = os.environ.get("XDG_RUNTIME_DIR")
    base = Path(named) if named else Path("/tmp")
    writable = os.access(base, os.W_OK | os.X_OK)
    advice = "" if writable else "say --run-dir: a private directory, also under a read-only root"
    yield Finding("places", "run directory in", str(base), advice)
    if os.getpid() == 1:
        advice = "start through an init (tini): what plugins start and leave is nobody's to reap"
        yield Finding("places", "process id", "1", advice)


def _text(file: Path) -> str:
    try:
        return file.read_text()
    except OSError:
        return ""


def _yes(fact: bool) -> str:
    return "yes" if fact else "no"


_LOOKS: tuple[Callable[[Path], Iterator[Finding]], ...] = (
    _versions,
    _accelerators,
    _cpus,
    _descriptors,
    _kernel,
    _memory,
    _places,
)
