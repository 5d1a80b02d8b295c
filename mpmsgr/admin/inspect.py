"""The I/O process's side of an operator's questions: what it knows, as plain rows.

The supervisor asks over the control channel and gets the answer in packets that fit it:

    {"op": "query", "id": 7, "what": "sessions", "args": {"limit": 10}}
    {"op": "answer", "id": 7, "more": true, "value": [row, ...]}    lists, any number of these
    {"op": "answer", "id": 7, "more": false, "value": ...}
    {"op": "answer", "id": 7, "more": false, "kind": "unknown", "error": "..."}

Whoever knows something registers a provider for it; the messenger's own are here.
"""

from __future__ import annotations

import asyncio
import heapq
import logging
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import msgpack

from mpmsgr.control import MAX_PACKET_BYTES, ControlChannel, Packet
from mpmsgr.errors import ConfigError
from mpmsgr.messenger.messenger import Messenger
from mpmsgr.messenger.transport import PipeTransport
from mpmsgr.session.actions import Write
from mpmsgr.session.policy import PRESETS, Policy
from mpmsgr.session.session import Pause, Session
from mpmsgr.wire.name import type_label
from mpmsgr.wire.v1.frames import CLOSE

log = logging.getLogger("mpmsgr.admin")

Row = dict[str, Any]
Args = Mapping[str, Any]
#: Answers one kind of question: rows (made while they are sent: a generator is fine) or one map.
#: Raises LookupError when what *args* name is not there, ValueError when they are wrong.
Provider = Callable[[Args], Iterable[Row] | Row]
#: Counters and gauges of one section: see `Inspector.count`.
Counters = Callable[[], Mapping[str, Any]]

#: Bytes of rows in one packet: the rest is room for its head, and for one more row.
_PIECE_BYTES = MAX_PACKET_BYTES // 2


class Inspector:
    """Answers questions of the supervisor, one after the other, a packet per turn of the loop."""

    def __init__(self, channel: ControlChannel) -> None:
        self._channel = channel
        self._providers: dict[str, Provider] = {"perf": self._perf}
        self._counters: dict[str, Counters] = {}
        self._asked: deque[Packet] = deque()
        self._task: asyncio.Task[None] | None = None

    def register(self, what: str, provider: Provider) -> None:
        """*provider* answers questions for *what*."""
        self._providers[what] = provider

    def count(self, section: str, counters: Counters) -> None:
        """*counters* belong to what `perf` tells, under *section*.

        A name that ends in ``_total`` only grows, others are gauges. A value is a number, a map of
        numbers by kind, or a histogram: {"le": [bounds], "counts": [per bucket, and above], "sum"}.
        """
        self._counters[section] = counters

    def attach(self, messenger: Messenger) -> None:
        """Tell of *messenger* and its sessions."""
        self.register("sessions", lambda args: session_rows(messenger, args))
        self.register("kick", lambda args: kick(messenger, args))
        self.count("messenger", lambda: messenger_counters(messenger))

    def ask(self, packet: Packet) -> None:
        """A ``query`` came."""
        self._asked.append(packet)
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._answer_all())

    def close(self) -> None:
        """Answer nothing more."""
        if self._task is not None:
            self._task.cancel()

    async def _answer_all(self) -> None:
        while self._asked:
            packet = self._asked.popleft()
            id_, what = packet["id"], packet["what"]
            try:
                await self._answer(id_, self._provider(what)(packet["args"]))
            except UnavailableError as err:
                self._fail(id_, "unavailable", str(err))
            except (LookupError, ValueError, ConfigError) as err:
                self._fail(id_, "unknown", str(err.args[0] if err.args else err))
            except Exception as err:
                log.exception("%s cannot be told", what)
                self._fail(id_, "failed", f"{type(err).__name__}: {err}")
            await self._room()

    def _provider(self, what: str) -> Provider:
        if what not in self._providers:
            raise UnavailableError(f"this server keeps no {what}")
        return self._providers[what]

    async def _answer(self, id_: int, value: Iterable[Row] | Row) -> None:
        if isinstance(value, dict):
            self._send(id_, more=False, value=value)
            return
        piece: list[Row] = []
        size = 0
        for row in value:
            piece.append(row)
            size += len(msgpack.packb(row, default=repr))
            if size > _PIECE_BYTES:
                self._send(id_, more=True, value=piece)
                piece, size = [], 0
                await self._room()
        self._send(id_, more=False, value=piece)

    async def _room(self) -> None:
        """Let others have the loop, and wait until the supervisor has read what it was sent."""
        await asyncio.sleep(0)
        if not self._channel.has_backlog:
            return
        loop, written = asyncio.get_running_loop(), asyncio.Event()

        def flush() -> None:
            self._channel.flush()
            if not self._channel.has_backlog:
                written.set()

        loop.add_writer(self._channel.fileno(), flush)
        try:
            await written.wait()
        finally:
            loop.remove_writer(self._channel.fileno())

    def _send(self, id_: int, *, more: bool, value: Any) -> None:
        self._channel.send("answer", id=id_, more=more, value=value)

    def _fail(self, id_: int, kind: str, text: str) -> None:
        self._channel.send("answer", id=id_, more=False, kind=kind, error=text[:4096])

    def _perf(self, args: Args) -> Row:
        return {section: dict(counters()) for section, counters in self._counters.items()}


