"""``mpmsgr send``: one request, its reply."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import click

from mpmsgr.cli import params
from mpmsgr.cli.exchange import exchange, show_reply
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
    show_reply(*exchange(address, request, timeout_s), as_json)


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
    try:
        return to_message(build(load_class(type_, app_dir), fields), data)
    except TypeError as exc:
        raise ConfigError("FIELD=VALUE", " ".join(fields), str(exc)) from None


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
