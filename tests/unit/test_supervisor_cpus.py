"""CPU limits of cgroup v1 and v2, read from a file tree like a container's."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mpmsgr.supervisor import cpus

V2_MOUNT = "30 23 0:26 {root} /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n"
V1_MOUNT = (
    "35 30 0:31 {root} /sys/fs/cgroup/cpu,cpuacct rw shared:9 - cgroup cgroup rw,cpu,cpuacct\n"
    "36 30 0:32 {root} /sys/fs/cgroup/cpuset rw - cgroup cgroup rw,cpuset\n"
)
NONE = float("inf")


def tree(root: Path, own: str, mounts: str, files: dict[str, str]) -> Path:
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/cgroup").write_text(own)
    (root / "proc/self/mountinfo").write_text("22 1 8:1 / / rw - ext4 /dev/sda1 rw\n" + mounts)
    for name, text in files.items():
        file = root / "sys/fs/cgroup" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return root


@pytest.mark.parametrize(
    ("own", "files", "expected"),
    [
        ("/", {"cpu.max": "150000 100000\n"}, 1.5),
        ("/", {"cpu.max": "max 100000\n"}, NONE),
        ("/", {}, NONE),
        ("/", {"cpu.max": "nonsense"}, NONE),
        ("/a/b", {"a/b/cpu.max": "max 100000", "a/cpu.max": "200000 100000"}, 2.0),
        ("/a/b", {"a/b/cpu.max": "50000 100000", "a/cpu.max": "200000 100000"}, 0.5),
    ],
)
def test_v2(tmp_path: Path, own: str, files: dict[str, str], expected: float) -> None:
    root = tree(tmp_path, f"0::{own}\n", V2_MOUNT.format(root="/"), files)
    assert cpus.cgroup_cpus(root) == expected


@pytest.mark.parametrize(
    ("own", "mounted", "folder", "quota", "expected"),
    [
        ("/", "/", "", "300000", 3.0),
        ("/", "/", "", "-1", NONE),
        ("/docker/abc", "/docker/abc", "", "250000", 2.5),  # a container without its namespace
        ("/user/x", "/", "user", "100000", 1.0),
        ("/user/x", "/docker", "", "100000", 1.0),  # not below what is mounted: what we see
    ],
)
def test_v1(
    tmp_path: Path, own: str, mounted: str, folder: str, quota: str, expected: float
) -> None:
    base = f"cpu,cpuacct/{folder}"
    files = {f"{base}/cpu.cfs_quota_us": quota, f"{base}/cpu.cfs_period_us": "100000"}
    lines = f"5:cpuset:/\n4:cpu,cpuacct:{own}\n0::/\n"
    root = tree(tmp_path, lines, V1_MOUNT.format(root=mounted), files)
    assert cpus.cgroup_cpus(root) == expected


def test_without_proc_there_is_no_limit(tmp_path: Path) -> None:
    assert cpus.cgroup_cpus(tmp_path) == NONE


@pytest.mark.parametrize(
    ("affinity", "limit", "expected"),
    [(8, NONE, 8), (2, 4.0, 2), (8, 2.5, 2), (8, 0.5, 1), (1, 1.0, 1)],
)
def test_auto(monkeypatch: pytest.MonkeyPatch, affinity: int, limit: float, expected: int) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(affinity)))
    monkeypatch.setattr(cpus, "cgroup_cpus", lambda: limit)
    assert cpus.auto_workers() == expected


def test_this_machine() -> None:
    assert 1 <= cpus.auto_workers() <= (os.cpu_count() or 1)
