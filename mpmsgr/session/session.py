"""One session: what survives its TCP connections (session spec §1)."""

from __future__ import annotations

from enum import IntFlag
from typing import TYPE_CHECKING, Any, NamedTuple

from mpmsgr.session.handled import HandledPrefix
from mpmsgr.session.outbox import Outbox
from mpmsgr.session.policy import Policy
from mpmsgr.session.states import TRANSITIONS, Move, State
from mpmsgr.wire.address import EntityAddr
from mpmsgr.wire.features import MSG_AUTH

if TYPE_CHECKING:
    from random import Random

    from mpmsgr.session.pipe import Pipe


_HELD_AT_LEAST = 256 * 1024


class Pause(IntFlag):
    """Why we do not read a session's socket."""

    UNREAD = 1  # it does not read what we write
    DISPATCH = 2  # its messages fill the dispatch's memory
    ARENA = 4  # there is no place for the message that comes


class Target(NamedTuple):
    """Where we were told to connect: host (a name or a literal ip), port, nonce (None = any)."""

    host: str
    port: int
    nonce: int | None = None

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}" + ("" if self.nonce is None else f"/{self.nonce}")


class HandshakeFacts(NamedTuple):
    """What the last successful handshake said, for people: see `mpmsgr ping`."""

    own: EntityAddr  # what we announced
    announced: EntityAddr  # what the peer announced
    seen: EntityAddr  # us as the server sees us
    tag: str
    features: int
    protocol_version: int
    global_seq: int
    connect_seq: int
    lossy: bool


class Session:
    """A peer relation. `id` names it (and its lane in the dispatch) for as long as it lives.

    connect_seq, peer_global_seq, in_seq, in_seq_acked: as in the spec; handled: how far its
    messages are handled, None where acks do not wait for that; features: negotiated, 0 before the
    first success; pipe: its current socket, None in STANDBY and between attempts;
    target: where we connect to, None for a session that the peer opened; paused: why we stopped
    reading it, if we did (its silence is our own doing then); last_keepalive: when the peer last
    asked for a sign of life, last_keepalive_ack: the stamp it returned last; opened_at: when it was
    first usable; retry_at, last_received, parked_at: all of them seconds of the caller's clock.
    """

    __slots__ = (
        "attempts",
        "backoff_s",
        "cause",
        "connect_seq",
        "connection",
        "disposable",
        "features",
        "full",
        "handled",
        "handshake",
        "id",
        "in_seq",
        "in_seq_acked",
        "keepalive_due",
        "last_keepalive",
        "last_keepalive_ack",
        "last_received",
        "opened_at",
        "outbox",
        "parked_at",
        "paused",
        "peer_addr",
        "peer_global_seq",
        "peer_type",
        "pipe",
        "policy",
        "retry_at",
        "state",
        "takeovers",
        "takeovers_since",
        "target",
        "verify_address",
        "wake_at",
    )

    def __init__(self, id_: int, peer_type: int, peer_addr: EntityAddr, policy: Policy) -> None:
        self.id = id_
        self.peer_type = peer_type
        self.peer_addr = peer_addr
        self.handled: HandledPrefix | None = None
        self.in_seq = self.in_seq_acked = 0
        self.follow(policy)
        self.backoff_s = 0.0  # see `Backoff`
        self.state = State.CONNECTING
        self.outbox = Outbox()
        self.pipe: Pipe | None = None
        self.target: Target | None = None
        self.verify_address = True
        self.connect_seq = self.peer_global_seq = 0
        self.features = 0
        self.attempts = 0
        self.cause = ""
        self.handshake: HandshakeFacts | None = None
        self.disposable = False
        self.keepalive_due = False
        self.paused = Pause(0)
        self.full = False  # its outbox reached the limit, and has not emptied enough since
        self.last_keepalive: float | None = None
        self.last_keepalive_ack: float | None = None
        self.last_received = self.opened_at = self.retry_at = self.parked_at = 0.0
        self.wake_at: float | None = None
        self.takeovers = 0  # of its live socket, since takeovers_since
        self.takeovers_since = 0.0
        self.connection: Any = None  # the application's side of it; nobody here looks inside

    @classmethod
    def over(cls, id_: int) -> Session:
        """One that is no more, for an id that nobody has."""
        session = cls(id_, 0, EntityAddr(), Policy())
        session.state = State.CLOSED
        return session

    @property
    def lossy(self) -> bool:
        """Does a fault end this session?

        Of a disposable one, too; on the wire that is lossless as it was negotiated: its peer
        waits for our acks.
        """
        return self.policy.lossy or self.disposable

    def follow(self, policy: Policy) -> None:
        """From now on *policy* applies."""
        self.policy = policy
        if policy.lossy or policy.ack != "handled":
            self.handled = None
        elif self.handled is None:
            self.handled = HandledPrefix(self.in_seq)

    @property
    def ack_seq(self) -> int:
        """The seq to announce to the peer: it may forget its messages up to there."""
        return self.in_seq if self.handled is None else self.handled.prefix

    @property
    def is_queued(self) -> bool:
        """Is there anything to say to the peer?"""
        return self.keepalive_due or self.outbox.queued > 0

    @property
    def outbox_room(self) -> int:
        """Bytes that may still be queued for the peer; negative above the limit."""
        limit = self.policy.outbox_bytes
        return limit - self.outbox.nbytes if limit else 1 << 62

    @property
    def held_limit(self) -> int:
        """Bytes of its messages that may wait while it is full; what one read brings at the least,
        or each would be an overrun.
        """
        return max(self.policy.outbox_bytes, _HELD_AT_LEAST)

    @property
    def can_dial(self) -> bool:
        """Do we know where to connect, and are we the side that may?"""
        reachable = self.target is not None or self.peer_addr.port > 0
        return reachable and not self.policy.server

    def move(self, move: Move) -> None:
        """Change the state. A move that `TRANSITIONS` does not have is a bug: KeyError."""
        self.state = TRANSITIONS[self.state, move]

    def reset(self, rng: Random) -> tuple[list[int], list[int]]:
        """The peer lost the session: start over in the same object.

        Returns the tids dropped, and those kept to be sent again (policy `on_remote_reset`).
        was_session_reset of the spec (§8), with in_seq_acked set to 0 as well.
        """
        out_seq = rng.getrandbits(31) if self.features & MSG_AUTH else 0
        dropped: list[int] = []
        kept: list[int] = []
        if self.policy.on_remote_reset == "resend":
            kept = self.outbox.begin_again(out_seq)
        else:
            dropped = self.outbox.discard()
            self.outbox.out_seq = out_seq
        self.begin_again()
        self.connect_seq = 0
        return dropped, kept

    def begin_again(self) -> None:
        """The peer's messages are numbered from the start; those in work do not count."""
        self.in_seq = self.in_seq_acked = 0
        if self.handled is not None:
            self.handled = HandledPrefix()

    def __repr__(self) -> str:
        return (
            f"<Session {self.id} {self.peer_addr} {self.state.value} cseq={self.connect_seq}"
            f" in={self.in_seq} out={self.outbox.out_seq}>"
        )
