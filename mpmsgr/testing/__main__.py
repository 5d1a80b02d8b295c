"""``python -m mpmsgr.testing PID VERB...``: the command `mpmsgr`, which ends with its parent."""

from __future__ import annotations

import sys

from mpmsgr.process import die_with_parent


def main() -> None:
    """Whatever happens to the tests, whose PID it is (0: unknown), nothing of theirs is left."""
    parent = int(sys.argv.pop(1))
    if parent:
        die_with_parent(parent)
    from mpmsgr.cli.main import main

    main()


if __name__ == "__main__":
    main()
