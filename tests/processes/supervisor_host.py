"""Runs a supervisor over fake children: one argument, JSON with settings, limits and commands.

A reload reads "settings" anew, from the JSON file "reread": what it has goes over the first ones.
A fake worker of a slot has handled as many messages as the file "handled" of that slot says.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from mpmsgr.config import Settings
from mpmsgr.supervisor import run
from mpmsgr.supervisor.limits import Limits
from mpmsgr.supervisor.spawn import Commands


def main() -> int:
    """Serve until stopped."""
    told = json.loads(sys.argv[1])

    def reread() -> Settings:
        return Settings.from_dict(told["settings"] | json.loads(Path(told["reread"]).read_text()))

    def handled(slot: int) -> int:
        file = Path(f"{told['handled']}-{slot}")
        return int(file.read_text()) if file.exists() else 0

    return run(
        Settings.from_dict(told["settings"]),
        commands=Commands(**told["commands"]),
        limits=Limits(**told["limits"]),
        reread=reread,
        handled=handled if told["commands"] else None,
    )


if __name__ == "__main__":
    sys.exit(main())
