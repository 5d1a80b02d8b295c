"""What the kernel tells of a TCP connection: TCP_INFO."""

from __future__ import annotations

import socket
import sys
from typing import Any

_SIZE = 168  # up to tcpi_delivery_rate, Linux 4.9; a longer one is cut, a shorter one read as is

#: Offsets in bytes, source: struct tcp_info, include/uapi/linux/tcp.h. Times are microseconds.
_U32 = {"rtt_us": 68, "rttvar_us": 72, "cwnd": 80, "retransmits_total": 100, "unsent_bytes": 144}
_U64 = {"acked_bytes": 120, "received_bytes": 128}


def read_tcp_info(sock: Any) -> dict[str, int]:
    """Round-trip time, window, retransmits and bytes of *sock*; {} where it has none.

    Bytes are those of this connection: what the peer has acknowledged, what came.
    """
    if not hasattr(socket, "TCP_INFO") or sys.byteorder != "little":
        return {}
    try:
        return parse_tcp_info(sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _SIZE))
    except OSError:
        return {}


def parse_tcp_info(data: bytes) -> dict[str, int]:
    """The fields of a ``struct tcp_info`` that are in *data*."""
    whole = memoryview(data[: len(data) // 8 * 8])
    words, longs = whole.cast("I"), whole.cast("Q")
    found = {name: words[at // 4] for name, at in _U32.items() if at + 4 <= len(whole)}
    return found | {name: longs[at // 8] for name, at in _U64.items() if at + 8 <= len(whole)}
