"""``mpmsgr config``: the settings of a running server, where they came from, which can be set."""

from __future__ import annotations

from typing import Any

import click

from mpmsgr.cli.server import connect, of_server, show
from mpmsgr.cli.verbs import Verbs
from mpmsgr.config.settings import BY_NAME, no_such
from mpmsgr.errors import ConfigError

_COLUMNS = {"name": "NAME", "value": "VALUE", "origin": "FROM", "change": "CHANGE"}
_DIFFERENCES = {"name": "NAME", "value": "VALUE", "default": "DEFAULT", "origin": "FROM"}


@click.group("config", cls=Verbs, no_args_is_help=False, subcommand_metavar="show|get|set|diff")
def command() -> None:
    """Show and change the settings of a running server."""


@command.command("show")
@of_server
def show_all(as_json: bool, **which: Any) -> None:
    """List every setting.

    FROM is who said it; CHANGE what a change takes: `config set`, a reload, or a restart.
    """
    show(_rows(which), as_json, _COLUMNS)


@command.command("get")
@click.argument("name", metavar="NAME")
@of_server
def get(name: str, as_json: bool, **which: Any) -> None:
    """Print one setting."""
    _check(name)
    (row,) = [row for row in _rows(which) if row["name"] == name]
    show(row if as_json else row["value"], as_json)


@command.command("diff")
@of_server
def diff(as_json: bool, **which: Any) -> None:
    """List the settings that are not at their defaults."""
    rows = [row for row in _rows(which) if row["origin"] != "default"]
    show([row for row in rows if row["value"] != row["default"]], as_json, _DIFFERENCES)


@command.command("set")
@click.argument("name", metavar="NAME")
@click.argument("value", metavar="VALUE")
@of_server
def set_one(name: str, value: str, as_json: bool, **which: Any) -> None:
    """Change a setting now, until the next start. `config show` says which can be."""
    _check(name)
    BY_NAME[name].read(value, name)
    with connect(**which) as client:
        done = client.call("config_set", name=name, value=value)
    show(done if as_json else f"{done['name']} = {done['value']}", as_json)


def _rows(which: dict[str, Any]) -> list[dict[str, Any]]:
    with connect(**which) as client:
        rows: list[dict[str, Any]] = client.call("config")
        return rows


def _check(name: str) -> None:
    if name not in BY_NAME:
        raise ConfigError("NAME", name, no_such(name, BY_NAME))
