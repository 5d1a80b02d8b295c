"""The baseline's processes: a pyzmq ROUTER/DEALER broker, and a worker behind it.

    python -m bench.zmq_broker broker HOW FRONT BACK COPY
    python -m bench.zmq_broker worker BACK COPY

HOW is proxy: `zmq.proxy`, the loop in C; poll: the broker of the ZeroMQ guide, which polls, then
moves one message per readable socket; or drain: up to 100 from each before it polls again.
COPY is copy (cheaper for small messages) or nocopy (cheaper for large ones).
"""

from __future__ import annotations

import sys

import zmq

from bench.children import end_with_parent

_AT_ONCE = {"poll": 1, "drain": 100}


def broker(how: str, front_address: str, back_address: str, copy: bool) -> None:
    """Carry messages between clients and workers for ever."""
    context = zmq.Context()
    front = _bound(context.socket(zmq.ROUTER), front_address)
    back = _bound(context.socket(zmq.DEALER), back_address)
    if how == "proxy":
        zmq.proxy(front, back)
    else:
        _carry(front, back, _AT_ONCE[how], copy)


def _bound(socket: zmq.Socket[bytes], address: str) -> zmq.Socket[bytes]:
    socket.set_hwm(0)
    socket.bind(address)
    return socket


def _carry(front: zmq.Socket[bytes], back: zmq.Socket[bytes], at_once: int, copy: bool) -> None:
    poller = zmq.Poller()
    poller.register(front, zmq.POLLIN)
    poller.register(back, zmq.POLLIN)
    while True:
        ready = dict(poller.poll())
        if front in ready:
            _move(front, back, at_once, copy)
        if back in ready:
            _move(back, front, at_once, copy)


def _move(source: zmq.Socket[bytes], target: zmq.Socket[bytes], at_most: int, copy: bool) -> None:
    try:
        for _ in range(at_most):
            target.send_multipart(source.recv_multipart(zmq.NOBLOCK, copy), copy=copy)
    except zmq.Again:
        pass


def worker(address: str, copy: bool) -> None:
    """Send every message back, for ever."""
    socket = zmq.Context().socket(zmq.DEALER)
    socket.set_hwm(0)
    socket.connect(address)
    while True:
        socket.send_multipart(socket.recv_multipart(0, copy), copy=copy)


def main() -> None:
    """Become what the arguments say."""
    end_with_parent()
    role, *rest, copy = sys.argv[1:]
    if role == "broker":
        how, front_address, back_address = rest
        broker(how, front_address, back_address, copy == "copy")
    else:
        worker(rest[0], copy == "copy")


if __name__ == "__main__":
    main()
