"""Kinds of values: each reads what a flag, the environment, TOML or a caller gives.

``kind.read(raw)`` returns the value or raises ValueError with the words "must be ...": what is
allowed. Text is always accepted (flags and the environment have nothing else); ``metavar`` and
``note`` are what help texts and the reference page say about the kind.
"""

from __future__ import annotations

import ipaddress
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mpmsgr.session.inject import Injection
from mpmsgr.wire.address import is_ip, split_address, split_bind
from mpmsgr.wire.name import TYPE_LABELS, EntityName

KIB, MIB = 1 << 10, 1 << 20
U32_MAX, U64_MAX = (1 << 32) - 1, (1 << 64) - 1
_UNITS = {"": 1, "b": 1, "kib": KIB, "mib": MIB, "gib": 1 << 30}
_SIZE = re.compile(r"(\d+)\s*([a-z]*)", re.IGNORECASE)
_MODULE = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*(:[^\W\d]\w*(\.[^\W\d]\w*)*)?")
_SWITCH = {
    **dict.fromkeys(("true", "yes", "on", "1"), True),
    **dict.fromkeys(("false", "no", "off", "0"), False),
}
_CPUS = re.compile(r"(\d{1,5})(?:-(\d{1,5}))?")


@dataclass(frozen=True)
class Kind:
    """One kind of value; the base takes any non-empty text."""

    metavar: str = "TEXT"
    note: str = "text"

    def read(self, raw: Any) -> Any:
        """The value *raw* stands for. Raises ValueError saying what is allowed."""
        if isinstance(raw, str) and raw:
            return raw
        raise ValueError(self.must)

    def show(self, value: Any) -> str:
        """A value as one would write it."""
        return str(value)

    @property
    def must(self) -> str:
        """What is allowed, as the end of an error's sentence."""
        return f"must be {self.note}"


@dataclass(frozen=True)
class Choice(Kind):
    """One of a few words."""

    words: tuple[str, ...] = ()

    def read(self, raw: Any) -> str:
        """*raw* in lower case, if it is one of the words."""
        word = raw.lower() if isinstance(raw, str) else ""
        if word in self.words:
            return word
        raise ValueError(self.must)

    @property
    def must(self) -> str:
        """The words."""
        return f"must be {one_of(self.words)}"


@dataclass(frozen=True)
class Whole(Kind):
    """A whole number within bounds; text may be decimal or 0x hexadecimal."""

    low: int = 0
    high: int = U64_MAX

    def read(self, raw: Any) -> int:
        """The number."""
        number = whole(raw) if isinstance(raw, str) else raw
        if type(number) is int and self.low <= number <= self.high:
            return number
        raise ValueError(self.must)

    @property
    def must(self) -> str:
        """The bounds."""
        return f"must be a whole number from {self.low} to {_bound(self.high)}"


@dataclass(frozen=True)
class Workers(Whole):
    """A number of worker processes; ``auto`` is replaced before it is read."""

    high: int = 1024

    @property
    def must(self) -> str:
        """The bounds, and auto."""
        return f"{super().must}, or auto"


@dataclass(frozen=True)
class Size(Whole):
    """A number of bytes; text may end in KiB, MiB or GiB."""

    def read(self, raw: Any) -> int:
        """The number of bytes."""
        match = _SIZE.fullmatch(raw.strip()) if isinstance(raw, str) else None
        if match and match[2].lower() in _UNITS:
            raw = int(match[1]) * _UNITS[match[2].lower()]
        return super().read(raw)

    def show(self, value: Any) -> str:
        """In MiB where it is a whole number of them."""
        return str(value) if value % MIB else f"{value // MIB}MiB"

    @property
    def must(self) -> str:
        """The bounds, and how to write them."""
        return f"must be bytes from {self.low} to {_bound(self.high)}, such as 65536 or 64KiB"


@dataclass(frozen=True)
class Seconds(Kind):
    """A duration in seconds, fractions allowed."""

    low: float = 0.0
    high: float = 86400.0 * 365

    def read(self, raw: Any) -> float:
        """The duration as a float."""
        try:
            value = float(raw) if isinstance(raw, (str, int, float)) else math.nan
        except ValueError:
            value = math.nan
        if not isinstance(raw, bool) and self.low <= value <= self.high:
            return value
        raise ValueError(self.must)

    def show(self, value: Any) -> str:
        """Without superfluous digits."""
        return f"{value:g}"

    @property
    def must(self) -> str:
        """The bounds."""
        return f"must be seconds from {self.low:g} to {self.high:.0f}"


@dataclass(frozen=True)
class Name(Kind):
    """An entity name."""

    def read(self, raw: Any) -> str:
        """*raw*, if it is TYPE.NUMBER of a known type."""
        try:
            EntityName.parse(raw if isinstance(raw, str) else "")
        except ValueError:
            raise ValueError(self.must) from None
        return str(raw)

    @property
    def must(self) -> str:
        """The shape and the types."""
        return f"must be TYPE.NUMBER such as svc.0, TYPE one of {', '.join(TYPE_LABELS)}"


@dataclass(frozen=True)
class Address(Kind):
    """HOST:PORT of an IPv4 or [IPv6] address: peers compare it with where they connected to."""

    def read(self, raw: Any) -> str:
        """*raw*, if host and port are there and the port is not 0."""
        try:
            host, port, nonce = split_address(raw if isinstance(raw, str) else "")
        except ValueError:
            host, port, nonce = "", 0, None
        if port and nonce is None and (is_ip(host, 4) or is_ip(host, 6)):
            return str(raw)
        raise ValueError(self.must)


