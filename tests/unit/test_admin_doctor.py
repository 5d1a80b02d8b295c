"""doctor, on machines that lack something."""

from __future__ import annotations

import json
import resource
from pathlib import Path

import pytest

from mpmsgr.admin import doctor
from mpmsgr.admin.doctor import Finding, examine, report
from mpmsgr.cli.main import run

FILES = {
    "proc/cpuinfo": "processor : 0\nflags : fpu sse2\n",
    "proc/meminfo": "MemTotal: 2048 kB\nMemAvailable: 1024 kB\nSwapTotal: 0 kB\n",
    "proc/sys/net/core/somaxconn": "128\n",
    "sys/fs/cgroup/memory.max": f"{64 << 20}\n",
    "proc/self/cgroup": "0::/\n",
    "proc/self/mountinfo": "30 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n",
    "sys/fs/cgroup/cpu.max": "50000 100000\n",
}


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    """The files of a small container on an old machine."""
    for name, text in FILES.items():
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return tmp_path


def finding(name: str, root: Path) -> Finding:
    (found,) = [f for f in examine(root) if f.name == name]
    return found


@pytest.mark.parametrize(
    ("name", "value", "advice"),
    [
        ("crc32c in hardware", "no", "cost more CPU"),
        ("net.core.somaxconn", "128", "sysctl -w net.core.somaxconn=512"),
        ("cgroup limit", "0.5 CPUs", "raise the limit"),
    ],
)
def test_what_is_lacking_has_advice(machine: Path, name: str, value: str, advice: str) -> None:
    found = next(f for f in examine(machine) if f.name == name)
    assert (found.value, advice in found.advice) == (value, True)


def test_memory_that_does_not_hold_the_workers(machine: Path) -> None:
    (found,) = [f for f in examine(machine) if (f.topic, f.name) == ("memory", "cgroup limit")]
    assert (found.value, "or fewer workers" in found.advice) == ("64 MiB", True)


def test_few_descriptors(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda which: (1024, 1024))
    assert "LimitNOFILE=" in finding("open files", machine).advice


def test_a_missing_library_has_its_command(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_installed", lambda name: None)
    assert finding("pyzmq", machine).advice == "pip install pyzmq"
    assert finding("rich", machine).value == "not there (extra `top`)"


def test_a_machine_that_tells_nothing(tmp_path: Path) -> None:
    assert finding("crc32c in hardware", tmp_path).advice == ""
    assert not [f for f in examine(tmp_path) if "failed" in f.value]


def test_a_look_that_fails_is_a_finding(machine: Path) -> None:
    (machine / "proc/self/cgroup").write_text("nonsense\n")
    assert "failed" in finding("looking", machine).value


def test_the_report_says_what_to_do() -> None:
    findings = [
        Finding("limits", "open files", "64", "raise it"),
        Finding("limits", "core file", "0"),
        Finding("kernel", "Linux", "6.1"),
    ]
    assert report(findings).splitlines() == [
        "limits",
        "  ! open files  64",
        "                -> raise it",
        "    core file   0",
        "",
        "kernel",
        "    Linux       6.1",
        "",
        "1 of 3 findings have advice",
    ]


def test_this_machine(capfd: pytest.CaptureFixture[str]) -> None:
    assert run(["doctor", "--json"]) == 0
    findings = json.loads(capfd.readouterr().out)
    assert {"versions", "accelerators", "CPUs", "limits", "kernel", "memory", "places"} == {
        f["topic"] for f in findings
    }
