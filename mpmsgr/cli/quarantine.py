"""``mpmsgr quarantine``: messages that killed their workers, or that a handler called poison."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import click

from mpmsgr.admin.text import table
from mpmsgr.cli import params
from mpmsgr.cli.content import part_as_dict, value_as_json, value_text, visible
from mpmsgr.cli.exchange import exchange, show_reply
from mpmsgr.cli.verbs import Verbs
from mpmsgr.config import kinds, load_settings
from mpmsgr.dispatch.payload import VALUE, PayloadError, unpack
from mpmsgr.errors import ConfigError
from mpmsgr.pool.spool import Listing, Quarantined, Spool, UnknownItem
from mpmsgr.wire.message import Message

_PARTS = ("front", "middle", "data")
_HEXDUMP_BYTES = 1024  # of a part, unless all of it is asked for


@click.group(
    "quarantine",
    cls=Verbs,
    subcommand_metavar="VERB [ARGS]...",
    no_args_is_help=False,
    invoke_without_command=True,
)
@click.pass_context
def command(ctx: click.Context) -> None:
    """Messages that were given up: they killed workers again and again, or are poison.

    A server keeps them in a directory, one file each; these verbs work whether it runs or not.
    """
    if ctx.invoked_subcommand is None:
        raise click.UsageError(f"a verb is missing, one of {', '.join(command.commands)}", ctx)


_directory = click.option(
    "--dir",
    "directory",
    metavar="DIR",
    type=params.Value(kinds.Folder(exists=True)),
    help="Directory of the quarantine.  [default: quarantine_dir, as `serve` would read it here]",
)
_id = click.argument("id_", metavar="ID")


@command.command("list")
@_directory
@params.as_json
def list_(directory: str | None, as_json: bool) -> None:
    """List the messages, oldest first.

    Files that cannot be read are named on stderr.
    """
    spool = _spool(directory)
    listing = spool.list()
    if as_json:
        click.echo(json.dumps(_listing_as_dict(spool, listing)))
        return
    if listing.items:
        click.echo(table([_row(item) for item in listing.items]))
    else:
        click.echo(f"{spool.directory}: no message in quarantine")
    for unreadable in listing.unreadable:
        click.echo(f"mpmsgr quarantine: {visible(str(unreadable))}", err=True)


@command.command("show")
@_id
@click.option("--full", is_flag=True, help="Dump long parts to their end.")
@_directory
@params.as_json
def show(id_: str, full: bool, directory: str | None, as_json: bool) -> None:
    """Show all of one message: why it is here, traceback, content.

    ID may be the beginning of an id. A part is shown as msgpack where it is that, else as bytes.
    """
    item = _get(_spool(directory), id_)
    if as_json:
        click.echo(json.dumps(_item_as_dict(item), default=str))
    else:
        click.echo("\n".join(_item_text(item, None if full else _HEXDUMP_BYTES)))


@command.command("replay")
@_id
@click.option(
    "--to",
    "address",
    metavar="ADDR",
    type=params.ADDRESS,
    required=True,
    help="Server to send it to: HOST:PORT or HOST:PORT/NONCE.",
)
@params.timeout(5.0)
@click.option("--keep", is_flag=True, help="Leave it in quarantine whatever the reply.")
@_directory
@params.as_json
def replay(
    id_: str, address: str, timeout_s: float, keep: bool, directory: str | None, as_json: bool
) -> None:
    """Send one message again and print the reply.

    It goes out as a new message of a new client. Answered, it leaves the quarantine; it stays with
    an error reply, and with none within --timeout: a message whose handler never replies is to be
    discarded by hand.
    """
    spool = _spool(directory)
    item = _get(spool, id_)
    if item.truncated:
        raise ConfigError("ID", item.id, f"its {item.size} bytes were too many to be kept")
    answer = exchange(address, _again(item), timeout_s)
    if not keep:
        with suppress(UnknownItem):  # discarded meanwhile
            spool.discard(item.id)
    show_reply(*answer, as_json)


@command.command("discard")
@click.argument("ids", metavar="ID...", nargs=-1)
@click.option("--all", "everything", is_flag=True, help="All of them, unreadable ones as well.")
@_directory
def discard(ids: tuple[str, ...], everything: bool, directory: str | None) -> None:
    """Delete messages and print their ids.

    Nothing is deleted if one ID is wrong. Files that are not of the quarantine are left alone.
    """
    if bool(ids) == everything:
        given = "both" if everything else "neither"
        raise ConfigError("ID, --all", given, "exactly one of them must be given")
    spool = _spool(directory)
    try:
        gone = spool.discard(*(spool.ids() if everything else ids))
    except UnknownItem as exc:
        raise ConfigError("ID", exc.id, exc.allowed) from None
    for id_ in gone:
        click.echo(id_)


def _spool(directory: str | None) -> Spool:
    return Spool(directory or _configured())


def _configured() -> str:
    """The directory a server started here would use. Raises ConfigError if none is configured."""
    directory = load_settings({}, os.environ, None, auto_workers=lambda: 1).quarantine_dir
    if directory is None:
        must = "must be given, or quarantine_dir in mpmsgr.toml, or MPMSGR_QUARANTINE_DIR"
        raise ConfigError("--dir", "", must)
    return directory


def _get(spool: Spool, id_: str) -> Quarantined:
    try:
        return spool.get(id_)
    except UnknownItem as exc:
        raise ConfigError("ID", exc.id, exc.allowed) from None


def _again(item: Quarantined) -> Message:
    """The message as a new one: only what its first sender decided about it."""
    m = item.message()
    return Message(
        m.type,
        m.front,
        m.middle,
        m.data,
        priority=m.priority,
        version=m.version,
        compat_version=m.compat_version,
        data_off=m.data_off,
    )


def _listing_as_dict(spool: Spool, listing: Listing) -> dict[str, Any]:
    return {
        "directory": str(spool.directory),
        "messages": [_facts(item) for item in listing.items],
        "unreadable": [{"name": u.name, "reason": u.reason} for u in listing.unreadable],
    }


def _facts(item: Quarantined) -> dict[str, Any]:
    """What a listing has of an item; when in ISO 8601, UTC."""
    when = datetime.fromtimestamp(item.at, UTC).isoformat()
    facts = dataclasses.asdict(item)
    del facts["raw"], facts["traceback"]
    return {"id": facts.pop("id"), "when": when} | facts


def _item_as_dict(item: Quarantined) -> dict[str, Any]:
    """An item with its traceback and, unless truncated, its parts, as `send` prints a reply's."""
    shown = _facts(item) | {"traceback": item.traceback}
    if item.truncated:
        return shown
    m = item.message()
    for name in _PARTS:
        shown |= part_as_dict(name, getattr(m, name))
    if (value := _value_in_front(m)) is not None:
        shown["value"] = value_as_json(value)
    return shown


