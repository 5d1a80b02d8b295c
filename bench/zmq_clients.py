"""Clients of the baseline: DEALER sockets, each with a number of requests in flight."""

from __future__ import annotations

import zmq

_TIMEOUT_S = 30


class ZmqClients:
    """*clients* DEALER sockets over one TCP connection each, driven by one thread.

    Every reply must be the request that is due.
    """

    def __init__(self, address: str, clients: int, in_flight: int, size: int) -> None:
        self._in_flight = in_flight
        self._filler = bytes(range(256)) * (size // 256 + 1)
        self._size = size
        self._context = zmq.Context()
        self._sockets = [self._context.socket(zmq.DEALER) for _ in range(clients)]
        self._poller = zmq.Poller()
        for socket in self._sockets:
            socket.set_hwm(0)
            socket.linger = 0
            socket.connect(address)
            self._poller.register(socket, zmq.POLLIN)

    def drive(self, requests: int) -> int:
        """Make *requests* round trips per client; returns how many there were in all."""
        payloads = [self._payload(serial) for serial in range(requests)]
        answered = dict.fromkeys(self._sockets, 0)
        for socket in self._sockets:
            for payload in payloads[: self._in_flight]:
                socket.send(payload)
        left = requests * len(self._sockets)
        while left:
            ready = self._poller.poll(_TIMEOUT_S * 1000)
            if not ready:
                raise TimeoutError(f"no reply for {_TIMEOUT_S} s")
            for socket, _ in ready:
                done = self._exchange(socket, payloads, answered[socket])
                left -= done - answered[socket]
                answered[socket] = done
        return requests * len(self._sockets)

    def close(self) -> None:
        """Close all sockets."""
        self._context.destroy(linger=0)

    def _payload(self, serial: int) -> bytes:
        return (serial.to_bytes(8, "little") + self._filler)[: self._size]

    def _exchange(self, socket: zmq.Socket[bytes], payloads: list[bytes], done: int) -> int:
        """Take what has arrived, send as many new requests; returns the replies so far."""
        try:
            while True:
                if socket.recv(zmq.NOBLOCK) != payloads[done]:
                    raise RuntimeError(f"reply {done} is not what was sent")
                if done + self._in_flight < len(payloads):
                    socket.send(payloads[done + self._in_flight])
                done += 1
        except zmq.Again:
            return done
