"""``mpmsgr serve``: every flag comes from the table of options."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from mpmsgr.cli.exit_codes import ExitCode
from mpmsgr.config import DEFAULT_FILE, OPTIONS, Option, Settings, load_settings, origins_of
from mpmsgr.config.kinds import Switch
from mpmsgr.errors import ConfigError, PluginError

_HELP = """\
Serve MODULE[:ATTR]...: a Dispatcher class or instance, or a module with @handles functions.

Prints one line "mpmsgr: ready on HOST:PORT (N workers)" on stderr when it can answer; TERM or
Ctrl-C stop it: no new sessions, what is in work is finished, replies reach their peers. HUP reads
the configuration again and renews the workers.
Flags win over the environment (MPMSGR_*), that over the file, that over the defaults.
"""


def serve(config: str | None, print_config: bool, check_config: bool, **flags: Any) -> int:
    """Load the settings and hand over to the supervisor; its exit code."""
    settings = settings_of(config, flags)
    origins = origins_of(flags, os.environ, file_of(config))
    if print_config:
        from mpmsgr.config.toml import config_text

        click.echo(config_text(settings, origins), nl=False)
    if check_config:
        check(settings)
    if print_config or check_config:
        return ExitCode.OK
    from mpmsgr import supervisor
    from mpmsgr.supervisor import exits

    def read() -> Settings:
        """The settings as they are now; *origins* follow."""
        again = settings_of(config, flags)
        origins.clear()
        origins.update(origins_of(flags, os.environ, file_of(config)))
        return again

    ended = supervisor.run(settings, reread=read, origins=origins)
    return ExitCode.CRASH_LOOP if ended == exits.ExitCode.CRASH_LOOP else ended


def settings_of(config: str | None, flags: dict[str, Any]) -> Settings:
    """The settings of one command line. Raises ConfigError."""
    from mpmsgr.supervisor.cpus import auto_workers

    settings = load_settings(flags, os.environ, file_of(config), auto_workers=auto_workers)
    if not settings.modules:
        raise ConfigError("MODULE[:ATTR]", "", "must name at least one dispatcher module")
    return settings


def check(settings: Settings) -> None:
    """Load the modules of *settings*, each in a process of its own.

    Raises PluginError; ConfigError for what this machine does not have.
    """
    from mpmsgr.admin import plugins
    from mpmsgr.supervisor.affinity import cpus_of

    cpus_of(settings.cpu_affinity)
    specs = settings.modules, settings.io_modules
    rows, of_io = (plugins.check(s, settings.options, settings.app_dir) for s in specs)
    for row in [*rows, *of_io]:
        if row["error"]:
            raise PluginError(row["spec"], row["error"])
    for text in plugins.clashes(rows):
        raise PluginError(", ".join(settings.modules), text)
    click.echo("the configuration is good, and the modules can be loaded", err=True)


def file_of(config: str | None) -> Path | None:
    """The file of ``-c``."""
    return Path(config) if config else None


def _parameters() -> Iterator[click.Parameter]:
    yield click.Option(
        ["-c", "--config"],
        metavar="FILE",
        help=f"Configuration file.  [default: {DEFAULT_FILE}, if it exists]",
    )
    for option in OPTIONS:
        if option.flag:
            yield _flag(option)
    yield click.Option(
        ["--print-config"],
        is_flag=True,
        help="Print the settings as a configuration file, with who said each; start nothing.",
    )
    yield click.Option(
        ["--check-config"],
        is_flag=True,
        help="Check the settings, and that the modules can be loaded; start nothing.",
    )
    yield click.Argument(["modules"], nargs=-1, metavar="MODULE[:ATTR]...")


def _flag(option: Option) -> click.Option:
    default = option.shown_default
    if isinstance(option.kind, Switch):
        return click.Option(
            [option.flag, option.name], is_flag=True, default=None, help=option.help
        )
    return click.Option(
        [option.flag, option.name],
        metavar=option.metavar,
        multiple=option.repeats,
        help=option.help + (f"  [default: {default}]" if default else ""),
    )


command = click.Command("serve", callback=serve, params=list(_parameters()), help=_HELP)
