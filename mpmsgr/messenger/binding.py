"""Where peers find an endpoint: what it listens on, and the address they are told."""

from __future__ import annotations

import socket
from collections.abc import Collection

from mpmsgr.errors import ConfigError, MessengerError
from mpmsgr.messenger.accepter import Accepter, bind_sockets
from mpmsgr.messenger.driver import Driver
from mpmsgr.messenger.transport import PipeTransport
from mpmsgr.session.endpoint import Endpoint
from mpmsgr.wire.address import EntityAddr, split_address


class Binding:
    """The listening sockets of *endpoint*.

    advertise: the ``HOST:PORT`` told to peers where it is not the bound one, given as text (raises
    ConfigError), kept as an address. addrs: those bound. accepters: of what is accepted on.
    """

    def __init__(self, endpoint: Endpoint, advertise: str | None) -> None:
        self.advertise = None if advertise is None else _resolved(advertise)
        self.addrs: list[EntityAddr] = []
        self.accepters: list[Accepter] = []
        self._endpoint = endpoint
        self._waiting: list[socket.socket] = []  # nobody accepts on them yet

    def listen(self, listeners: list[socket.socket]) -> list[EntityAddr]:
        """Take over listening sockets; the first one's address is ours. Returns all of them."""
        nonce = self._endpoint.addr.nonce
        self.addrs = [EntityAddr.from_socket(sock.getsockname(), nonce) for sock in listeners]
        self._endpoint.addr = (self.advertise or self.addrs[0])._replace(nonce=nonce)
        self._waiting += listeners
        return self.addrs

    def accept(self, driver: Driver) -> None:
        """Begin to accept on what is listened on; the connections are *driver*'s."""
        if not self._waiting:
            return
        accepter = Accepter(self._waiting, lambda: PipeTransport(driver, None))
        self._waiting = []
        self.accepters.append(accepter)
        accepter.start()

    def elsewhere(self, avoid_ports: Collection[int]) -> list[socket.socket]:
        """Listening sockets on the same hosts, at other ports, none of *avoid_ports*.

        Raises ConfigError where none is free, MessengerError where nothing is bound.
        """
        if not self.addrs:
            raise MessengerError("the messenger is not bound: there is nothing to move")
        avoid = {*avoid_ports, *(addr.port for addr in self.addrs)}
        return bind_sockets([_any_port(addr) for addr in self.addrs], avoid)

    async def stop(self) -> None:
        """No new connections, whoever else holds copies of the listening descriptors."""
        for accepter in self.accepters:
            await accepter.stop()
        self.accepters.clear()
        for listener in self._waiting:
            listener.close()
        self._waiting = []


def _resolved(advertise: str) -> EntityAddr:
    """The address of ``HOST:PORT``, HOST resolved if it is a name. Raises ConfigError."""
    try:
        host, port, _nonce = split_address(advertise)
        name = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][4]
    except (ValueError, OSError) as err:
        must = f"must be HOST:PORT that resolves ({err})"
        raise ConfigError("advertise", advertise, must) from None
    return EntityAddr.from_socket(name)


def _any_port(addr: EntityAddr) -> str:
    """The bind that takes any free port of *addr*'s host."""
    host = f"[{addr.host}]" if ":" in addr.host else addr.host
    return f"{host}:0"
