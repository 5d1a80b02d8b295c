"""``mpmsgr send``: one request, its reply."""

from __future__ import annotations

import asyncio
import dataclasses
import importlib
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import click

from mpmsgr.cli import params
from mpmsgr.cli.fields import build, split_fields
from mpmsgr.config import kinds
from mpmsgr.errors import ConfigError, PluginError

if TYPE_CHECKING:
    from mpmsgr import Message

_TYPE = kinds.Whole(low=1, high=0xFFFF)
_PARTS = ("front", "middle")


@click.command("send")
@params.address
@click.argument("type_", metavar="TYPE")
@click.argument("fields", metavar="[FIELD=VALUE]...", nargs=-1)
@click.option("--data", metavar="STR", help="Bulk data: this text.")
@click.option("--file", metavar="F", help="Bulk data: the content of a file, - for stdin.")
@params.app_dir
@params.timeout(5.0)
@params.as_json
def command(
    address: str,
    type_: str,
    fields: tuple[str, ...],
    data: str | None,
    file: str | None,
    app_dir: str,
    timeout_s: float,
    as_json: bool,
) -> None:
    """Send one request of TYPE to ADDR and print its reply.

    TYPE is a number (decimal or 0x...) or a message class, MODULE:CLASS or MODULE.CLASS, found
    from the current directory. FIELD=VALUE sets the class's fields, each read by its type; a
    number takes front=TEXT and middle=TEXT.
    """
    request = _request(type_, fields, _bulk(data, file), app_dir)
    started = time.monotonic()
    reply = asyncio.run(_exchange(address, request, timeout_s))
    shown = _as_dict(reply, time.monotonic() - started)
    click.echo(json.dumps(shown) if as_json else _text(reply))


def _bulk(data: str | None, file: str | None) -> bytes:
    if data is not None and file is not None:
        raise ConfigError("--file", file, "must not be given together with --data")
    if file is None:
        return (data or "").encode()
    try:
        return sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
    except OSError as exc:
        raise ConfigError("--file", file, f"cannot be read: {exc.strerror}") from None


def _request(type_: str, fields: Sequence[str], data: bytes, app_dir: str) -> Message:
    """The message to send. Raises ConfigError, or PluginError if the class cannot be loaded."""
    from mpmsgr import Message
    from mpmsgr.dispatch.payload import to_message

    if type_[:1].isdecimal():
        parts = split_fields(fields, _PARTS)
        front, middle = (parts.get(name, "").encode() for name in _PARTS)
        return Message(_number(type_), front, middle, data)
    return to_message(build(load_class(type_, app_dir), fields), data)


def _number(text: str) -> int:
    try:
        return _TYPE.read(text)
    except ValueError:
        raise ConfigError("TYPE", text, "must be 1 to 0xffff, or MODULE:CLASS") from None


def load_class(spec: str, app_dir: str) -> type:
    """The message class ``MODULE:CLASS`` or ``MODULE.CLASS``. Raises ConfigError, PluginError."""
    module_name, colon, name = spec.partition(":")
    if not colon:
        module_name, _, name = spec.rpartition(".")
    if not module_name or not name:
        raise ConfigError("TYPE", spec, "must be a number, MODULE:CLASS or MODULE.CLASS")
    cls = getattr(_import(module_name, app_dir), name, None)
    if not isinstance(cls, type) or not hasattr(cls, "message_type"):
        raise ConfigError("TYPE", spec, f"must be a class with @message in {module_name}")
    return cls


def _import(name: str, app_dir: str) -> ModuleType:
    if app_dir not in sys.path:
        sys.path.insert(0, app_dir)
    try:
        return importlib.import_module(name)
    except Exception as exc:
        missing = exc.name if isinstance(exc, ModuleNotFoundError) else None
        if missing and f"{name}.".startswith(f"{missing}."):
            raise PluginError(name, f"there is no module {missing} in {app_dir}") from None
        from mpmsgr.dispatch.plugins import traceback_of

        raise PluginError(name, traceback_of(exc)) from None


async def _exchange(address: str, request: Message, timeout_s: float) -> Message:
    """Connect, ask, answer: *timeout_s* for all of it."""
    import mpmsgr
    from mpmsgr.dispatch.payload import decode

    started = time.monotonic()
    async with mpmsgr.connect(address, timeout=timeout_s) as con:
        left_s = max(timeout_s - (time.monotonic() - started), 0.001)
        reply: Message = await con.request(request, timeout=left_s)
    decode(reply)
    return reply


def _as_dict(reply: Message, took_s: float) -> dict[str, Any]:
    parts: dict[str, Any] = {"type": reply.type, "tid": reply.tid, "took_s": round(took_s, 6)}
    if _has_value(reply):
        parts["value"] = _plain(reply.obj)
        return parts | _part("data", reply.data)
    return (
        parts
        | _part("front", reply.front)
        | _part("middle", reply.middle)
        | _part("data", reply.data)
    )


def _has_value(reply: Message) -> bool:
    from mpmsgr.dispatch.payload import VALUE

    return reply.obj is not None or reply.version == VALUE


def _part(name: str, content: Any) -> dict[str, str]:
    """One part: text where it is text, else hexadecimal under ``NAME_hex``."""
    text = _as_text(bytes(content))
    return {name: text} if text is not None else {f"{name}_hex": bytes(content).hex()}


def _as_text(content: bytes) -> str | None:
    try:
        text = content.decode()
    except UnicodeDecodeError:
        return None
    return text if all(c.isprintable() or c in "\n\t\r" for c in text) else None


def _plain(value: Any) -> Any:
    """*value* as JSON has it: dataclasses as objects, bytes as text or hexadecimal."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = dataclasses.asdict(value)
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, (bytes, memoryview)):
        text = _as_text(bytes(value))
        return bytes(value).hex() if text is None else text
    return value


def _text(reply: Message) -> str:
    """The reply for people: the value, or each part that is not empty on a line of its own."""
    if _has_value(reply):
        lines = [_value_text(reply.obj)]
        parts = _part("data", reply.data)
    else:
        lines = [f"type {reply.type:#x}"]
        parts = _part("front", reply.front) | _part("middle", reply.middle)
        parts |= _part("data", reply.data)
    return "\n".join([*lines, *(f"{name}: {text}" for name, text in parts.items() if text)])


def _value_text(value: Any) -> str:
    if dataclasses.is_dataclass(value):
        return repr(value)
    plain = _plain(value)
    return plain if isinstance(plain, str) else json.dumps(plain, ensure_ascii=False, default=str)
