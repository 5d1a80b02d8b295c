"""Groups: connections that one push reaches, whichever worker it comes from."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

from mpmsgr.wire.crc import Bytes

if TYPE_CHECKING:
    from mpmsgr.dispatch.connection import Connection


class Group(ABC):
    """The connections of a service that joined *name*. Membership ends with the session."""

    def __init__(self, name: str) -> None:
        self.name = name

    @abstractmethod
    def join(self) -> None:
        """The connection it was got from is a member from now on. ValueError: from none."""

    @abstractmethod
    def leave(self) -> None:
        """It is no member any more. ValueError: it was got from none."""

    @abstractmethod
    def send(self, m: Any, data: Bytes = b"") -> None:
        """Push a Message, or an instance of a @message class, to every member.

        Encoded once. A member whose outbox is full is passed over, and that is counted.
        """


class Service(ABC):
    """The service itself, for what runs without a connection: functions with @every."""

    @abstractmethod
    def group(self, name: str) -> Group:
        """The group with *name*: to send to."""

    @abstractmethod
    def connection(self, id_: int) -> Connection:
        """The connection with *id_*: see `Connection.connection`."""
