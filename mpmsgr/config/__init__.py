"""Configuration: one table of options, one frozen record of their values.

`Settings` is the record and the table at once: its fields carry type, default, flag and meaning.
Flags, ``MPMSGR_*`` names, the keys of ``mpmsgr.toml`` and the reference page derive from it;
`load_settings` reads them in their order, `resolve_ways` fills in what depends on the name,
`take_over` says what a reload can change.
"""

from __future__ import annotations

from mpmsgr.config.reload import take_over
from mpmsgr.config.settings import OPTIONS, Option, Settings
from mpmsgr.config.sources import DEFAULT_FILE, load_settings, origins_of
from mpmsgr.config.ways import Ways, resolve_ways

__all__ = [
    "DEFAULT_FILE",
    "OPTIONS",
    "Option",
    "Settings",
    "Ways",
    "load_settings",
    "origins_of",
    "resolve_ways",
    "take_over",
]
