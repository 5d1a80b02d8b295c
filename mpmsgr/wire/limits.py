"""Configured caps on every length a peer can claim (wire spec §15)."""

from __future__ import annotations

from dataclasses import dataclass

from mpmsgr.errors import ConfigError

MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class Limits:
    """Largest lengths accepted from a peer, in bytes; checked before anything is allocated.

    Raises ConfigError when a message within them could be 2^32 bytes long: the reference sums its
    lengths in 32 bits.
    """

    max_front: int = 16 * MIB
    max_middle: int = 16 * MIB
    max_data: int = 64 * MIB
    max_authorizer: int = 4096

    def __post_init__(self) -> None:
        """Refuse caps whose sum overflows."""
        total = self.max_front + self.max_middle + self.max_data
        if total >> 32:
            allowed = "max_front + max_middle + max_data must be below 2^32"
            raise ConfigError("limits", total, allowed)

    def check(self, front: int, middle: int, data: int) -> None:
        """Raise ValueError if a message with parts of these lengths is too long to be sent.

        The peer's caps are not known, ours are the best guess: it would refuse a longer message,
        and a lossless session would repeat it for ever.
        """
        for part, size in (("front", front), ("middle", middle), ("data", data)):
            cap = getattr(self, f"max_{part}")
            if size > cap:
                raise ValueError(f"message {part} has {size} bytes: at most {cap} are accepted")
