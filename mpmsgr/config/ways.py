"""What a server's name decides where its settings are silent: Ceph's ways for Ceph's names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from mpmsgr.config.policies import policy_of
from mpmsgr.config.settings import Settings
from mpmsgr.session.endpoint import Timing
from mpmsgr.session.policy import Policies, default_policies
from mpmsgr.wire.limits import Limits
from mpmsgr.wire.message import PRIO_DEFAULT, PRIO_HIGH
from mpmsgr.wire.name import EntityName, EntityType, parse_type


@dataclass(frozen=True)
class Ways:
    """Who a server is and how it treats its peers, nothing left open: what its messenger needs.

    nonce u32; protocol_version 0 = by the entity types of both sides (wire spec §10).
    """

    name: EntityName
    nonce: int
    policies: Policies
    limits: Limits
    timing: Timing
    protocol_version: int
    send_priority: int


def resolve_ways(settings: Settings, random_nonce: int) -> Ways:
    """Everything *settings* says, the rest by the entity name.

    random_nonce (u32) is the nonce of all but monitors: peers expect 0 of those.
    """
    name = EntityName.parse(settings.name)
    is_mon = name.type == EntityType.MON
    by_name = 0 if is_mon else random_nonce
    return Ways(
        name=name,
        nonce=by_name if settings.nonce is None else settings.nonce,
        policies=_policies(settings, name.type),
        limits=Limits(
            max_front=settings.max_front_bytes,
            max_middle=settings.max_middle_bytes,
            max_data=settings.max_data_bytes,
            max_authorizer=settings.max_authorizer_bytes,
        ),
        timing=Timing(handshake_timeout_s=settings.handshake_timeout_s),
        protocol_version=settings.protocol_version,
        send_priority=settings.send_priority or (PRIO_HIGH if is_mon else PRIO_DEFAULT),
    )


def _policies(settings: Settings, own_type: int) -> Policies:
    policies = default_policies(own_type)
    said = {
        "features_supported": settings.features,
        "features_required": settings.required_features,
        "keepalive_period_s": settings.keepalive_period_s,
        "keepalive_timeout_s": settings.keepalive_timeout_s,
        "idle_timeout_s": settings.idle_timeout_s,
        "standby_timeout_s": settings.standby_timeout_s,
    }
    policies = policies.having(**{key: value for key, value in said.items() if value is not None})
    for peer, table in settings.policy.items():
        policies = _with_table(policies, peer, table)
    return policies


def _with_table(policies: Policies, peer: str, table: Mapping[str, Any]) -> Policies:
    """*policies* with what *table* says of *peer* (a type label or "default")."""
    if peer == "default":
        return replace(policies, default=policy_of(table, policies.default))
    number = parse_type(peer)
    changed = policy_of(table, policies.of(number))
    return replace(policies, by_type={**policies.by_type, number: changed})
