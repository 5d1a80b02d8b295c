"""``mpmsgr ping``: shake hands with any v1 peer and tell what it said."""

from __future__ import annotations

import asyncio
import json
import textwrap
import time
from typing import TYPE_CHECKING, Any

import click

from mpmsgr.cli import params
from mpmsgr.cli.exit_codes import ExitCode

if TYPE_CHECKING:
    from mpmsgr.messenger.connection import MessengerConnection

_POLICY_FLAGS = ("lossy", "server", "standby", "resetcheck")


@click.command("ping")
@params.address
@params.peer_type
@params.timeout(5.0)
@params.as_json
def command(address: str, peer_type: str, timeout_s: float, as_json: bool) -> int:
    """Open a session with the peer at ADDR, a real Ceph daemon included.

    Prints its banner, the address it announces and the one it sees us under, the reply's tag, the
    negotiated features, the policy of the session and the round-trip time of a KEEPALIVE2.
    """
    said = asyncio.run(_ping(address, peer_type, timeout_s))
    click.echo(json.dumps(said) if as_json else text(said))
    if said["keepalive2"] and said["rtt_s"] is None:
        click.echo(f"mpmsgr ping: no answer to KEEPALIVE2 within {timeout_s:g} s", err=True)
        return ExitCode.TIMEOUT
    return ExitCode.OK


async def _ping(address: str, peer_type: str, timeout_s: float) -> dict[str, Any]:
    import mpmsgr

    started = time.monotonic()
    # A probe tells what the peer announces, also where that is not what was dialled (NAT).
    async with mpmsgr.connect(
        address, timeout=timeout_s, peer_type=peer_type, verify_address=False
    ) as con:
        said = facts(con, address)
        if said["keepalive2"]:
            said["rtt_s"] = await _round_trip(con, timeout_s - (time.monotonic() - started))
        return said


async def _round_trip(con: MessengerConnection, timeout_s: float) -> float | None:
    try:
        return round(await con.ping(max(timeout_s, 0.001)), 6)
    except TimeoutError:
        return None


def facts(con: MessengerConnection, address: str) -> dict[str, Any]:
    """What the handshake of *con* said, as plain values for JSON."""
    from mpmsgr.wire.features import MSGR_KEEPALIVE2, feature_names
    from mpmsgr.wire.name import type_label
    from mpmsgr.wire.v1.handshake import BANNER

    shake = con.handshake
    assert shake is not None  # the connection is open
    return {
        "address": address,
        "peer_type": type_label(con.peer_type),
        "banner": BANNER.decode(),
        "announced": str(shake.announced),
        "seen": str(shake.seen),
        "tag": shake.tag,
        "protocol_version": shake.protocol_version,
        "global_seq": shake.global_seq,
        "connect_seq": shake.connect_seq,
        "policy": {flag: getattr(con.policy, flag) for flag in _POLICY_FLAGS},
        "features": f"{con.features:#x}",
        "feature_names": feature_names(con.features),
        "keepalive2": con.has_features(MSGR_KEEPALIVE2),
        "rtt_s": None,
    }


def text(said: dict[str, Any]) -> str:
    """The facts for people, one per line."""
    lines = {
        "banner": said["banner"],
        "peer": f"{said['announced']} (as it announces itself)",
        "us": f"{said['seen']} (as it sees us)",
        "tag": said["tag"],
        "protocol": said["protocol_version"],
        "policy": _policy_text(said["policy"]),
        "features": f"{said['features']}\n{_wrapped(said['feature_names'])}",
        "round trip": _round_trip_text(said),
    }
    return "\n".join(f"{name:<11} {value}" for name, value in lines.items())


def _policy_text(policy: dict[str, bool]) -> str:
    return ", ".join(f"{flag} {'yes' if on else 'no'}" for flag, on in policy.items())


def _wrapped(names: list[str]) -> str:
    return textwrap.fill(" ".join(names), 100, initial_indent=" " * 12, subsequent_indent=" " * 12)


def _round_trip_text(said: dict[str, Any]) -> str:
    if not said["keepalive2"]:
        return "not measured, KEEPALIVE2 was not negotiated"
    return "no answer" if said["rtt_s"] is None else f"{said['rtt_s'] * 1e3:.2f} ms (KEEPALIVE2)"
