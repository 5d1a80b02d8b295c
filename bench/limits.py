"""What mpmsgr may cost at most: ``[LOAD:]NAME[=RATIO]`` on the command line."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass

import click

FORM = "[LOAD:]NAME[=RATIO]"

_FORM = re.compile(r"(?:(\w+):)?(\w+)(?:=(\d+(?:\.\d*)?))?")


@dataclass(frozen=True)
class Limit:
    """Our cost by the cost of a contender, at most."""

    load: str | None
    """The load it is for; None: every load of the run."""
    name: str
    """The contender."""
    ratio: float | None
    """The bound of the median; None: none is said."""

    @classmethod
    def read(cls, text: str, loads: Collection[str], contenders: Collection[str]) -> Limit:
        """The limit that *text* says; click.BadParameter if it names what does not exist."""
        found = _FORM.fullmatch(text)
        if not found:
            raise _bad(f"{text!r} is not {FORM}")
        load, name, ratio = found.groups()
        if load is not None and load not in loads:
            raise _bad(f"load {load!r} is none of {', '.join(loads)}")
        if name not in contenders:
            raise _bad(f"{name!r} is none of {', '.join(contenders)}")
        return cls(load, name, None if ratio is None else float(ratio))

    def concerns(self, load: str) -> bool:
        """True if it holds in *load*."""
        return self.load in (None, load)


def _bad(message: str) -> click.BadParameter:
    return click.BadParameter(message, param_hint="--judge")
