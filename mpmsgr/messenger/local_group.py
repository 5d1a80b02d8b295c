"""Groups of a messenger whose dispatchers run in its own process."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from mpmsgr.dispatch.connection import Connection
from mpmsgr.dispatch.group import Group, Service
from mpmsgr.dispatch.payload import to_message
from mpmsgr.messenger.groups import Groups
from mpmsgr.wire.crc import Bytes
from mpmsgr.wire.v1.parcel import encode_parts

if TYPE_CHECKING:
    from mpmsgr.messenger.messenger import Messenger
    from mpmsgr.session.session import Session


class LocalGroup(Group):
    """See `Group`. What a handler does to it is held until it completes, as what it sends is.

    session: whose connection it was got from.
    """

    def __init__(
        self, name: str, messenger: Messenger, groups: Groups, session: Session | None
    ) -> None:
        super().__init__(name)
        self._messenger = messenger
        self._groups = groups
        self._session = session

    def join(self) -> None:
        """See `Group.join`."""
        session = self._member()
        self._do(lambda: self._groups.join(self.name, session))

    def leave(self) -> None:
        """See `Group.leave`."""
        session = self._member()
        self._do(lambda: self._groups.leave(self.name, session))

    def _member(self) -> Session:
        if self._session is None:
            raise ValueError(f"group {self.name!r} was not got from a peer's connection")
        return self._session

    def send(self, m: Any, data: Bytes = b"") -> None:
        """See `Group.send`."""
        messenger = self._messenger
        m = to_message(m, data)
        m.tid = m.tid or messenger.sender.tids.next()
        head, body = encode_parts(m, messenger.name, limits=messenger.endpoint.limits)
        self._do(lambda: self._send(head, body), sum(map(len, body)))

    def _send(self, head: bytes, body: tuple[Bytes, ...]) -> None:
        driver = self._messenger.driver
        self._groups.send(driver, self.name, head, body)
        driver.run()

    def _do(self, act: Callable[[], object], nbytes: int = 0) -> None:
        run = self._messenger.holder()
        if run is None:
            act()
        else:
            run.hold(act, nbytes)


class LocalService(Service):
    """See `Service`."""

    def __init__(self, messenger: Messenger) -> None:
        self._messenger = messenger

    def group(self, name: str) -> Group:
        """See `Service.group`."""
        return self._messenger.group(name)

    def connection(self, id_: int) -> Connection:
        """See `Service.connection`."""
        return self._messenger.connection(id_)