def _value_in_front(m: Message) -> Any:
    """What front says in msgpack, None if it is something else.

    Nearly any bytes begin with some msgpack, so without the version that says so only a map, as
    the fields of a class are, or a list is believed.
    """
    try:
        value = unpack(m)
    except PayloadError:
        return None
    return value if m.version == VALUE or isinstance(value, dict | list) else None


def _row(item: Quarantined) -> dict[str, str]:
    cause = f"{item.cause} (content not kept)" if item.truncated else item.cause
    return {
        "ID": item.id,
        "WHEN": f"{datetime.fromtimestamp(item.at, UTC):%Y-%m-%d %H:%M:%SZ}",
        "PEER": f"{item.entity} {visible(item.peer)}",
        "TYPE": f"{item.type:#x}",
        "TID": str(item.tid),
        "ATTEMPTS": str(item.attempts),
        "CAUSE": visible(cause),
    }


def _item_text(item: Quarantined, limit: int | None) -> Iterator[str]:
    """An item for people: facts, traceback, parts."""
    about = {
        "id": item.id,
        "when": datetime.fromtimestamp(item.at, UTC).isoformat(),
        "peer": f"{item.entity} at {item.peer}, nonce {item.nonce}, session {item.session}",
        "message": f"type {item.type:#x}, version {item.version}, tid {item.tid}, seq {item.seq},"
        f" priority {item.priority}, {item.size} bytes",
        "attempts": str(item.attempts),
        "cause": item.cause,
    }
    if item.signal:
        about["signal"] = _signal_text(item.signal)
    yield from (f"{name:<9} {visible(text)}" for name, text in about.items())
    if item.traceback:
        yield from ("", *map(visible, item.traceback.rstrip().splitlines()))
    if item.truncated:
        yield from ("", "Its content was too large to be kept.")
        return
    m = item.message()
    for name in _PARTS:
        if content := getattr(m, name):
            yield from ("", *_part_text(m, name, content, limit))


def _signal_text(number: int) -> str:
    try:
        return f"{number} ({signal.Signals(number).name})"
    except ValueError:
        return str(number)


def _part_text(m: Message, name: str, content: bytes, limit: int | None) -> Iterator[str]:
    value = _value_in_front(m) if name == "front" else None
    if value is not None:
        yield f"{name}, {len(content)} bytes of msgpack:"
        yield visible(value_text(value))
        return
    yield f"{name}, {len(content)} bytes:"
    yield from _hexdump(content[:limit])
    if limit is not None and len(content) > limit:
        yield f"and {len(content) - limit} more, which --full shows"


def _hexdump(content: bytes) -> Iterator[str]:
    for at in range(0, len(content), 16):
        row = content[at : at + 16]
        text = "".join(chr(byte) if 0x20 <= byte < 0x7F else "." for byte in row)
        yield f"{at:08x}  {row.hex(' '):<47}  |{text}|"
