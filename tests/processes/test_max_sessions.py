"""`max_sessions` of a real server: who is refused, who is not, and what an operator sees of it."""

from __future__ import annotations

from mpmsgr.wire.v1.tags import Tag
from tests.processes.admin_asking import ask, mpmsgr
from tests.processes.pool_serving import Serve
from tests.raw_peer import HELLO_SIZE, RawPeer

MODULES = {
    "nothing": """
        from mpmsgr import handles

        @handles(0x8001)
        def nothing(con, m): ...
    """
}


def is_refused(server: Serve, nonce: int) -> bool:
    """Whether the server hangs up on a new peer without a reply."""
    with RawPeer(server.address, nonce) as peer:
        peer.send(peer.hello() + peer.connect())
        return len(peer.read_to_end()) == HELLO_SIZE


def test_a_full_server() -> None:
    flags = ("--max-sessions", "2")
    with (
        Serve(MODULES, workers=1, flags=flags) as server,
        RawPeer(server.address, nonce=1) as one,
        RawPeer(server.address, nonce=2) as other,
    ):
        one.handshake()
        other.handshake()
        one.reset()
        assert is_refused(server, nonce=3), "who has no connection keeps its place"
        assert is_refused(server, nonce=4)
        server.until(lambda: server.lines("WARNING", "max_sessions"), "a line of it")
        assert len(server.lines("max_sessions", "there are 2, at most 2 may be")) == 1
        with RawPeer(server.address, nonce=1) as again:
            again.handshake(Tag.SEQ, connect_seq=2, global_seq=2)

            status = ask(server, "status")
            assert (status["sessions"], status["max_sessions"]) == ({"open": 2}, 2)
            assert status["sessions_refused"] == 2
            assert mpmsgr(server, "health").returncode == 0, "it serves those it has"

            ask(server, "config set max_sessions 3")
            with RawPeer(server.address, nonce=3) as third:
                third.handshake()
                told = ask(server, "perf dump")["messenger"]
        assert (told["sessions"], told["max_sessions"]) == ({"open": 3}, 3)
        assert told["sessions_refused_total"] == {"lame_duck": 0, "max_sessions": 2}
