"""Rows and facts as text for a terminal."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

_SIZES = ("B", "KiB", "MiB", "GiB", "TiB")


def table(rows: Sequence[Mapping[str, Any]], columns: Mapping[str, str] | None = None) -> str:
    """*rows* in aligned columns: titles by name, or all names there are; numbers to the right."""
    if not rows:
        return "none"
    columns = columns or {name: name for name in rows[0]}
    cells = [[cell(name, row.get(name)) for name in columns] for row in rows]
    right = [_is_numeric(row.get(name) for row in rows) for name in columns]
    lines = [list(columns.values()), *cells]
    widths = [max(len(line[i]) for line in lines) for i in range(len(columns))]
    return "\n".join(_line(line, widths, right) for line in lines)


def _line(cells: Sequence[str], widths: Sequence[int], right: Sequence[bool]) -> str:
    aligned = [
        text.rjust(width) if to_right else text.ljust(width)
        for text, width, to_right in zip(cells, widths, right, strict=True)
    ]
    return "  ".join(aligned).rstrip()


def facts(value: Mapping[str, Any]) -> str:
    """A map as lines of ``name  value``; maps in it by dotted names."""
    lines = list(_flat(value, ""))
    width = max((len(name) for name, _ in lines), default=0)
    return "\n".join(f"{name:<{width}}  {text}".rstrip() for name, text in lines)


def _flat(value: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, str]]:
    for name, one in value.items():
        if isinstance(one, Mapping) and one:
            yield from _flat(one, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", cell(str(name), one)


def cell(name: str, value: Any) -> str:
    """One value as people read it; the end of *name* says what it measures."""
    if value is None or value == "" or value == [] or value == {}:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if name.endswith("_bytes") and isinstance(value, int):
        return size(value)
    if name.endswith("_s") and isinstance(value, int | float):
        return duration(value)
    if isinstance(value, dict):
        return json.dumps(value)
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return str(value)


def size(nbytes: float) -> str:
    """Bytes in the unit that keeps them short."""
    unit = 0
    while abs(nbytes) >= 1024 and unit < len(_SIZES) - 1:
        nbytes /= 1024
        unit += 1
    return (
        f"{nbytes:.0f} {_SIZES[unit]}"
        if nbytes >= 100 or not unit
        else f"{nbytes:.1f} {_SIZES[unit]}"
    )


def duration(seconds: float) -> str:
    """Seconds as ``0.4s``, ``12s``, ``3m05s``, ``2h10m``, ``4d03h``."""
    if seconds < 10:
        return f"{seconds:.1f}s"
    whole = int(seconds)
    if whole < 100:
        return f"{whole}s"
    if whole < 6000:
        return f"{whole // 60}m{whole % 60:02}s"
    hours = whole // 3600
    if hours < 48:
        return f"{hours}h{whole // 60 % 60:02}m"
    return f"{hours // 24}d{hours % 24:02}h"


def running_text(running: Sequence[Mapping[str, Any]] | None) -> str:
    """The message a worker has been running for longest, and how many others it runs."""
    if not running:
        return ""
    first = running[0]
    more = f" and {len(running) - 1} more" if len(running) > 1 else ""
    return f"{first['type']:#x} for {duration(first['for_s'])}{more}"


def _is_numeric(values: Iterable[Any]) -> bool:
    """Are there numbers, and nothing else but gaps?"""
    said = [value for value in values if value is not None]
    return bool(said) and all(
        isinstance(value, int | float) and not isinstance(value, bool) for value in said
    )
