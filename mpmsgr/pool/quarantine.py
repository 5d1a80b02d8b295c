"""Where messages go that must not be handed out again: a spool on disk, or the log alone."""

from __future__ import annotations

import logging
import time
from concurrent.futures import ThreadPoolExecutor

from mpmsgr.pool.quarantined import Quarantined
from mpmsgr.pool.spool import Spool
from mpmsgr.session.session import Session
from mpmsgr.wire.crc import Bytes

log = logging.getLogger("mpmsgr.quarantine")


class Quarantine:
    """Writes to *spool* in a thread of its own, for fsync takes its time. None: nothing is kept."""

    def __init__(self, spool: Spool | None) -> None:
        self.count = 0
        self._spool = spool
        self._thread = ThreadPoolExecutor(1, "quarantine") if spool is not None else None

    def put(self, session: Session, raw: Bytes, attempts: int, cause: str, signal: int) -> None:
        """*raw*, of *session*, is not handed out any more: after *attempts*, for *cause*."""
        self.count += 1
        item = Quarantined.of(
            raw,
            at=time.time(),
            peer=str(session.peer_addr),
            nonce=session.peer_addr.nonce,
            session=session.id,
            attempts=attempts,
            cause=cause,
            signal=signal,
        )
        text = f"type {item.type:#x}, tid {item.tid} of {item.peer}, attempt {attempts}: {cause}"
        if self._thread is None:
            log.error("%s; it is dropped, for there is no quarantine_dir", text)
        else:
            self._thread.submit(self._store, item, text)

    def _store(self, item: Quarantined, text: str) -> None:
        assert self._spool is not None
        try:
            log.error("%s; quarantined as %s", text, self._spool.store(item))
        except OSError as err:
            log.error("%s; it is dropped, for it cannot be stored: %s", text, err)

    def close(self) -> None:
        """Wait until all is written."""
        if self._thread is not None:
            self._thread.shutdown()
