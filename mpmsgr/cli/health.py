"""``mpmsgr health``: is a running server well?"""

from __future__ import annotations

import click

from mpmsgr.admin.health import Check, progress, report
from mpmsgr.cli.exit_codes import ExitCode
from mpmsgr.cli.server import connect, of_server, show
from mpmsgr.errors import AdminError


@click.command("health")
@of_server
def command(run_dir: str | None, config: str | None, timeout_s: float, as_json: bool) -> int:
    """Print what must hold for a running server to be well, as /healthz?verbose does.

    Exits 1 when something does not hold: a probe for containers.
    """
    with connect(run_dir, config, timeout_s) as client:
        said = client.call("health")
        try:
            perf = client.ask("perf")
        except AdminError:
            perf = None
    checks = [Check(**check) for check in said["checks"]] + progress(perf)
    ok = all(check.ok for check in checks)
    if as_json:
        show({"ok": ok, "state": said["state"], "checks": [c._asdict() for c in checks]}, True)
    else:
        click.echo(report(checks), nl=False)
    return ExitCode.OK if ok else ExitCode.FAILED
