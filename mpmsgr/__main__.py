"""``python -m mpmsgr`` is the command ``mpmsgr``."""

from __future__ import annotations

from mpmsgr.cli.main import main

if __name__ == "__main__":
    main()
