"""The cgroups whose limits hold for this process: ours and those above it, v1 and v2."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath


def folders(controller: str, root: Path = Path("/")) -> Iterator[Path]:
    """Folders of our cgroup and its ancestors, in each hierarchy that may have *controller*.

    controller: ``"cpu"``, ``"memory"``. *root* is where ``/proc`` and the mounts are looked up;
    what cannot be read is not there. Source: proc(5), cgroups(7).
    """
    paths = dict(_own(controller, root))
    for hierarchy, mounted, point in _mounts(controller, root):
        own = paths.get(hierarchy)
        if own is None:
            continue
        # In a container without a cgroup namespace both are host paths: the mount shows a subtree.
        inside = own.relative_to(mounted) if own.is_relative_to(mounted) else PurePosixPath()
        top = root / point.lstrip("/")
        folder = top / inside
        yield folder
        while folder != top:
            folder = folder.parent
            yield folder


def _own(controller: str, root: Path) -> Iterator[tuple[str, PurePosixPath]]:
    """("" for v2, *controller* for v1; path) of /proc/self/cgroup: ``ID:controllers:path``."""
    for line in _lines(root / "proc/self/cgroup"):
        _, controllers, path = line.split(":", 2)
        if not controllers:
            yield "", PurePosixPath(path)
        elif controller in controllers.split(","):
            yield controller, PurePosixPath(path)


def _mounts(controller: str, root: Path) -> Iterator[tuple[str, PurePosixPath, str]]:
    """(hierarchy, root within it, mount point) of the cgroup mounts in /proc/self/mountinfo."""
    for line in _lines(root / "proc/self/mountinfo"):
        before, _, after = line.partition(" - ")
        mounted, point = before.split()[3:5]
        kind, _, options = after.split(maxsplit=2)
        if kind == "cgroup2":
            yield "", PurePosixPath(mounted), point
        elif kind == "cgroup" and controller in options.split(","):
            yield controller, PurePosixPath(mounted), point


def _lines(file: Path) -> list[str]:
    try:
        return file.read_text().splitlines()
    except OSError:
        return []