class UnavailableError(LookupError):
    """Nobody knows anything about that here."""


# sessions


def session_rows(messenger: Messenger, args: Args) -> Iterable[Row]:
    """The sessions, one row each.

    args: sort (of `SORTS`, largest first), limit, state, peer_type, id; tcp adds TCP_INFO.
    """
    now = messenger.now()
    sessions: Iterable[Session] = messenger.endpoint.registry
    for name, value_of in _FILTERS.items():
        if args.get(name) is not None:
            sessions = [s for s in sessions if value_of(s) == args[name]]
    sort, limit = args.get("sort"), args.get("limit")
    if sort is not None:
        if sort not in SORTS:
            raise ValueError(f"sort must be one of {', '.join(SORTS)}")
        key = SORTS[sort]
        sessions = (
            sorted(sessions, key=key, reverse=True)
            if limit is None
            else heapq.nlargest(limit, sessions, key=key)
        )
    elif limit is not None:
        sessions = list(sessions)[:limit]
    return (session_row(s, now, tcp=bool(args.get("tcp"))) for s in sessions)


_FILTERS: dict[str, Callable[[Session], Any]] = {
    "id": lambda s: s.id,
    "state": lambda s: s.state.value,
    "peer_type": lambda s: type_label(s.peer_type),
}
#: What sessions can be ordered by.
SORTS: dict[str, Callable[[Session], float]] = {
    "outbox": lambda s: s.outbox.nbytes,
    "traffic": lambda s: s.in_seq + s.outbox.out_seq,
    "silence": lambda s: -s.last_received,
    "age": lambda s: -s.opened_at,
}


def session_row(session: Session, now: float, *, tcp: bool = False) -> Row:
    """One session at *now*: numbers are bytes, messages or seconds as their names say."""
    outbox = session.outbox
    row: Row = {
        "id": session.id,
        "peer_type": type_label(session.peer_type),
        "peer": str(session.target or session.peer_addr),
        "state": session.state.value,
        "policy": policy_name(session.policy),
        "in_seq": session.in_seq,
        "acked_seq": session.in_seq_acked,
        "out_seq": outbox.out_seq,
        "connect_seq": session.connect_seq,
        "queued": outbox.queued,
        "unacked": len(outbox.sent),
        "outbox_bytes": outbox.nbytes,
        "full": session.full,
        "paused": [str(reason.name).lower() for reason in Pause if reason in session.paused],
        "age_s": round(now - session.opened_at, 3) if session.opened_at else None,
        "silent_s": round(now - session.last_received, 3) if session.last_received else None,
        "cause": session.cause,
    }
    if tcp:
        handle = session.pipe.handle if session.pipe else None
        row["tcp"] = handle.tcp_info() if isinstance(handle, PipeTransport) else {}
    return row


_KIND = ("lossy", "server", "standby", "resetcheck", "register_lossy_clients")
_NAMES: dict[tuple[bool, ...], str] = {
    tuple(getattr(p, f) for f in _KIND): name for name, p in PRESETS.items()
}


def policy_name(policy: Policy) -> str:
    """The preset that *policy* is a kind of, ``other`` if there is none."""
    return _NAMES.get(tuple(getattr(policy, flag) for flag in _KIND), "other")


def kick(messenger: Messenger, args: Args) -> Row:
    """End session ``id``: its peer gets CLOSE, the dispatchers a reset; the peer may come again."""
    session = messenger.endpoint.registry.sessions.get(args["id"])
    if session is None:
        raise LookupError(f"there is no session {args['id']}")
    dropped = session.outbox.queued + len(session.outbox.sent)
    endpoint, driver = messenger.endpoint, messenger.driver
    if session.pipe is not None and session.pipe.established is not None:
        last = b"".join(session.pipe.output(driver.now()))
        endpoint.emit(Write(session.pipe, last + CLOSE))
    endpoint.end(session, "ended by the operator")
    driver.run()
    log.warning("session %d, peer %s: ended by the operator", session.id, session.peer_addr)
    return {"id": args["id"], "peer": str(session.peer_addr), "dropped": dropped}


def messenger_counters(messenger: Messenger) -> Row:
    """Counters of the endpoint; sessions by state, and what is in their outboxes, in bytes."""
    states: Counter[str] = Counter()
    outbox = 0
    for session in messenger.endpoint.registry.sessions.values():
        states[session.state.value] += 1
        outbox += session.outbox.nbytes
    counters = vars(messenger.endpoint.counters)
    return {
        "sessions": dict(states),
        "max_sessions": messenger.endpoint.max_sessions,
        "outbox_bytes": outbox,
        **{f"{name}_total": value for name, value in counters.items()},
    }
