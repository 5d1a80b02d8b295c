"""What messages contain, as JSON and as text for people."""

from __future__ import annotations

import dataclasses
import json
from typing import Any


def part_as_dict(name: str, content: Any) -> dict[str, str]:
    """One part: text where it is text, else hexadecimal under ``NAME_hex``."""
    text = _as_text(bytes(content))
    return {name: text} if text is not None else {f"{name}_hex": bytes(content).hex()}


def value_as_json(value: Any) -> Any:
    """*value* as JSON has it: dataclasses as objects, bytes as text or hexadecimal."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = dataclasses.asdict(value)
    if isinstance(value, dict):
        return {str(key): value_as_json(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [value_as_json(item) for item in value]
    if isinstance(value, (bytes, memoryview)):
        text = _as_text(bytes(value))
        return bytes(value).hex() if text is None else text
    return value


def value_text(value: Any) -> str:
    """*value* for people: a dataclass as it is written, text as it is, the rest as JSON."""
    if dataclasses.is_dataclass(value):
        return repr(value)
    plain = value_as_json(value)
    return plain if isinstance(plain, str) else json.dumps(plain, ensure_ascii=False, default=str)


def visible(text: str) -> str:
    """*text* with control characters escaped: a peer may have chosen it, and a terminal obeys."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _as_text(content: bytes) -> str | None:
    try:
        text = content.decode()
    except UnicodeDecodeError:
        return None
    return text if all(c.isprintable() or c in "\n\t\r" for c in text) else None
