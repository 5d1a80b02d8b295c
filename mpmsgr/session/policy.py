"""Policies: how an endpoint treats sessions with peers of a type (dispatch spec §1)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

from mpmsgr.errors import ConfigError
from mpmsgr.wire.features import CEPH_PACIFIC, SUPPORTED
from mpmsgr.wire.name import EntityType

REMOTE_RESET_WAYS = ("drop", "resend")
OUTBOX_FULL_WAYS = ("block", "fail", "drop_oldest")
ACK_WAYS = ("received", "handled")


@dataclass(frozen=True, slots=True)
class Policy:
    """What a fault means, who connects, and how silence is treated.

    lossy: a fault ends the session; server: never connects, waits for the peer; standby: with
    nothing queued a fault parks the session; resetcheck: notice that the peer lost the session;
    register_lossy_clients: False leaves incoming lossy clients out of the registry.
    features_*: bit masks. Seconds, 0 = never: keepalive_period_s without a byte from the peer
    until it is asked for one, keepalive_timeout_s of silence until it counts as lost,
    idle_timeout_s the same without asking, standby_timeout_s until a parked session is given up.
    on_remote_reset: when the peer lost the session, "drop" what it did not acknowledge (Ceph's
    way), or "resend" it in the new session, marked as possibly seen; dedupe_window: of so many
    messages per peer we remember which they were, and drop marked repeats of them, unanswered
    (0 = none).
    outbox_bytes: so much may wait to be sent or acknowledged (0 = no limit). Above it the peer's
    new requests wait, and for pushes outbox_full says: "block" (`send` waits, `send_message`
    raises OutboxFull), "fail" (both raise), "drop_oldest" (the oldest unsent pushes go).
    ack: the peer keeps a message until it was "received" (Ceph's way), or "handled".
    throttle_messages, throttle_bytes: so many messages, and bytes of them, of all peers of the
    type together may be in work; above that these peers are not read (0 = no limit). It is the
    messenger's table of policies that counts here, not the policy of one connection.
    urgent: when others have to wait, these peers are read on, and their messages go to workers
    that are full for others. Be sparing with it.
    """

    lossy: bool = False
    server: bool = False
    standby: bool = False
    resetcheck: bool = True
    register_lossy_clients: bool = True
    features_supported: int = SUPPORTED
    features_required: int = 0
    keepalive_period_s: float = 0.0
    keepalive_timeout_s: float = 0.0
    idle_timeout_s: float = 900.0
    standby_timeout_s: float = 300.0
    on_remote_reset: str = "drop"
    dedupe_window: int = 0
    outbox_bytes: int = 64 * 1024 * 1024
    outbox_full: str = "block"
    ack: str = "received"
    throttle_messages: int = 0
    throttle_bytes: int = 0
    urgent: bool = False

    def __post_init__(self) -> None:
        """Raise ConfigError for a word that is not allowed."""
        for name, ways in (
            ("on_remote_reset", REMOTE_RESET_WAYS),
            ("outbox_full", OUTBOX_FULL_WAYS),
            ("ack", ACK_WAYS),
        ):
            if getattr(self, name) not in ways:
                raise ConfigError(name, getattr(self, name), f"must be {' or '.join(ways)}")

    @property
    def is_throttled(self) -> bool:
        """Has its peer type a throttle of its own?"""
        return bool(self.throttle_messages or self.throttle_bytes)

    @property
    def may_deadlock(self) -> bool:
        """Can two peers with this policy stop each other for good?

        Each may hold messages whose handling needs more from the other, and not read on because
        of them. A server's clients, or a lossy session, end such a wait at some time.
        """
        return self.is_throttled and self.standby and not (self.server or self.lossy)


DEFAULT = Policy()
STATEFUL_SERVER = Policy(server=True, standby=True)
STATELESS_SERVER = Policy(lossy=True, server=True, resetcheck=False, register_lossy_clients=False)
STATELESS_REGISTERED_SERVER = replace(STATELESS_SERVER, register_lossy_clients=True)
LOSSLESS_PEER = Policy(standby=True, resetcheck=False)
LOSSLESS_PEER_REUSE = Policy(standby=True)
LOSSY_CLIENT = Policy(lossy=True, resetcheck=False)
LOSSLESS_CLIENT = Policy()

PRESETS: Mapping[str, Policy] = {
    "default": DEFAULT,
    "stateful_server": STATEFUL_SERVER,
    "stateless_server": STATELESS_SERVER,
    "stateless_registered_server": STATELESS_REGISTERED_SERVER,
    "lossless_peer": LOSSLESS_PEER,
    "lossless_peer_reuse": LOSSLESS_PEER_REUSE,
    "lossy_client": LOSSY_CLIENT,
    "lossless_client": LOSSLESS_CLIENT,
}


@dataclass(frozen=True)
class Policies:
    """One policy per peer type, and one for types without their own."""

    default: Policy = DEFAULT
    by_type: Mapping[int, Policy] = field(default_factory=dict)

    def of(self, peer_type: int) -> Policy:
        """The policy towards *peer_type* (an entity type number)."""
        return self.by_type.get(peer_type, self.default)

    def tables(self) -> Iterator[tuple[int | None, Policy]]:
        """The policies there are, each with its peer type; the default one has none."""
        yield None, self.default
        yield from self.by_type.items()

    def having(self, **changes: object) -> Policies:
        """The same table with *changes* made to every policy in it."""
        return Policies(
            replace(self.default, **changes),  # type: ignore[arg-type]
            {t: replace(p, **changes) for t, p in self.by_type.items()},  # type: ignore[arg-type]
        )


_CEPH = (EntityType.MON, EntityType.MDS, EntityType.OSD, EntityType.MGR)


def _watched(policy: Policy) -> Policy:
    """*policy* between our own endpoints: a dead peer is noticed without traffic."""
    return replace(policy, keepalive_period_s=10.0, keepalive_timeout_s=30.0)


def default_policies(own_type: int) -> Policies:
    """What an endpoint of *own_type* uses: ours between `client` and `svc`, Ceph's towards Ceph."""
    ceph: dict[int, Policy] = dict.fromkeys(
        _CEPH, replace(LOSSY_CLIENT, features_supported=CEPH_PACIFIC)
    )
    if own_type == EntityType.SERVICE:
        ceph[EntityType.SERVICE] = _watched(LOSSLESS_PEER_REUSE)
        return Policies(_watched(STATEFUL_SERVER), ceph)
    if own_type == EntityType.CLIENT:
        return Policies(_watched(LOSSLESS_CLIENT), ceph)
    return _ceph_policies(own_type).having(features_supported=CEPH_PACIFIC)


def _ceph_policies(own_type: int) -> Policies:
    """Who uses what in Ceph (dispatch spec §1, second table)."""
    if own_type == EntityType.MON:
        return Policies(STATELESS_SERVER, {EntityType.MON: LOSSLESS_PEER_REUSE})
    if own_type == EntityType.OSD:
        to_monitors: dict[int, Policy] = dict.fromkeys(
            (EntityType.MON, EntityType.MGR), LOSSY_CLIENT
        )
        return Policies(STATELESS_SERVER, {EntityType.OSD: LOSSLESS_PEER} | to_monitors)
    if own_type == EntityType.MDS:
        towards: dict[int, Policy] = {
            EntityType.MDS: LOSSLESS_PEER,
            EntityType.CLIENT: STATEFUL_SERVER,
        }
        return Policies(LOSSY_CLIENT, towards)
    return Policies(STATELESS_SERVER)


_PUBLIC_PROTOCOL = {EntityType.OSD: 24, EntityType.MDS: 32, EntityType.MON: 15}
_CLUSTER_PROTOCOL = {EntityType.OSD: 10, EntityType.MDS: 35, EntityType.MON: 13}


def protocol_version(own_type: int, peer_type: int, *, connecting: bool) -> int:
    """The version both sides must name (wire spec §10)."""
    table: Mapping[EntityType, int] = _PUBLIC_PROTOCOL
    if own_type == peer_type:
        table = _CLUSTER_PROTOCOL
    server_type = peer_type if connecting else own_type
    return {int(t): v for t, v in table.items()}.get(server_type, 0)
