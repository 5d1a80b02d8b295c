"""The error family: one root, a handful of kinds, facts as attributes.

    MessengerError
    ├── ProtocolError        the peer (or we) broke the wire protocol; the connection faults
    ├── HandshakeRefused     the peer does not want this session (version, features, authorizer)
    ├── ConnectError         no session could be established in time
    ├── RequestTimeout       no reply in time
    ├── RemoteError          the peer answered with an error reply (message type 0x8000)
    ├── SessionReset         the session is gone, and with it what was not delivered
    ├── OutboxFull           a peer that does not keep up: no more may be queued for it
    ├── HandlerError         a handler asked for what it cannot have
    ├── PluginError          a dispatcher module cannot be loaded or declares nonsense
    ├── WorkerError          a worker process failed
    ├── ServiceError         a service under test did not start, or did not end as it should
    ├── AdminError           a running server refuses what its operator asks, or is silent
    │   └── NoServerError    there is no server to ask
    └── ConfigError          a setting has a value that is not allowed

Texts are made from the facts. Between processes errors travel as data, never as pickles.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

#: What code of a plugin fails with. sys.exit(), which a library of its may call, is among it: the
#: process is not the plugin's to end.
PLUGIN_FAILURES = (Exception, SystemExit)


class MessengerError(Exception):
    """Root of every error this package raises on purpose."""


class ProtocolError(MessengerError):
    """Bytes that break the protocol.

    field: name of the offending field (``"front_len"``); value: what was found; allowed: what the
    protocol allows, in words; offset: byte offset in the stream of that socket, or None where no
    stream is involved; fault: ``"peer"`` (it sent this) or ``"local"`` (we were about to).
    """

    def __init__(
        self,
        field: str,
        value: object,
        allowed: str,
        *,
        offset: int | None = None,
        fault: str = "peer",
    ) -> None:
        self.field, self.value, self.allowed = field, value, allowed
        self.offset, self.fault = offset, fault
        where = "" if offset is None else f" at byte {offset}"
        super().__init__(f"{field} is {value!r}{where}, allowed: {allowed} ({fault}'s fault)")


class HandshakeRefused(MessengerError):
    """The handshake ended with *tag* (its name), not a session; *detail* says what differed."""

    def __init__(self, tag: str, detail: str) -> None:
        self.tag, self.detail = tag, detail
        super().__init__(f"handshake refused with {tag}: {detail}")


class ConnectError(MessengerError):
    """No session with *address*: attempts made so far and the cause of the last failure."""

    def __init__(self, address: object, attempts: int, cause: BaseException | str | None) -> None:
        self.address, self.attempts, self.cause = address, attempts, cause
        plural = "attempt" if attempts == 1 else "attempts"
        why = f": {cause}" if cause else ""
        super().__init__(f"no session with {address} after {attempts} {plural}{why}")


class RequestTimeout(MessengerError):
    """No reply within *timeout_s* seconds; *state* says what the session was doing."""

    def __init__(self, address: object, type_: int, tid: int, timeout_s: float, state: str) -> None:
        self.address, self.type, self.tid = address, type_, tid
        self.timeout_s, self.state = timeout_s, state
        super().__init__(
            f"no reply from {address} to type {type_:#x} tid {tid} within {timeout_s:g} s"
            f" (session {state})"
        )


class RemoteError(MessengerError):
    """The peer's error reply: *code* (an int of `mpmsgr.dispatch.codes`), *text*, further facts."""

    def __init__(self, code: int, text: str, facts: Mapping[str, Any] | None = None) -> None:
        self.code, self.text, self.facts = code, text, dict(facts or {})
        super().__init__(f"{text} (code {code})")


class SessionReset(MessengerError):
    """The session with *address* ended; *lost* messages, of transactions *tids*, were dropped."""

    def __init__(self, address: object, lost: int = 0, tids: Sequence[int] = ()) -> None:
        self.address, self.lost, self.tids = address, lost, tuple(tids)
        super().__init__(f"session with {address} was reset, {lost} messages dropped")


class OutboxFull(MessengerError):
    """*nbytes* wait for the peer at *address* already; policy `outbox_bytes` allows *limit*."""

    def __init__(self, address: object, nbytes: int, limit: int) -> None:
        self.address, self.nbytes, self.limit = address, nbytes, limit
        super().__init__(f"{nbytes} bytes wait for {address}, at most {limit} may")


class HandlerError(MessengerError):
    """A handler asked for *what* it cannot have; *text* says why, and what would do."""

    def __init__(self, what: str, text: str) -> None:
        self.what, self.text = what, text
        super().__init__(f"{what} {text}")


class PluginError(MessengerError):
    """Dispatcher module *module* cannot be used; *text* says why, with a traceback if any."""

    def __init__(self, module: str, text: str) -> None:
        self.module, self.text = module, text
        super().__init__(f"{module}: {text}")


class WorkerError(MessengerError):
    """Worker *slot* (of *generation*) failed with *cause*."""

    def __init__(self, slot: int, generation: int, cause: str) -> None:
        self.slot, self.generation, self.cause = slot, generation, cause
        super().__init__(f"worker {slot} (generation {generation}): {cause}")


class ServiceError(MessengerError):
    """A service under test, *what*: *text* says what is wrong with it, *log* is what it wrote."""

    def __init__(self, what: str, text: str, log: str) -> None:
        self.what, self.text, self.log = what, text, log
        super().__init__(f"{what}: {text}; its log:\n{log}" if log else f"{what}: {text}")


class AdminError(MessengerError):
    """A server's refusal: *kind* is a word for programs, *text* for people.

    kind: request (it is wrong), unknown (what it names is not there), unavailable (not in this
    server, or not now), failed, silent, gone, none.
    """

    def __init__(self, kind: str, text: str) -> None:
        self.kind, self.text = kind, text
        super().__init__(text)


class NoServerError(AdminError):
    """There is no running server, or more than one to choose from; *text* says which."""

    def __init__(self, text: str) -> None:
        super().__init__("none", text)


class ConfigError(MessengerError):
    """Setting *field* has *value*; *allowed* says in words what it may be."""

    def __init__(self, field: str, value: object, allowed: str) -> None:
        self.field, self.value, self.allowed = field, value, allowed
        super().__init__(f"{field} = {value!r}: {allowed}")
