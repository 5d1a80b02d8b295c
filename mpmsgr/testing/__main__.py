"""``python -m mpmsgr.testing PID VERB...``: the command `mpmsgr`, which ends with its parent."""

from __future__ import annotations

import sys

from mpmsgr.process import die_with_parent


def main() -> None:
    """Whatever happens to the tests (PID), nothing of theirs is left."""
    die_with_parent(int(sys.argv.pop(1)))
    from mpmsgr.cli.main import main

    main()


if __name__ == "__main__":
    main()
