"""Whatever a peer says, in whatever pieces: faults at the most, never an error of ours.

The peers here know the structures of the protocol, and use them at random.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import cycle

from hypothesis import given
from hypothesis import strategies as st

from mpmsgr.session.policy import PRESETS, Policy
from mpmsgr.session.states import State
from mpmsgr.wire.address import EntityAddr
from mpmsgr.wire.features import SUPPORTED
from mpmsgr.wire.v1.frames import CLOSE, KEEPALIVE, encode_ack, encode_keepalive2
from mpmsgr.wire.v1.handshake import BANNER, Connect, Reply, encode_seq, encode_server_hello
from mpmsgr.wire.v1.tags import REPLY_TAGS
from tests.dialogue import CLIENT, PEER, SOCKET, Dialogue, Line, message

#: Numbers around which something happens.
numbers = st.one_of(
    st.integers(0, 4),
    st.sampled_from([(1 << 31) - 1, 1 << 31, (1 << 32) - 2, (1 << 32) - 1]),
)
long_numbers = st.one_of(
    numbers, st.sampled_from([(1 << 63) - 1, 1 << 63, (1 << 64) - 2, (1 << 64) - 1])
)
features = st.one_of(st.just(SUPPORTED), st.integers(0, (1 << 64) - 1))
addresses = st.sampled_from([PEER, CLIENT, PEER._replace(nonce=7), EntityAddr(), SOCKET])
policies = st.sampled_from(list(PRESETS.values()))
watched = st.booleans()
frames = st.one_of(
    st.builds(message, long_numbers),
    st.builds(encode_ack, long_numbers),
    st.builds(encode_keepalive2, st.tuples(numbers, numbers)),
    st.just(CLOSE),
    st.just(KEEPALIVE),
    st.binary(min_size=1, max_size=3),
)
replies = st.builds(
    Reply, st.sampled_from(sorted(REPLY_TAGS)), features, numbers, numbers, st.just(0),
    st.binary(max_size=5), st.integers(0, 3),
).map(Reply.encode)  # fmt: skip
connects = st.builds(
    Connect, features, st.sampled_from([8, 0x40]), numbers, numbers, st.sampled_from([0, 0, 0, 1]),
    st.integers(0, 2), st.binary(max_size=5), st.integers(0, 3),
).map(Connect.encode)  # fmt: skip
seqs = long_numbers.map(encode_seq)
sizes = st.lists(st.integers(1, 200), min_size=1, max_size=5)


def made_of(*parts: st.SearchStrategy[bytes]) -> st.SearchStrategy[bytes]:
    return st.lists(st.one_of(*parts), max_size=12).map(b"".join)


def tell(talk: Dialogue, line: Line, stream: bytes, pieces: list[int]) -> None:
    """Say *stream* in *pieces*; whatever happens, the endpoint stays in order."""
    at = 0
    for size in cycle(pieces):
        if at >= len(stream):
            break
        line.says(stream[at : at + size])
        talk.flush()
        at += size
    line.breaks()
    talk.turn(20.0)
    registry = talk.endpoint.registry
    for session in registry:
        assert session.state is not State.CLOSED
        assert session.outbox.nbytes >= 0
        assert session.pipe is None or session.pipe in registry.pipes


def talking(policy: Policy, watch: bool) -> Dialogue:
    if watch:
        policy = replace(policy, keepalive_period_s=1.0, keepalive_timeout_s=3.0)
    return Dialogue(policy)


@given(policies, watched, addresses, made_of(connects, connects, seqs, frames), sizes)
def test_any_client(
    policy: Policy, watch: bool, addr: EntityAddr, said: bytes, pieces: list[int]
) -> None:
    talk = talking(policy, watch)
    for _ in range(2):  # the second one meets what the first has left
        tell(talk, talk.accept(), BANNER + addr.encode() + said, pieces)


@given(policies, watched, made_of(connects, connects, seqs, frames), sizes)
def test_any_client_of_a_session(
    policy: Policy, watch: bool, said: bytes, pieces: list[int]
) -> None:
    talk = talking(policy, watch)
    talk.open_incoming().says(message(1))
    for session in talk.endpoint.registry:
        talk.send(session, 1, 2)
    tell(talk, talk.accept(), BANNER + CLIENT.encode() + said, pieces)


@given(policies, watched, addresses, made_of(replies, replies, seqs, frames), sizes)
def test_any_server(
    policy: Policy, watch: bool, addr: EntityAddr, said: bytes, pieces: list[int]
) -> None:
    talk = talking(replace(policy, server=False), watch)
    session = talk.connect()
    talk.send(session, 1, 2)
    stream = encode_server_hello(addr, SOCKET) + said
    for _ in range(3):
        if session.state is not State.CONNECTING or session.pipe is None:
            break
        tell(talk, talk.dialled(), stream, pieces)


@given(policies, made_of(frames), sizes)
def test_any_frames(policy: Policy, said: bytes, pieces: list[int]) -> None:
    talk = Dialogue(policy)
    line = talk.open_incoming()
    talk.send(talk.session, 1, 2, 3)
    line.heard()
    tell(talk, line, said, pieces)
