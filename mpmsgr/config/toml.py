"""Settings as the text of a configuration file, for `serve --print-config`."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from mpmsgr.config.settings import OPTIONS, Settings


def config_text(settings: Settings, origins: Mapping[str, str]) -> str:
    """*settings* as a whole ``mpmsgr.toml``; behind each, who said it (*origins*).

    What nobody said and has no value is a comment.
    """
    values = settings.as_dict()
    tables = {name: value for name, value in values.items() if isinstance(value, dict)}
    lines = [
        _line(option.name, values[option.name], origins.get(option.name, "default"))
        for option in OPTIONS
        if option.name not in tables
    ]
    for name, value in tables.items():
        lines += _table(name, value)
    return "\n".join(lines) + "\n"


def _line(name: str, value: Any, origin: str) -> str:
    shown = f"# {name} =" if value is None else f"{name} = {_value(value)}"
    return f"{shown}  # {origin}"


def _table(name: str, value: Mapping[str, Any]) -> Iterator[str]:
    plain = {key: one for key, one in value.items() if not isinstance(one, Mapping)}
    if plain:
        yield f"\n[{name}]"
        yield from (f"{_key(key)} = {_value(one)}" for key, one in plain.items())
    for key, one in value.items():
        if key not in plain:
            yield from _table(f"{name}.{_key(key)}", one) if one else (f"\n[{name}.{_key(key)}]",)


def _key(key: str) -> str:
    bare = key.isascii() and key.replace("_", "").replace("-", "").isalnum()
    return key if bare else _value(key)


def _value(value: Any) -> str:
    """A value as TOML has it: JSON's strings are TOML's as well."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_value, value))}]"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_key(k)} = {_value(v)}" for k, v in value.items()) + "}"
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007F")
    return str(value)
