"""Shared memory: what is made, and the limits of cgroups, read from a tree like a container's."""

from __future__ import annotations

import fcntl
import mmap
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from mpmsgr.errors import ConfigError
from mpmsgr.supervisor import memory

SIZE = 64 * 1024
V2_MOUNT = "30 23 0:26 {root} /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n"
V1_MOUNT = "35 30 0:31 {root} /sys/fs/cgroup/memory rw shared:9 - cgroup cgroup rw,memory\n"
UNLIMITED = {"memory.max": "max\n", "memory.current": "5000\n"}


@pytest.fixture
def fd() -> Iterator[int]:
    fd = memory.create("mpmsgr-test", SIZE)
    yield fd
    os.close(fd)


def test_all_of_it_is_there_and_zero(fd: int) -> None:
    status = os.fstat(fd)
    assert (status.st_size, status.st_blocks * 512) == (SIZE, SIZE)
    assert os.pread(fd, SIZE, 0) == bytes(SIZE)
    assert "mpmsgr-test" in os.readlink(f"/proc/self/fd/{fd}")


def test_nobody_changes_its_size(fd: int) -> None:
    for size in (SIZE - 4096, SIZE + 4096):
        with pytest.raises(PermissionError):
            os.ftruncate(fd, size)
    with pytest.raises(PermissionError):
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE)


def test_children_get_it_only_when_it_is_passed(fd: int) -> None:
    other = memory.read_only(fd)
    assert not os.get_inheritable(fd)
    assert not os.get_inheritable(other)
    os.close(other)


@pytest.mark.parametrize("size", [0, -1])
def test_what_cannot_be_made_leaves_nothing_open(size: int) -> None:
    before = os.listdir("/proc/self/fd")
    with pytest.raises(OSError, match="Invalid argument"):
        memory.create("mpmsgr-test", size)
    assert os.listdir("/proc/self/fd") == before


def test_read_only_is_the_same_memory_and_cannot_be_mapped_writable(fd: int) -> None:
    other = memory.read_only(fd)
    with pytest.raises(PermissionError):
        mmap.mmap(other, SIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE)
    with mmap.mmap(other, SIZE, prot=mmap.PROT_READ) as view:
        os.pwrite(fd, b"shared", 100)
        assert view[100:106] == b"shared"
    os.close(other)


# Limits


def v2(root: Path, own: str, files: dict[str, str]) -> Path:
    files = {f"sys/fs/cgroup/{name}": text for name, text in files.items()}
    return tree(root, f"0::{own}\n", V2_MOUNT.format(root="/"), files)


def v1(root: Path, own: str, mounted: str, files: dict[str, str]) -> Path:
    files = {f"sys/fs/cgroup/memory/{name}": text for name, text in files.items()}
    return tree(root, f"4:memory:{own}\n0::/\n", V1_MOUNT.format(root=mounted), files)


def tree(root: Path, own: str, mounts: str, files: dict[str, str]) -> Path:
    own_files = {"proc/self/cgroup": own, "proc/self/mountinfo": mounts}
    for name, text in (own_files | files).items():
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return root


def left(root: Path) -> int | None:
    """The most that `check_limit` lets through; None: anything. Checks that it is a sharp limit."""
    with pytest.raises(ConfigError) as caught:
        memory.check_limit(1 << 100, root=root)
    words = caught.value.allowed.split()
    bytes_left = int(words[words.index("only") + 1])
    memory.check_limit(bytes_left, root=root)
    with pytest.raises(ConfigError):
        memory.check_limit(bytes_left + 1, root=root)
    return bytes_left


@pytest.mark.parametrize(
    ("own", "files", "expected"),
    [
        ("/", {"memory.max": "1000\n", "memory.current": "300\n"}, 700),
        ("/", {"memory.max": "1000\n", "memory.current": "1200\n"}, 0),
        (
            "/a/b",
            {"a/b/memory.max": "max", "a/b/memory.current": "5"}
            | {"a/memory.max": "1000", "a/memory.current": "400"},
            600,
        ),
        (
            "/a/b",
            {"a/b/memory.max": "900", "a/b/memory.current": "500"}
            | {"a/memory.max": "1000", "a/memory.current": "700"},
            300,
        ),
        (
            "/",
            {"memory.max": "1000", "memory.current": "900"}
            | {"memory.stat": "anon 200\ninactive_file 600\nactive_file 100\n"},
            700,
        ),
        (
            "/",
            {"memory.max": "1000", "memory.current": "100", "memory.stat": "inactive_file 600\n"},
            1000,
        ),
    ],
)
def test_v2(tmp_path: Path, own: str, files: dict[str, str], expected: int) -> None:
    assert left(v2(tmp_path, own, files)) == expected


@pytest.mark.parametrize(
    ("own", "mounted", "folder"),
    [
        ("/", "/", ""),
        ("/docker/abc", "/docker/abc", ""),  # a container without its namespace
        ("/docker/abc", "/", "docker/abc/"),
        ("/docker/abc", "/", "docker/"),  # the limit is above us
        ("/user/x", "/docker", ""),  # not below what is mounted: what we see
    ],
)
def test_v1(tmp_path: Path, own: str, mounted: str, folder: str) -> None:
    files = {
        f"{folder}memory.limit_in_bytes": "1000\n",
        f"{folder}memory.usage_in_bytes": "600\n",
        f"{folder}memory.stat": "inactive_file 20\ntotal_inactive_file 200\n",
    }
    assert left(v1(tmp_path, own, mounted, files)) == 600


def test_the_machine_s_memory(tmp_path: Path) -> None:
    meminfo = "MemTotal:       2000 kB\nMemFree:         100 kB\nMemAvailable:   1500 kB\n"
    assert left(tree(tmp_path, "", "", {"proc/meminfo": meminfo})) == 1500 * 1024


def test_the_tightest_of_all_holds(tmp_path: Path) -> None:
    v2(tmp_path, "/a", {"a/memory.max": "9000", "a/memory.current": "0"})
    meminfo = tmp_path / "proc/meminfo"
    meminfo.write_text("MemTotal: 20 kB\nMemAvailable: 10 kB\n")
    assert left(tmp_path) == 9000
    meminfo.write_text("MemTotal: 20 kB\nMemAvailable: 5 kB\n")
    assert left(tmp_path) == 5 * 1024


@pytest.mark.parametrize(
    "files",
    [
        UNLIMITED,
        {},
        {"memory.max": "nonsense", "memory.current": "5"},
        {"memory.max": "1000"},
        {"memory.current": "5"},
    ],
)
def test_no_limit(tmp_path: Path, files: dict[str, str]) -> None:
    memory.check_limit(1 << 100, root=v2(tmp_path, "/", files))


def test_without_proc_there_is_no_limit(tmp_path: Path) -> None:
    memory.check_limit(1 << 100, root=tmp_path)


def test_the_error_names_the_figure_the_limit_and_its_file(tmp_path: Path) -> None:
    root = v2(tmp_path, "/pod", {"pod/memory.max": "1000", "pod/memory.current": "400"})
    with pytest.raises(ConfigError) as caught:
        memory.check_limit(601, "ingress_bytes", root=root)
    assert (caught.value.field, caught.value.value) == ("ingress_bytes", 601)
    assert str(caught.value) == (
        "ingress_bytes = 601: only 600 bytes are left of 1000 (400 in use;"
        f" {tmp_path}/sys/fs/cgroup/pod/memory.max)"
    )


def test_this_machine() -> None:
    memory.check_limit(1)
    with pytest.raises(ConfigError):
        memory.check_limit(1 << 60)
