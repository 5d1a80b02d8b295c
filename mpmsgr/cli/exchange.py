"""One request and its reply, as a verb sends the one and prints the other."""

from __future__ import annotations

import asyncio
import json
import time
from typing import TYPE_CHECKING, Any

import click

from mpmsgr.cli.content import part_as_dict, value_as_json, value_text

if TYPE_CHECKING:
    from mpmsgr import Message


def exchange(address: str, request: Message, timeout_s: float) -> tuple[Message, float]:
    """Connect to *address* and ask; returns the reply, and the seconds it all took.

    *timeout_s* is for all of it. Raises ConnectError, RequestTimeout, SessionReset, RemoteError.
    """
    started = time.monotonic()
    reply = asyncio.run(_exchange(address, request, timeout_s))
    return reply, time.monotonic() - started


async def _exchange(address: str, request: Message, timeout_s: float) -> Message:
    import mpmsgr
    from mpmsgr.dispatch.payload import decode

    started = time.monotonic()
    async with mpmsgr.connect(address, timeout=timeout_s) as con:
        left_s = max(timeout_s - (time.monotonic() - started), 0.001)
        reply: Message = await con.request(request, timeout=left_s)
    decode(reply)
    return reply


def show_reply(reply: Message, took_s: float, as_json: bool) -> None:
    """Print it: as JSON; or the value, or each part that is not empty on a line of its own."""
    click.echo(json.dumps(_as_dict(reply, took_s)) if as_json else _text(reply))


def _as_dict(reply: Message, took_s: float) -> dict[str, Any]:
    about: dict[str, Any] = {"type": reply.type, "tid": reply.tid, "took_s": round(took_s, 6)}
    if _has_value(reply):
        about["value"] = value_as_json(reply.obj)
    return about | _parts(reply)


def _text(reply: Message) -> str:
    first = value_text(reply.obj) if _has_value(reply) else f"type {reply.type:#x}"
    return "\n".join([first, *(f"{name}: {text}" for name, text in _parts(reply).items() if text)])


def _parts(reply: Message) -> dict[str, str]:
    """What of it is not in its value."""
    names = ("data",) if _has_value(reply) else ("front", "middle", "data")
    parts: dict[str, str] = {}
    for name in names:
        parts |= part_as_dict(name, getattr(reply, name))
    return parts


def _has_value(reply: Message) -> bool:
    from mpmsgr.dispatch.payload import VALUE

    return reply.obj is not None or reply.version == VALUE
