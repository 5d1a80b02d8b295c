"""Plugins: which are installed, whether some can be loaded, who takes which message types."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from importlib import metadata
from typing import Any

from mpmsgr.dispatch.plugins import GROUP
from mpmsgr.supervisor.spawn import child_environment

Row = dict[str, Any]

_TIMEOUT_S = 60.0


def installed() -> list[Row]:
    """The installed plugins by name: module, distribution and its version."""
    points = sorted(metadata.entry_points(group=GROUP), key=lambda point: point.name)
    return [
        {
            "name": point.name,
            "module": point.value,
            "distribution": point.dist.name if point.dist else "",
            "version": point.dist.version if point.dist else "",
        }
        for point in points
    ]


def check(
    specs: Sequence[str], options: Mapping[str, Mapping[str, Any]], app_dir: str
) -> list[Row]:
    """Load each of *specs* in a process of its own; see `plugin_child` for the rows.

    error is "" or says why it cannot be loaded.
    """
    return [_check_one(spec, options.get(spec, {}), app_dir) for spec in specs]


def _check_one(spec: str, options: Mapping[str, Any], app_dir: str) -> Row:
    command = [sys.executable, "-P", "-m", "mpmsgr.admin.plugin_child", app_dir, spec]
    try:
        ran = subprocess.run(
            [*command, json.dumps(options)],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_TIMEOUT_S,
            env=child_environment(os.environ.copy()),
        )
        row: Row = json.loads(ran.stdout)
        return row
    except subprocess.TimeoutExpired:
        return {"spec": spec, "error": f"is not loaded after {_TIMEOUT_S:g} s"}
    except ValueError:
        end = f"signal {-ran.returncode}" if ran.returncode < 0 else f"exit {ran.returncode}"
        return {"spec": spec, "error": f"ended its process ({end}) while it was loaded"}


def clashes(rows: Sequence[Row]) -> Iterator[str]:
    """One line per message type that plugins of the same `order` take: who would be asked first?"""
    takers: dict[tuple[int, int], list[str]] = {}
    for row in rows:
        for number in row.get("types", ()):
            takers.setdefault((number, row["order"]), []).append(row["spec"])
    for (number, order), specs in sorted(takers.items()):
        if len(specs) > 1:
            both = " and ".join(specs)
            yield f"type {number:#x} is taken by {both}, each of order {order}: give them an order"
