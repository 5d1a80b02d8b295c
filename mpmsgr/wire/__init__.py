"""Bytes <-> values. No I/O, no clock.

Values shared by every protocol version live here; `mpmsgr.wire.v1` holds the bytes of msgr v1.
"""
