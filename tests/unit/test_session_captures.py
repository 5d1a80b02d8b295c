"""Real Ceph's side of a handshake played back to ours: the session opens, our bytes are Ceph's.

The captures are described in tests/vectors/README.md. What differs on purpose: a new session is
answered with READY where Ceph says SEQ 0, and a takeover is not preceded by RETRY_GLOBAL.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest

from mpmsgr.session.auth import Authorizer, NoAuthentication, Verification
from mpmsgr.session.endpoint import Endpoint
from mpmsgr.session.policy import LOSSLESS_CLIENT, LOSSLESS_PEER, LOSSY_CLIENT, STATELESS_SERVER
from mpmsgr.session.session import Target
from mpmsgr.session.states import State
from mpmsgr.wire.address import EntityAddr
from mpmsgr.wire.features import CEPH_PACIFIC
from mpmsgr.wire.name import EntityName, EntityType
from mpmsgr.wire.v1.handshake import BANNER, Connect, Reply, encode_seq, encode_server_hello
from mpmsgr.wire.v1.tags import Tag
from tests.dialogue import Dialogue, Line

FOLDER = Path(__file__).parents[1] / "vectors" / "v1"
NAMES = sorted(path.stem for path in FOLDER.glob("*.json"))
Record = dict[str, Any]


@dataclass(frozen=True)
class Capture:
    """One recorded connection."""

    name: str

    @cached_property
    def record(self) -> Record:
        record: Record = json.loads((FOLDER / f"{self.name}.json").read_text())
        return record

    def stream(self, side: str) -> bytes:
        return (FOLDER / f"{self.name}.{side}.bin").read_bytes()

    def frames(self, side: str, *kinds: str) -> list[Record]:
        return [frame for frame in self.record[side] if frame["frame"] in kinds]

    def handshake_end(self, side: str) -> int:
        """Where the frames begin."""
        kinds = ("banner", "addr_self", "addr_peer_as_seen", "connect", "connect_reply",
                 "in_seq_after_SEQ")  # fmt: skip
        last = self.frames(side, *kinds)[-1]
        return int(last["off"] + last["len"])

    def address(self, side: str, kind: str = "addr_self") -> EntityAddr:
        (frame,) = self.frames(side, kind)
        return EntityAddr.of(frame["ip"], frame["port"], frame["nonce"])

    def in_seq(self, side: str) -> int:
        return sum(frame["value"] for frame in self.frames(side, "in_seq_after_SEQ"))

    @cached_property
    def connects(self) -> list[Connect]:
        return [
            Connect(
                int(frame["features"], 16),
                int(frame["host_type"].split()[0]),
                frame["global_seq"],
                frame["connect_seq"],
                frame["protocol_version"],
                frame["authorizer_protocol"],
                bytes.fromhex(frame.get("authorizer_hex", "")),
                frame["flags"],
            )
            for frame in self.frames("client", "connect")
        ]

    @cached_property
    def replies(self) -> list[Reply]:
        return [
            Reply(
                int(frame["tag"].split()[0]),
                int(frame["features"], 16),
                frame["global_seq"],
                frame["connect_seq"],
                frame["protocol_version"],
                bytes.fromhex(frame.get("authorizer_hex", "")),
                frame["flags"],
            )
            for frame in self.frames("server", "connect_reply")
        ]

    @property
    def server_name(self) -> EntityName:
        return EntityName(EntityType.MON if self.name.startswith("mon") else EntityType.OSD, 0)

    def messages(self, side: str) -> list[int]:
        """tids in the order they were sent."""
        return [frame["header"]["tid"] for frame in self.frames(side, "MSG")]


class Recorded(NoAuthentication):
    """Presents the authorizers and gives the answers of a capture."""

    def __init__(self, capture: Capture) -> None:
        self._connects, self._replies = list(capture.connects), list(capture.replies)

    def get_authorizer(self, peer_type: int, force_new: bool) -> Authorizer:
        first = self._connects[0]
        return Authorizer(first.authorizer_protocol, first.authorizer)

    def answer_challenge(self, peer_type: int, challenge: bytes) -> Authorizer | None:
        second = self._connects[1]
        return Authorizer(second.authorizer_protocol, second.authorizer)

    def verify_authorizer(
        self, connect: Connect, peer_addr: EntityAddr, challenge: bytes
    ) -> Verification:
        answer = self._replies[self._connects.index(connect)]
        asks = answer.tag == Tag.CHALLENGE_AUTHORIZER
        return Verification(not asks, answer.authorizer, asks)


def next_global_seq_is(endpoint: Endpoint, seq: int) -> None:
    if seq > 1:
        endpoint.next_global_seq(seq - 2)


# Ceph's server, our client


def play_the_server(capture: Capture) -> tuple[Dialogue, Line]:
    """Our connector in the place of the recorded client, in the state that one was in."""
    first = capture.connects[0]
    policy = LOSSY_CLIENT if first.lossy else LOSSLESS_CLIENT
    if first.connect_seq:
        policy = LOSSLESS_PEER
    talk = Dialogue(
        replace(policy, features_supported=CEPH_PACIFIC), authenticator=Recorded(capture)
    )
    endpoint, server = talk.endpoint, capture.address("server")
    endpoint.name = EntityName(first.host_type, 0)
    endpoint.addr = capture.address("client")
    next_global_seq_is(endpoint, first.global_seq)
    session = endpoint.connect(
        Target(server.host, server.port, server.nonce), capture.server_name.type, talk.now
    )
    talk.execute()
    session.connect_seq = first.connect_seq
    session.in_seq = capture.in_seq("client")
    session.outbox.out_seq = capture.in_seq("server")
    return talk, talk.dialled(server)


@pytest.mark.parametrize("size", [1 << 20, 1])
@pytest.mark.parametrize("name", NAMES)
def test_our_client_says_what_cephs_did(name: str, size: int) -> None:
    capture = Capture(name)
    talk, line = play_the_server(capture)
    stream = capture.stream("server")
    for at in range(0, len(stream), size):
        line.says(stream[at : at + size])
    assert talk.faults == []
    end = capture.handshake_end("client")
    assert line.written[:end] == capture.stream("client")[:end]
    assert talk.delivered == capture.messages("server")
    waits = capture.replies[-1].tag == Tag.WAIT
    assert talk.session.state is (State.WAIT if waits else State.OPEN)


@pytest.mark.parametrize("name", NAMES)
def test_what_the_server_decided_is_taken_over(name: str) -> None:
    capture = Capture(name)
    talk, line = play_the_server(capture)
    line.says(capture.stream("server"))
    last, session = capture.replies[-1], talk.session
    if last.tag == Tag.WAIT:
        return
    assert session.lossy == last.lossy
    assert (session.connect_seq, session.peer_global_seq) == (last.connect_seq, last.global_seq)
    assert session.features == CEPH_PACIFIC
    assert session.outbox.out_seq == capture.in_seq("server")


# Ceph's client, our server


def play_the_client(capture: Capture) -> tuple[Dialogue, Line]:
    """Our acceptor in the place of the recorded server, hellos exchanged."""
    last = capture.replies[-1]
    policy = STATELESS_SERVER if last.lossy else LOSSLESS_PEER
    talk = Dialogue(
        replace(policy, features_supported=CEPH_PACIFIC), authenticator=Recorded(capture)
    )
    own = capture.address("server")
    talk.endpoint.name, talk.endpoint.addr = capture.server_name, own
    seen = capture.address("server", "addr_peer_as_seen")
    line = talk.accept(seen, own)
    hello = line.heard()
    assert hello == encode_server_hello(own, seen)
    assert hello == capture.stream("server")[: len(hello)]
    line.says(BANNER, capture.address("client").encode())
    return talk, line


FRESH = [name for name in NAMES if Capture(name).connects[0].connect_seq == 0]


@pytest.mark.parametrize("name", FRESH)
def test_our_server_opens_a_session_for_cephs_client(name: str) -> None:
    capture = Capture(name)
    talk, line = play_the_client(capture)
    next_global_seq_is(talk.endpoint, capture.replies[-1].global_seq)
    for proposal, expected in zip(capture.connects, capture.replies, strict=True):
        line.says(proposal)
        if expected.tag == Tag.SEQ:
            expected = expected._replace(tag=Tag.READY)
        assert line.heard() == expected.encode()
    frames = capture.stream("client")[capture.handshake_end("client") :]
    line.says(frames)
    assert talk.faults == []
    assert talk.delivered == capture.messages("client")


@pytest.mark.parametrize("name", [name for name in NAMES if name.startswith("osd-reconnect")])
def test_our_server_goes_on_with_a_session_of_cephs_client(name: str) -> None:
    capture = Capture(name)
    talk, line = play_the_client(capture)
    first, peer = capture.connects[0], capture.address("client")
    session = talk.endpoint.new_incoming(peer, first.host_type, talk.endpoint.policies.default)
    session.state = State.STANDBY
    session.peer_global_seq = first.global_seq
    session.in_seq = capture.in_seq("server")
    session.outbox.out_seq = capture.in_seq("client")
    for proposal, expected in zip(capture.connects, capture.replies, strict=True):
        if expected.tag == Tag.RETRY_GLOBAL:
            continue  # Ceph asks for one before each takeover
        if expected.tag == Tag.RETRY_SESSION:
            session.connect_seq = expected.connect_seq - 1
        else:
            session.connect_seq = min(session.connect_seq or 1, proposal.connect_seq - 1)
            next_global_seq_is(talk.endpoint, expected.global_seq)
        line.says(proposal)
        tail = encode_seq(session.in_seq) if expected.tag == Tag.SEQ else b""
        assert line.heard() == expected.encode() + tail
    end = capture.handshake_end("client")
    line.says(capture.stream("client")[end - 8 :])
    assert talk.faults == []
    assert session.state is State.OPEN
    assert talk.delivered == capture.messages("client")


def test_our_server_tells_cephs_client_to_wait() -> None:
    capture = Capture("osd-race-wait")
    talk, line = play_the_client(capture)
    peer = capture.address("client")
    session = talk.connect(Target(peer.host, peer.port, peer.nonce))
    session.connect_seq = capture.connects[0].connect_seq
    line.says(capture.connects[0])
    assert line.heard() == capture.replies[0].encode()
    assert session.state is State.CONNECTING
