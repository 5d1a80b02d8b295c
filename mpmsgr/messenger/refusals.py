"""What becomes of a message that is not handled: a log line, an error reply to its requester."""

from __future__ import annotations

import logging
from time import monotonic

from mpmsgr.dispatch.codes import ErrorCode
from mpmsgr.dispatch.connection import Connection
from mpmsgr.dispatch.payload import PayloadError, error_reply, wants_error
from mpmsgr.dispatch.verdicts import Reject
from mpmsgr.errors import RemoteError
from mpmsgr.logs import RateLimit, held_back
from mpmsgr.wire.message import Message

log = logging.getLogger("mpmsgr.dispatch")

#: Longest text of an error reply, in characters.
MAX_ERROR_TEXT = 4096


def refuse(con: Connection, m: Message, code: int, text: str) -> None:
    """Send the error reply to *m*, if it is a request."""
    if wants_error(m.type, m.tid):
        con.send_message(error_reply(m.tid, m.priority, code, text[:MAX_ERROR_TEXT]))


def refuse_failed(con: Connection, m: Message, err: BaseException, rate: RateLimit) -> bool:
    """The handler of *m* has raised *err*, which is no verdict but Reject: log it, answer.

    rate: of lines about payloads, which are the peer's fault, and may be as many as it sends.
    Returns whether it has failed: what it raised is no answer, and not the peer's fault.
    """
    if isinstance(err, Reject):
        refuse(con, m, err.code, err.reason)
    elif isinstance(err, RemoteError):
        refuse(con, m, err.code, err.text)
    elif isinstance(err, PayloadError):
        held = rate.allows("payload", monotonic())
        if held is not None:
            log.warning("%s, from %s%s", err, con, held_back(held))
        refuse(con, m, ErrorCode.BAD_PAYLOAD, err.text)
    else:
        log.error("handler of type %#x failed, tid %d of %s", m.type, m.tid, con, exc_info=err)
        refuse(con, m, ErrorCode.HANDLER_FAILED, f"handler failed: {type(err).__name__}: {err}")
        return True
    return False
