"""``mpmsgr version``: one line; with --json what it runs on."""

from __future__ import annotations

import json

import click

import mpmsgr

_DISTRIBUTIONS = ("click", "crc32c", "msgpack", "psutil", "pyzmq", "uvloop")


@click.command("version")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
def command(as_json: bool) -> None:
    """Print the version of mpmsgr; with --json those of Python and the libraries as well."""
    version = mpmsgr.__version__
    click.echo(json.dumps(_details(version), indent=2) if as_json else f"mpmsgr {version}")


def _details(version: str) -> dict[str, str | None]:
    import platform

    return {
        "mpmsgr": version,
        "python": platform.python_version(),
        "platform": platform.platform(),
        **{name: _installed(name) for name in _DISTRIBUTIONS},
        "libzmq": _libzmq(),
    }


def _installed(distribution: str) -> str | None:
    """Its version, None if it is not installed (uvloop is for Linux only)."""
    from importlib import metadata

    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def _libzmq() -> str | None:
    try:
        import zmq
    except ImportError:
        return None
    return zmq.zmq_version()
