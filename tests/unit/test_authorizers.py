"""Authorizers that dispatchers get and verify: who is asked, and what is believed."""

from __future__ import annotations

import hmac
from collections.abc import Callable
from typing import Any

import pytest

from mpmsgr import Authorizer, ConnectError, Dispatcher, EntityAddr, Verification
from mpmsgr.dispatch.authorities import Authorities
from mpmsgr.session.auth import NoAuthentication
from mpmsgr.session.policy import STATEFUL_SERVER
from mpmsgr.wire.name import EntityType
from mpmsgr.wire.v1.handshake import BANNER
from mpmsgr.wire.v1.tags import Tag
from tests.dialogue import CLIENT, Dialogue, connect
from tests.unit.fast_harness import SLOW, Slow, everywhere, fast_service
from tests.unit.messenger_peers import client, connected, peer, place, serving
from tests.unit.pool_harness import ask, on_uvloop, text

PROTOCOL = 2


def proof(word: bytes, of: bytes) -> bytes:
    """What only who knows *word* can make."""
    return hmac.digest(word, of, "sha256")


class Secret(Dispatcher):
    """Both sides know *word*: the server asks for proof by a challenge, and proves it in turn.

    asked: what the server was presented; force: what the client was told each time.
    """

    def __init__(self, word: bytes, stale: bool = False) -> None:
        self.word, self.stale = word, stale
        self.asked: list[tuple[EntityAddr, int, int, bytes, bytes]] = []
        self.force: list[bool] = []
        self._riddles = 0

    def get_authorizer(self, peer_type: int, force_new: bool) -> Authorizer:
        self.force.append(force_new)
        return Authorizer(PROTOCOL, b"old" if self.stale and not force_new else b"hello")

    def answer_challenge(self, peer_type: int, challenge: bytes) -> Authorizer:
        return Authorizer(PROTOCOL, proof(self.word, challenge))

    def verify_reply(self, peer_type: int, reply: bytes) -> bool:
        return hmac.compare_digest(reply, proof(self.word, b"server"))

    def verify_authorizer(
        self, peer_addr: EntityAddr, peer_type: int, protocol: int, data: bytes, challenge: bytes
    ) -> Verification | None:
        self.asked.append((peer_addr, peer_type, protocol, data, challenge))
        if protocol != PROTOCOL:
            return None
        if data == b"hello":
            self._riddles += 1
            return Verification(False, b"riddle %d" % self._riddles, challenge=True)
        valid = bool(challenge) and hmac.compare_digest(data, proof(self.word, challenge))
        return Verification(valid, proof(self.word, b"server"))


# over real sessions


@everywhere
@on_uvloop
async def test_both_sides_prove_who_they_are(setting: str) -> None:
    server_side, client_side = Secret(b"sesame"), Secret(b"sesame")
    async with fast_service(server_side, setting, Slow()) as (server, messenger):
        messenger.add_dispatcher_tail(client_side)
        con = await connected(messenger, place(server))
        assert text(await ask(con, SLOW, b"1")) == "slow 1"
        assert (con.session.attempts, client_side.force) == (0, [False])
        first, second = server_side.asked
        (there,) = server.endpoint.registry
        assert first == (there.peer_addr, EntityType.CLIENT, PROTOCOL, b"hello", b"")
        assert second[3:] == (proof(b"sesame", b"riddle 1"), b"riddle 1")
        assert con.session.pipe is not None
        con.session.pipe.handle.abort()  # type: ignore[attr-defined]
        assert text(await ask(con, SLOW, b"2")) == "slow 2"
        assert server_side.asked[-1][4] == b"riddle 2", "each connection has its own"


@everywhere
@on_uvloop
async def test_the_wrong_word(setting: str) -> None:
    async with fast_service(Secret(b"sesame"), setting, Slow()) as (server, messenger):
        messenger.add_dispatcher_tail(Secret(b"millet"))
        con = peer(messenger, place(server))
        with pytest.raises(ConnectError, match="BADAUTHORIZER"):
            await con.wait_connected(0.3)
        assert len(server.endpoint.registry) == 0
        con.mark_down()


@everywhere
@on_uvloop
async def test_who_presents_nothing_is_refused_where_peers_are_verified(setting: str) -> None:
    async with fast_service(Secret(b"sesame"), setting, Slow()) as (server, messenger):
        con = peer(messenger, place(server))
        with pytest.raises(ConnectError, match="BADAUTHORIZER"):
            await con.wait_connected(0.3)
        con.mark_down()


@on_uvloop
async def test_a_rejected_authorizer_is_renewed_on_the_same_socket() -> None:
    dispatcher = Secret(b"sesame", stale=True)
    async with serving(Secret(b"sesame")) as server, client() as messenger:
        messenger.add_dispatcher_tail(dispatcher)
        con = await connected(messenger, place(server))
        assert (con.session.attempts, dispatcher.force) == (0, [False, True])


