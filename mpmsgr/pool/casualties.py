"""Messages that are not handed out again: they killed too many workers, or are called poison."""

from __future__ import annotations

import logging
from typing import Any

from mpmsgr.dispatch.attempts import Again
from mpmsgr.dispatch.codes import ErrorCode
from mpmsgr.dispatch.payload import error_reply, wants_error
from mpmsgr.messenger.driver import Driver
from mpmsgr.pool.items import PoolLane, SessionLane, attempt_of, owner_of, raw_of
from mpmsgr.pool.quarantine import Quarantine
from mpmsgr.wire.crc import Bytes
from mpmsgr.wire.v1.parcel import encode_parcel, raw_ids

log = logging.getLogger("mpmsgr.pool")


class Casualties:
    """Puts them into *quarantine*, and tells their requesters through *driver*."""

    def __init__(self, quarantine: Quarantine, driver: Driver) -> None:
        self._quarantine = quarantine
        self._driver = driver

    def condemn(self, lane: PoolLane, again: Again[Any], cause: str, signal: int) -> None:
        """*again*, of *lane*, has killed too many workers, the last one for *cause*."""
        owner, raw = owner_of(lane, again), raw_of(again)
        if owner is None or raw is None:
            log.error("%s, %d times while it handled %r", cause, again.deaths, again.item)
            return
        self._quarantine.put(owner.session, raw, again.deaths, cause, signal)
        times = "once" if again.deaths == 1 else f"{again.deaths} times"
        self._refuse(owner, raw, f"its worker died of it, {times}; {cause}")

    def poison(self, lane: PoolLane, done: list[Any], poison: list[Any]) -> None:
        """Handlers have called messages among *done* poison: (index, reason) of each."""
        for index, reason in poison:
            item = done[index]
            owner, raw = owner_of(lane, item), raw_of(item)
            if owner is not None and raw is not None:
                text = f"poison: {reason}"
                self._quarantine.put(owner.session, raw, attempt_of(item), text, 0)

    def _refuse(self, owner: SessionLane, raw: Bytes, text: str) -> None:
        _seq, tid, type_, priority = raw_ids(raw)
        if wants_error(type_, tid):
            reply = error_reply(tid, priority, ErrorCode.QUARANTINED, text)
            endpoint = self._driver.endpoint
            parcel = encode_parcel(reply, endpoint.name)
            endpoint.send(owner.session, [parcel], self._driver.now())
