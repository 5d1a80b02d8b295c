"""What a handler can say of a message instead of answering it: returned or raised."""

from __future__ import annotations

from mpmsgr.dispatch.codes import ErrorCode


class Verdict(Exception):
    """Root of the verdicts. What the handler has sent until then is dropped, its state undone."""


class Retry(Verdict):
    """Not now: run the handler again in *after* seconds; its lane waits until then."""

    def __init__(self, after: float = 1.0) -> None:
        if not after >= 0:
            raise ValueError(f"after is {after!r}: must be 0 seconds or more")
        self.after = float(after)
        super().__init__(f"again in {self.after:g} s")


class Reject(Verdict):
    """Not this one: the requester gets an error reply with *reason*."""

    def __init__(self, reason: str, code: int = ErrorCode.REJECTED) -> None:
        self.reason, self.code = reason, code
        super().__init__(reason)


class Poison(Verdict):
    """Never again: the message goes to quarantine with *reason*, the requester gets an error."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(reason)
