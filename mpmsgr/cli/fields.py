"""``FIELD=VALUE`` on the command line: fields of a message class, or parts of a Message."""

from __future__ import annotations

import dataclasses
import difflib
import json
import types
import typing
from collections.abc import Iterable, Sequence
from typing import Any, Union

from mpmsgr.config import kinds
from mpmsgr.errors import ConfigError


def split_fields(pairs: Sequence[str], known: Sequence[str]) -> dict[str, str]:
    """``["n=5"]`` as ``{"n": "5"}``. Raises ConfigError: no "=", unknown, said twice."""
    said: dict[str, str] = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not equals or not name:
            raise ConfigError("FIELD=VALUE", pair, "must be a field's name, =, its value")
        if name not in known:
            raise ConfigError(name, text, _unknown(name, known))
        if name in said:
            raise ConfigError(name, text, f"was given before, as {said[name]!r}")
        said[name] = text
    return said


def _unknown(name: str, known: Sequence[str]) -> str:
    if not known:
        return "is unknown, this message has no fields"
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.0)[0]
    return f"is unknown, the nearest is {near}; fields: {', '.join(known)}"


def build(cls: type, pairs: Sequence[str]) -> Any:
    """An instance of message class *cls* of *pairs*, each read by the type of its field.

    Raises ConfigError naming the field, the value and what is allowed.
    """
    fields = {f.name: f for f in dataclasses.fields(cls) if f.init}
    said = split_fields(pairs, list(fields))
    missing = [name for name, f in fields.items() if name not in said and _is_required(f)]
    if missing:
        asked = ", ".join(f"{name}=VALUE" for name in missing)
        raise ConfigError(f"{cls.__name__}.{missing[0]}", None, f"must be given: {asked}")
    hints = typing.get_type_hints(cls)
    values = {name: _read(cls, name, text, hints[name]) for name, text in said.items()}
    try:
        return cls(**values)
    except (TypeError, ValueError) as exc:  # of its own __post_init__
        raise ConfigError(cls.__name__, values, f"is refused by the class: {exc}") from None


def _is_required(field: dataclasses.Field[Any]) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def _read(cls: type, name: str, text: str, hint: Any) -> Any:
    try:
        return _value(text, hint)
    except ValueError as exc:
        raise ConfigError(f"{cls.__name__}.{name}", text, str(exc)) from None


def _value(text: str, hint: Any) -> Any:
    """*text* as a value of type *hint*. Raises ValueError saying what is allowed."""
    if typing.get_origin(hint) in (Union, types.UnionType):
        return _value_of_any(text, typing.get_args(hint))
    reader = _READERS.get(hint)
    return reader(text) if reader else _json(text, hint)


def _value_of_any(text: str, hints: Iterable[Any]) -> Any:
    """The first of several types that can read *text*; "null" is None, str comes last."""
    refusals = []
    for hint in sorted(hints, key=lambda h: h is str):
        try:
            return _value(text, hint)
        except ValueError as exc:
            refusals.append(str(exc).removeprefix("must be "))
    raise ValueError(f"must be {', or '.join(refusals)}")


def _whole(text: str) -> int:
    number = kinds.whole(text)
    if number is None:
        raise ValueError("must be a whole number (int)")
    return number


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ValueError("must be a number (float)") from None


def _truth(text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise ValueError("must be true or false (bool)")
    return text.lower() == "true"


def _null(text: str) -> None:
    if text != "null":
        raise ValueError("must be null")


_READERS: dict[Any, Any] = {
    str: str,
    bytes: str.encode,
    int: _whole,
    float: _number,
    bool: _truth,
    type(None): _null,
}


def _json(text: str, hint: Any) -> Any:
    """Anything else is JSON, of the hint's outer type where that is a class JSON has."""
    outer = typing.get_origin(hint) or hint
    allowed = outer if outer in (list, dict, tuple, set) else object
    shown = getattr(outer, "__name__", str(outer))
    try:
        value = json.loads(text)
    except json.JSONDecodeError:
        raise ValueError(f"must be JSON ({shown})") from None
    if allowed in (tuple, set) and isinstance(value, list):
        return allowed(value)
    if not isinstance(value, allowed):
        raise ValueError(f"must be a JSON {'object' if allowed is dict else 'array'} ({shown})")
    return value