@on_uvloop
async def test_a_server_that_proves_nothing() -> None:
    class Doubts(Dispatcher):
        def verify_reply(self, peer_type: int, reply: bytes) -> bool:
            return False

    async with serving() as server, client() as messenger:
        messenger.add_dispatcher_tail(Doubts())
        con = peer(messenger, place(server))
        with pytest.raises(ConnectError, match="authorizer reply is wrong"):
            await con.wait_connected(0.3)
        con.mark_down()


@on_uvloop
async def test_what_fails_proves_nothing(caplog: pytest.LogCaptureFixture) -> None:
    class Fails(Dispatcher):
        def verify_authorizer(self, *args: Any) -> Verification:
            raise ValueError("no key")

    async with fast_service(Fails(), "pool", Slow()) as (server, messenger):
        con = peer(messenger, place(server))
        with pytest.raises(ConnectError, match="BADAUTHORIZER"):
            await con.wait_connected(0.3)
        con.mark_down()
    assert "Fails: verify_authorizer failed" in caplog.text
    assert "ValueError: no key" in caplog.text


# who is asked


class Says(Dispatcher):
    """Answers everything with *answer*, or raises it; asked: how often."""

    def __init__(self, answer: object) -> None:
        self.answer, self.asked = answer, 0

    def _say(self) -> Any:
        self.asked += 1
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    def get_authorizer(self, peer_type: int, force_new: bool) -> Authorizer | None:
        return self._say()  # type: ignore[no-any-return]

    def answer_challenge(self, peer_type: int, challenge: bytes) -> Authorizer | None:
        return self._say()  # type: ignore[no-any-return]

    def verify_reply(self, peer_type: int, reply: bytes) -> bool | None:
        return self._say()  # type: ignore[no-any-return]

    def verify_authorizer(
        self, peer_addr: EntityAddr, peer_type: int, protocol: int, data: bytes, challenge: bytes
    ) -> Verification | None:
        return self._say()  # type: ignore[no-any-return]


class Otherwise(NoAuthentication):
    """Recognizable answers."""

    def get_authorizer(self, peer_type: int, force_new: bool) -> Authorizer:
        return Authorizer(9, b"otherwise")

    def answer_challenge(self, peer_type: int, challenge: bytes) -> Authorizer:
        return Authorizer(9, b"otherwise")


KEY = Authorizer(7, b"key")
GOOD = Verification(True, b"welcome")
ASK: dict[str, Callable[[Authorities], object]] = {
    "get": lambda a: a.get_authorizer(8, False),
    "answer": lambda a: a.answer_challenge(8, b"?"),
    "reply": lambda a: a.verify_reply(8, b"!"),
    "verify": lambda a: a.verify_authorizer(connect(), CLIENT, b""),
}


@pytest.mark.parametrize(
    ("what", "answer"), [("get", KEY), ("answer", KEY), ("reply", False), ("verify", GOOD)]
)
def test_the_first_answer_counts(what: str, answer: object) -> None:
    chain = [Dispatcher(), Says(None), Says(answer), Says("not asked")]
    assert ASK[what](Authorities(lambda: chain, Otherwise())) == answer
    assert [d.asked for d in chain if isinstance(d, Says)] == [1, 1, 0]


@pytest.mark.parametrize(
    ("what", "nobody", "none", "fails"),
    [
        ("get", Authorizer(9, b"otherwise"), Authorizer(9, b"otherwise"), Authorizer()),
        ("answer", Authorizer(9, b"otherwise"), Authorizer(9, b"otherwise"), None),
        ("reply", True, True, False),
        ("verify", Verification(True), Verification(False), Verification(False)),
    ],
)
def test_without_an_answer(what: str, nobody: object, none: object, fails: object) -> None:
    def asked(*dispatchers: Dispatcher) -> object:
        return ASK[what](Authorities(lambda: dispatchers, Otherwise()))

    assert asked() == asked(Dispatcher()) == nobody
    assert asked(Says(None)) == none
    assert asked(Says(ValueError()), Says(GOOD)) == fails


def test_the_session_layer_tells_who_asks_and_what_he_was_asked() -> None:
    seen: list[tuple[EntityAddr, bytes]] = []

    class Notes(NoAuthentication):
        def verify_authorizer(
            self, connect: object, peer_addr: EntityAddr, challenge: bytes
        ) -> Verification:
            seen.append((peer_addr, challenge))
            return Verification(bool(challenge), b"riddle", challenge=not challenge)

    talk = Dialogue(STATEFUL_SERVER, authenticator=Notes())
    line = talk.accept()
    line.says(BANNER, CLIENT.encode())
    line.heard()
    line.says(connect())
    line.says(connect(authorizer_protocol=PROTOCOL, authorizer=b"answer"))
    assert [Tag(answer.tag) for answer in line.replies()] == [Tag.CHALLENGE_AUTHORIZER, Tag.READY]
    assert seen == [(CLIENT, b""), (CLIENT, b"riddle")]
