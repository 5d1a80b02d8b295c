"""Which running server a verb means, and how its answer is printed."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
from click.decorators import FC

from mpmsgr.admin.client import TIMEOUT_S, AdminClient, find_server
from mpmsgr.admin.text import facts, table
from mpmsgr.cli import params
from mpmsgr.config import load_settings


def of_server(command: FC) -> FC:
    """The options that say which server: ``--run-dir``, ``-c``, ``--timeout``; and ``--json``."""
    for add in reversed(_OPTIONS):
        command = add(command)
    return command


_OPTIONS: tuple[Callable[[Any], Any], ...] = (
    click.option(
        "--run-dir",
        metavar="DIR",
        help="Run directory of the server; default: as configured, else that of the only one.",
    ),
    click.option("-c", "--config", metavar="FILE", help="Configuration file of the server."),
    params.timeout(TIMEOUT_S),
    params.as_json,
)


def connect(run_dir: str | None, config: str | None, timeout_s: float) -> AdminClient:
    """A connection to the server that is meant. Raises NoServerError, ConfigError."""
    return AdminClient(_run_dir(run_dir, config), timeout_s)


def _run_dir(said: str | None, config: str | None) -> Path:
    if said is None:
        file = Path(config) if config else None
        said = load_settings({}, os.environ, file, auto_workers=lambda: 1).run_dir
    return Path(said) if said is not None else find_server()


def show(value: Any, as_json: bool, columns: dict[str, str] | None = None) -> None:
    """Print *value*: rows as a table of *columns* (title by name; default all), a map as facts."""
    if as_json:
        click.echo(json.dumps(value))
    elif isinstance(value, list):
        click.echo(table(value, columns))
    elif isinstance(value, dict):
        click.echo(facts(value))
    else:
        click.echo(value)


def listing(
    verb: str, help_: str, columns: dict[str, str] | None = None, what: str = ""
) -> click.Command:
    """The command that prints what a server answers to *what*, or to *verb* itself."""

    @click.command(verb, help=help_)
    @of_server
    def command(run_dir: str | None, config: str | None, timeout_s: float, as_json: bool) -> None:
        with connect(run_dir, config, timeout_s) as client:
            show(client.call(what or verb), as_json, columns)

    return command
