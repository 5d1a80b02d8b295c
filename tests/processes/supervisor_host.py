"""Runs a supervisor over fake children: one argument, JSON with settings, limits and commands."""

from __future__ import annotations

import json
import sys

from mpmsgr.config import Settings
from mpmsgr.supervisor import run
from mpmsgr.supervisor.facts import Limits
from mpmsgr.supervisor.spawn import Commands

if __name__ == "__main__":
    told = json.loads(sys.argv[1])
    sys.exit(
        run(
            Settings.from_dict(told["settings"]),
            commands=Commands(**told["commands"]),
            limits=Limits(**told["limits"]),
        )
    )
