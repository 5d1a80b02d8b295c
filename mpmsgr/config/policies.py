"""Session policies as tables of the configuration: ``[policy.client]``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from mpmsgr.config import kinds
from mpmsgr.errors import ConfigError
from mpmsgr.session.policy import PRESETS, Policy
from mpmsgr.wire.name import TYPE_LABELS

#: Fields of `Policy` that a table may set beside its preset.
POLICY_FIELDS = (
    "keepalive_period_s",
    "keepalive_timeout_s",
    "idle_timeout_s",
    "standby_timeout_s",
    "on_remote_reset",
    "dedupe_window",
    "outbox_bytes",
    "outbox_full",
    "ack",
    "throttle_messages",
    "throttle_bytes",
    "urgent",
)
#: Those that are no durations.
_POLICY_KINDS: Mapping[str, kinds.Kind] = {
    "dedupe_window": kinds.Whole(),
    "outbox_bytes": kinds.Size(),
    "throttle_messages": kinds.Whole(),
    "throttle_bytes": kinds.Size(),
    "urgent": kinds.Switch(),
}
_PRESET_FIELDS = ("lossy", "server", "standby", "resetcheck", "register_lossy_clients")


def policy_of(table: Mapping[str, Any], base: Policy) -> Policy:
    """*base* with what *table* says. Raises ConfigError naming the key and what is allowed."""
    changes: dict[str, Any] = {}
    for key, value in table.items():
        if key == "preset":
            if value not in PRESETS:
                raise ConfigError(key, value, f"must be {kinds.one_of(tuple(PRESETS))}")
            changes |= {name: getattr(PRESETS[value], name) for name in _PRESET_FIELDS}
        elif key not in POLICY_FIELDS:
            raise ConfigError(key, value, f"must be {kinds.one_of(('preset', *POLICY_FIELDS))}")
        else:
            changes[key] = _policy_value(key, value, getattr(base, key))
    return replace(base, **changes)


def _policy_value(key: str, value: Any, default: Any) -> Any:
    """*value* of the field that has *default*; words are checked by `Policy`."""
    if isinstance(default, str):
        return value
    try:
        return _POLICY_KINDS.get(key, kinds.Seconds()).read(value)
    except ValueError as exc:
        raise ConfigError(key, value, str(exc)) from None


@dataclass(frozen=True)
class PolicyTables(kinds.Tables):
    """Policies by peer type: ``[policy.client]`` with ``preset`` and fields of `Policy`."""

    def read(self, raw: Any) -> dict[str, dict[str, Any]]:
        """The tables, each with a known peer type, a known preset and sound values."""
        tables = super().read(raw)
        for peer, table in tables.items():
            if peer not in (*TYPE_LABELS, "default"):
                raise ValueError(f"{peer!r} must be {kinds.one_of((*TYPE_LABELS, 'default'))}")
            try:
                policy_of(table, Policy())
            except (ConfigError, TypeError) as exc:
                raise ValueError(f"[policy.{peer}]: {exc}") from None
        return tables
