"""``mpmsgr doctor``: what this machine gives a server, and what to do about it."""

from __future__ import annotations

import click

from mpmsgr.cli import params
from mpmsgr.cli.server import show


@click.command("doctor")
@params.as_json
def command(as_json: bool) -> None:
    """Look at this machine as a server would find it: versions, limits, kernel, memory, CPUs.

    Lines with "!" have advice below them. Changes nothing, asks no server; always exits 0.
    """
    from mpmsgr.admin.doctor import examine, report

    findings = examine()
    if as_json:
        show([finding._asdict() for finding in findings], True)
    else:
        click.echo(report(findings))
