"""What a server's name decides where its settings are silent: Ceph's ways for Ceph's names."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from mpmsgr.config.settings import Settings
from mpmsgr.session.endpoint import Timing
from mpmsgr.session.policy import PRESETS, Policies, default_policies
from mpmsgr.wire.limits import Limits
from mpmsgr.wire.name import EntityName, EntityType, parse_type

_OWN_FIELDS = ("lossy", "server", "standby", "resetcheck", "register_lossy_clients")


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


def resolve_ways(settings: Settings, random_nonce: int) -> Ways:
    """Everything *settings* says, the rest by the entity name.

    random_nonce (u32) is the nonce of all but monitors: peers expect 0 of those.
    """
    name = EntityName.parse(settings.name)
    by_name = 0 if name.type == EntityType.MON else random_nonce
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
    )


def _policies(settings: Settings, own_type: int) -> Policies:
    policies = default_policies(own_type)
    for peer, table in settings.policy.items():
        policies = _with_preset(policies, peer, table["preset"])
    said = {
        "features_supported": settings.features,
        "features_required": settings.required_features,
        "keepalive_period_s": settings.keepalive_period_s,
        "keepalive_timeout_s": settings.keepalive_timeout_s,
        "idle_timeout_s": settings.idle_timeout_s,
        "standby_timeout_s": settings.standby_timeout_s,
    }
    return policies.having(**{key: value for key, value in said.items() if value is not None})


def _with_preset(policies: Policies, peer: str, preset: str) -> Policies:
    """*policies* with the preset's way for *peer* (a type label or "default"), features kept."""
    chosen: dict[str, Any] = {f: getattr(PRESETS[preset], f) for f in _OWN_FIELDS}
    if peer == "default":
        return replace(policies, default=replace(policies.default, **chosen))
    number = parse_type(peer)
    changed = replace(policies.of(number), **chosen)
    return replace(policies, by_type={**policies.by_type, number: changed})
