"""What a seed stands for: who talks to whom, in what weather, and what happens when."""

from __future__ import annotations

from dataclasses import dataclass, replace
from random import Random

from mpmsgr.session.policy import (
    LOSSLESS_CLIENT,
    LOSSLESS_PEER,
    LOSSLESS_PEER_REUSE,
    LOSSY_CLIENT,
    STATEFUL_SERVER,
    STATELESS_REGISTERED_SERVER,
    STATELESS_SERVER,
    Policy,
)
from mpmsgr.wire.features import MSG_AUTH, MSGR_KEEPALIVE2, NOSRCADDR, RECONNECT_SEQ, SUPPORTED
from tests.simulation.network import Weather


@dataclass(frozen=True)
class Setup:
    """Policies of the side that dials and of the side that listens; peers do both."""

    dials: Policy
    listens: Policy
    peers: bool = False

    @property
    def lossy(self) -> bool:
        """The listening side decides for both."""
        return self.listens.lossy

    @property
    def late(self) -> bool:
        """Do acks wait for handlers, on the side that listens at least?"""
        return self.listens.ack == "handled"


def _late(policy: Policy) -> Policy:
    """*policy* of a host that acknowledges what it has handled, which takes it a while."""
    return replace(policy, ack="handled")


SETUPS = {
    "client-server": Setup(LOSSLESS_CLIENT, STATEFUL_SERVER),
    "peer-server": Setup(LOSSLESS_PEER, STATEFUL_SERVER),
    "peers": Setup(LOSSLESS_PEER, LOSSLESS_PEER, peers=True),
    "reusing-peers": Setup(LOSSLESS_PEER_REUSE, LOSSLESS_PEER_REUSE, peers=True),
    "lossy": Setup(LOSSY_CLIENT, STATELESS_SERVER),
    "lossy-registered": Setup(LOSSY_CLIENT, STATELESS_REGISTERED_SERVER),
    "server-decides": Setup(LOSSLESS_CLIENT, STATELESS_SERVER),
    "late-server": Setup(LOSSLESS_CLIENT, _late(STATEFUL_SERVER)),
    "late-peers": Setup(_late(LOSSLESS_PEER_REUSE), _late(LOSSLESS_PEER_REUSE), peers=True),
}
#: A session parked this long is given up, in histories where peers go for good, in seconds.
STANDBY_S = 60.0
_DURATION_S = (5.0, 20.0, 45.0)
_WITHOUT = (0, 0, 0, RECONNECT_SEQ, MSG_AUTH, NOSRCADDR, MSGR_KEEPALIVE2)


@dataclass(frozen=True)
class Op:
    """Something the history does at *at*: to host number *host*, *amount* of it."""

    at: float
    kind: str
    host: int
    amount: int = 1


@dataclass(frozen=True)
class Plan:
    """A history before it happens.

    churn: sessions are ended and hosts restarted, so messages may be lost, never silently;
    watched: policies have keepalives, so the network may cut without telling; resend: what a
    reset would drop is sent again, and repeats are noticed.
    """

    seed: int
    setup: str
    weather: Weather
    ops: tuple[Op, ...]
    dials: Policy
    listens: Policy
    duration_s: float
    hosts: int
    churn: bool
    watched: bool
    resend: bool
    one_priority: bool
    jitter: bool
    echo: float
    talkative: bool
    know_nonce: bool

    def __str__(self) -> str:
        words = [w for w in ("churn", "watched", "resend", "talkative") if getattr(self, w)]
        return f"seed {self.seed}: {self.hosts} hosts, {self.setup}, {', '.join(words) or 'plain'}"


def draw(seed: int, setup: str | None = None) -> Plan:
    """The plan of *seed*; *setup* instead of the one it would choose."""
    rng = Random(seed)
    chosen = rng.choice(list(SETUPS))
    setup = setup or chosen
    peers, lossy = SETUPS[setup].peers, SETUPS[setup].lossy
    without = rng.choice(_WITHOUT)
    churn = rng.random() < 0.4
    if churn and without == RECONNECT_SEQ and not SETUPS[setup].dials.resetcheck:
        without = 0  # then nobody could notice that the peer began anew (spec §5, row 5)
    # An old header has no room for the mark of a repeat.
    resend = (
        churn and SETUPS[setup].dials.resetcheck and rng.random() < 0.3 and without != NOSRCADDR
    )
    watched = rng.random() < 0.5 and without != MSGR_KEEPALIVE2  # else the deaf stay deaf
    duration_s = rng.choice(_DURATION_S)
    hosts = rng.choice((2, 2, 3)) if peers else rng.choice((2, 2, 3, 4))
    return Plan(
        seed=seed,
        setup=setup,
        weather=_draw_weather(rng, watched),
        ops=_draw_ops(rng, duration_s, hosts, churn, peers),
        dials=_fit(SETUPS[setup].dials, churn, watched, resend, without),
        listens=_fit(SETUPS[setup].listens, churn, watched, resend, without),
        duration_s=duration_s,
        hosts=hosts,
        churn=churn,
        watched=watched,
        resend=resend,
        one_priority=lossy or rng.random() < 0.6,
        jitter=rng.random() < 0.5,
        echo=rng.choice((0.0, 0.5)),
        talkative=rng.random() < 0.3,
        know_nonce=not churn and rng.random() < 0.5,
    )


def _fit(policy: Policy, churn: bool, watched: bool, resend: bool, without: int) -> Policy:
    policy = replace(policy, features_supported=SUPPORTED & ~without)
    if churn:
        policy = replace(policy, standby_timeout_s=STANDBY_S)
    if resend:
        policy = replace(policy, on_remote_reset="resend", dedupe_window=10_000)
    if watched:
        policy = replace(policy, keepalive_period_s=1.0, keepalive_timeout_s=3.0)
    return policy


def _draw_weather(rng: Random, watched: bool) -> Weather:
    def sometimes(most: float) -> float:
        return rng.random() * most if rng.random() < 0.5 else 0.0

    return Weather(
        refuse=sometimes(0.5),
        blackhole=sometimes(0.2),
        cut=sometimes(0.9),
        deaf=sometimes(0.5) if watched else 0.0,
        late=sometimes(0.4),
        stall=sometimes(0.3),
        linger=sometimes(0.5),
        truncate=sometimes(0.5),
        latency_s=rng.choice((0.001, 0.02, 0.3)),
    )


def _draw_ops(
    rng: Random, duration_s: float, hosts: int, churn: bool, peers: bool
) -> tuple[Op, ...]:
    kinds = {"send": 8.0, "push": 4.0, "cut": rng.choice((0.0, 2.0, 8.0))}
    kinds |= {"stall": 0.5, "keepalive": 0.5, "connect": 1.0}
    if peers:
        kinds["race"] = rng.choice((0.0, 2.0, 6.0))
    if churn:
        kinds |= {"mark_down": 1.0, "close": 0.3, "restart": 0.4, "disposable": 0.2}
    count = rng.choice((10, 30, 60))
    chosen = rng.choices(list(kinds), list(kinds.values()), k=count)
    ops = [
        Op(rng.random() * duration_s, kind, rng.randrange(hosts), rng.choice((1, 1, 2, 5, 20)))
        for kind in chosen
    ]
    return tuple(sorted(ops, key=lambda op: op.at))
