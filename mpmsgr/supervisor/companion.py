"""What looks at a supervisor from its own loop: the admin socket, the service manager's notes."""

from __future__ import annotations

from mpmsgr.control import Packet
from mpmsgr.supervisor.child import Slot


class Companion:
    """Told by a `Supervisor` what goes on; every method does nothing here, and returns at once."""

    def told(self, slot: Slot, packet: Packet) -> None:
        """The child in *slot* sent a packet that is not about its own life."""

    def ended(self, slot: Slot) -> None:
        """The process in *slot* is gone."""

    def reloading(self) -> None:
        """A reload was asked for; what became of it is in the facts once they are settled."""

    def settled(self, now: float) -> float:
        """Everything decided is done; returns when (monotonic seconds) to call this at the latest.

        Called each time before the supervisor waits.
        """
        return float("inf")

    def close(self) -> None:
        """The supervisor ends."""
