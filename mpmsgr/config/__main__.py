"""``python -m mpmsgr.config`` prints the reference page of the options."""

from __future__ import annotations

from mpmsgr.config.reference import reference_page

if __name__ == "__main__":
    print(reference_page(), end="")
