"""Codes of the error reply (message type 0x8000), the same on every wire."""

from __future__ import annotations

from enum import IntEnum


class ErrorCode(IntEnum):
    """Why a request got no ordinary reply. Applications use codes from 1000 up."""

    UNHANDLED = 1  # no dispatcher takes this type
    HANDLER_FAILED = 2  # the handler raised an exception
    BAD_PAYLOAD = 3  # the payload does not fit the message's class
    WORKER_LOST = 4  # reserved: the worker that had it died, and it is not to be done again
    SHUTTING_DOWN = 5  # reserved: the service is going away; nothing here sends these two
    QUARANTINED = 6  # it killed its workers, or its handler called it poison
    REJECTED = 7  # its handler refused it