@dataclass(frozen=True)
class Folder(Kind):
    """A directory, as an absolute path."""

    exists: bool = False

    def read(self, raw: Any) -> str:
        """The absolute path of *raw*."""
        path = Path(super().read(raw)).expanduser().absolute()
        if self.exists and not path.is_dir():
            raise ValueError("must be a directory that exists")
        return str(path)


@dataclass(frozen=True)
class File(Folder):
    """A file that may come to be, as an absolute path."""

    note: str = "a file, not a directory"

    def read(self, raw: Any) -> str:
        """The absolute path of *raw*."""
        path = super().read(raw)
        if Path(path).is_dir():
            raise ValueError(self.must)
        return path


@dataclass(frozen=True)
class Endpoint(Kind):
    """One place to listen at, as HOST:PORT; the host is 127.0.0.1 unless said."""

    def read(self, raw: Any) -> str:
        """*raw* with its host."""
        text = f"127.0.0.1:{raw}" if whole(str(raw)) is not None else raw
        split = split_bind(text) if isinstance(text, str) else None
        if split is None or split[1] != split[2]:
            raise ValueError(self.must)
        return str(text)


@dataclass(frozen=True)
class Switch(Kind):
    """On or off."""

    note: str = "true or false"

    def read(self, raw: Any) -> bool:
        """True or False, from TOML's or a flag's or from words."""
        said = _SWITCH.get(raw.strip().lower()) if isinstance(raw, str) else raw
        if isinstance(said, bool):
            return said
        raise ValueError(self.must)

    def show(self, value: Any) -> str:
        """As TOML has it."""
        return str(value).lower()


@dataclass(frozen=True)
class Cpus(Kind):
    """CPUs to bind workers to: a word, or numbers and ranges."""

    note: str = "auto, none, or CPUs such as 0,2-5"

    def read(self, raw: Any) -> str:
        """The text, without blanks."""
        text = re.sub(r"\s", "", str(raw)).lower() if isinstance(raw, (str, int)) else ""
        if text in ("auto", "none") or (not isinstance(raw, bool) and cpu_numbers(text)):
            return text
        raise ValueError(self.must)


@dataclass(frozen=True)
class Listing(Kind):
    """A list; text is split at commas and blanks, each item read by `item`."""

    def read(self, raw: Any) -> list[str]:
        """The items, each of them checked."""
        items = re.split(r"[,\s]+", raw.strip()) if isinstance(raw, str) else raw
        if not isinstance(items, Sequence):
            raise ValueError(self.must)
        return [self.item(one) for one in items if one != ""]

    def show(self, value: Any) -> str:
        """The items, separated by commas."""
        return ", ".join(value)

    def item(self, raw: Any) -> str:
        """One item. Raises ValueError saying what is allowed."""
        raise NotImplementedError


@dataclass(frozen=True)
class Binds(Listing):
    """Places to listen at."""

    def read(self, raw: Any) -> list[str]:
        """The places, at least one."""
        places = super().read(raw)
        if not places:
            raise ValueError(self.must)
        return places

    def item(self, raw: Any) -> str:
        """One HOST:PORT, HOST:0 or HOST:A-B."""
        if not isinstance(raw, str) or split_bind(raw) is None:
            shown = f"{raw!r} " if not isinstance(raw, str) or raw else ""
            raise ValueError(f"{shown}{self.must}")
        return raw


@dataclass(frozen=True)
class Modules(Listing):
    """Dispatcher modules."""

    def item(self, raw: Any) -> str:
        """One MODULE[:ATTR]."""
        if isinstance(raw, str) and _MODULE.fullmatch(raw):
            return raw
        raise ValueError(f"{raw!r} {self.must}")


@dataclass(frozen=True)
class Tables(Kind):
    """A TOML table of tables; neither a flag nor the environment can hold it."""

    def read(self, raw: Any) -> dict[str, dict[str, Any]]:
        """A copy of the tables."""
        if not isinstance(raw, dict) or not all(isinstance(t, dict) for t in raw.values()):
            raise ValueError(self.must)
        return {str(name): dict(table) for name, table in raw.items()}


@dataclass(frozen=True)
class Faults(Kind):
    """The table ``[inject]``: fields of `Injection`."""

    def read(self, raw: Any) -> dict[str, Any]:
        """A copy of the table, checked."""
        if not isinstance(raw, dict):
            raise ValueError(self.must)
        Injection.from_table(raw)
        return dict(raw)


def whole(text: str) -> int | None:
    """The whole number *text* stands for (decimal or 0x...), None if it is none."""
    digits = text.strip().replace("_", "")
    try:
        return int(digits, 16) if digits.lower().startswith("0x") else int(digits)
    except ValueError:
        return None


def cpu_numbers(text: str) -> list[int]:
    """The CPUs of ``0,2-5``, in that order, each once; empty if *text* is no such list."""
    cpus: dict[int, None] = {}
    for part in text.split(","):
        match = _CPUS.fullmatch(part)
        if not match or (match[2] and int(match[2]) < int(match[1])):
            return []
        cpus |= dict.fromkeys(range(int(match[1]), int(match[2] or match[1]) + 1))
    return list(cpus)


def one_of(words: Sequence[str]) -> str:
    """``a``, ``a or b``, ``one of a, b, c``."""
    return " or ".join(words) if len(words) < 3 else f"one of {', '.join(words)}"


def is_loopback(bind: str) -> bool:
    """True if *bind* (as `split_bind` reads it) is only reachable from this host."""
    split = split_bind(bind)
    if split is None:
        return False
    try:
        return ipaddress.ip_address(split[0]).is_loopback
    except ValueError:
        return split[0] == "localhost"


def _bound(number: int) -> str:
    return {U32_MAX: "2^32-1", U64_MAX: "2^64-1"}.get(number, str(number))
