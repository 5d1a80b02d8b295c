"""A dispatcher that notes what it sees and where it runs, and lets everything pass."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from mpmsgr import Connection, Dispatcher, Message


class Witness(Dispatcher):
    """Appends one JSON line per message to the file *journal*."""

    def __init__(self, journal: str) -> None:
        """*journal* is a path; several workers may share it."""
        self.journal = Path(journal)

    def dispatch(self, con: Connection, m: Message) -> bool | None:
        """Note the message and pass it on."""
        seen = {"type": m.type, "seq": m.seq, "pid": os.getpid(), "command": sys.orig_argv}
        with self.journal.open("a") as journal:
            journal.write(json.dumps(seen) + "\n")
        return False
