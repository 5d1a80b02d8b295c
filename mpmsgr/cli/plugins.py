"""``mpmsgr plugins``: installed dispatchers, and whether some can be loaded."""

from __future__ import annotations

import os
from typing import Any

import click

from mpmsgr.cli import params
from mpmsgr.cli.exit_codes import ExitCode
from mpmsgr.cli.serve import file_of
from mpmsgr.cli.server import show
from mpmsgr.cli.verbs import Verbs
from mpmsgr.config import load_settings
from mpmsgr.errors import ConfigError

_COLUMNS = {
    "name": "NAME",
    "module": "MODULE",
    "distribution": "DISTRIBUTION",
    "version": "VERSION",
}


@click.group("plugins", cls=Verbs, no_args_is_help=False, subcommand_metavar="list|check")
def command() -> None:
    """List the installed plugins, or check some."""


@command.command("list")
@params.as_json
def list_all(as_json: bool) -> None:
    """List what is installed under the entry point group mpmsgr.dispatchers.

    Each can be served by its name, where no module of that name is in the way.
    """
    from mpmsgr.admin.plugins import installed

    show(installed(), as_json, _COLUMNS)


@command.command("check")
@click.argument("modules", nargs=-1, metavar="[MODULE[:ATTR]]...")
@click.option("-c", "--config", metavar="FILE", help="Configuration file with modules, options.")
@click.option("--app-dir", metavar="DIR", help="Directory modules are found in.")
@params.as_json
def check_some(
    modules: tuple[str, ...], config: str | None, app_dir: str | None, as_json: bool
) -> int:
    """Load plugins, each in a process of its own, and print the message types they take.

    Also how those are handled that are not handled in the ordinary way. Those of the configuration,
    unless some are named. Exits 3 when one cannot be loaded, 1 when two of the same order take the
    same type.
    """
    from mpmsgr.admin.plugins import check, clashes

    flags = {"modules": modules, "app_dir": app_dir}
    settings = load_settings(flags, os.environ, file_of(config), auto_workers=lambda: 1)
    if not settings.modules:
        raise ConfigError("MODULE[:ATTR]", "", "must name at least one dispatcher module")
    rows = check(settings.modules, settings.options, settings.app_dir)
    double = list(clashes(rows))
    if as_json:
        show({"plugins": rows, "clashes": double}, True)
    else:
        click.echo("\n".join([*map(row_text, rows), *double]))
    if any(row["error"] for row in rows):
        return ExitCode.PLUGIN
    return ExitCode.FAILED if double else ExitCode.OK


def row_text(row: dict[str, Any]) -> str:
    """One plugin for people; types that are handled in a way of their own have a line each."""
    if row["error"]:
        return f"{row['spec']}: cannot be loaded: {row['error'].strip()}"
    handlers = row["handlers"]
    types = [f"{n:#x} {handlers.get(str(n), '')}".strip() for n in row["types"]]
    lines = [f"    {int(n):#x}: {handling_text(how)}" for n, how in row["handling"].items()]
    lines += [f"    {name} every {seconds:g} s" for name, seconds in row["every"].items()]
    named = row["spec"] if row["module"] == row["spec"] else f"{row['spec']} ({row['module']})"
    head = f"{named}: {row['kind']}, takes {', '.join(types) or 'every type'}"
    return "\n".join([head, *lines])


def handling_text(how: dict[str, Any]) -> str:
    """One `Handling` for people: what differs from the ordinary way."""
    parts = []
    if how["ordering"] == "none":
        parts.append("in no order")
    elif how["ordering"] == "key":
        key = how["key"]
        name = key if isinstance(key, str) else f"front[{key[0]}:{key[1]}]"
        parts.append(f"in order of {name}")
    if how["hard_s"]:
        parts.append(f"stacks after {how['soft_s']:g} s, killed after {how['hard_s']:g} s")
    if how["max_attempts"] is not None:
        parts.append(f"max_attempts {how['max_attempts'] or 'without limit'}")
    if how["streaming"]:
        parts.append("streaming")
    return ", ".join(parts)
