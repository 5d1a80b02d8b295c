"""``mpmsgr new``: a plugin project one can run at once."""

from __future__ import annotations

import keyword
import sys
from importlib.machinery import PathFinder
from importlib.resources import files
from pathlib import Path

import click

from mpmsgr.errors import ConfigError

#: File of the project, by the template it is made of; NAME stands for the project's name.
FILES = {
    "plugin.py.tmpl": "NAME.py",
    "mpmsgr.toml.tmpl": "mpmsgr.toml",
    "test_plugin.py.tmpl": "test_NAME.py",
    "README.md.tmpl": "README.md",
}
_MARK = "NAME"


@click.command("new")
@click.argument("name", metavar="NAME")
def command(name: str) -> None:
    """Make the folder NAME with a plugin module, its configuration, a test and a README."""
    check_name(name)
    folder = Path(name)
    try:
        folder.mkdir()
    except FileExistsError:
        raise ConfigError("NAME", name, "must be new, there is such a file or folder") from None
    for template, file in FILES.items():
        (folder / file.replace(_MARK, name)).write_text(render(template, name), encoding="utf-8")
    made = ", ".join(file.replace(_MARK, name) for file in FILES.values())
    click.echo(f"{folder}/: {made}\nTry: cd {folder} && mpmsgr serve")


def render(template: str, name: str) -> str:
    """The text of *template* for the project *name*."""
    text = (files("mpmsgr.cli") / "templates" / template).read_text(encoding="utf-8")
    return text.replace(_MARK, name)


def check_name(name: str) -> None:
    """Raise ConfigError unless *name* can be a module that hides no other one."""
    if not (name.isidentifier() and name.isascii()) or keyword.iskeyword(name):
        raise ConfigError("NAME", name, "must be a Python module's name: letters, digits and _")
    elsewhere = [path for path in sys.path if path not in ("", str(Path.cwd()))]
    if name in sys.stdlib_module_names or PathFinder.find_spec(name, elsewhere):
        raise ConfigError("NAME", name, "must not be the name of a module that Python has already")
