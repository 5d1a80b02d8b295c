"""What an operator is told of the pool, as plain rows; read when somebody asks, and only then."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from typing import Any

import msgpack

from mpmsgr.dispatch.lanes import Lane, Worker
from mpmsgr.dispatch.routes import KeyName
from mpmsgr.pool.front import PoolFront
from mpmsgr.pool.io_memory import IoMemory
from mpmsgr.pool.items import FULL, LATER, PARKED, OnceLane, PoolLane, SessionLane, raw_of
from mpmsgr.pool.seat import Seat
from mpmsgr.wire.v1.parcel import raw_ids

Row = dict[str, Any]
Args = Mapping[str, Any]

_HELD = {FULL: "outbox full", LATER: "retried later", PARKED: "behind a handler that waits"}
#: Members of a group that are named, and characters of a value that does not fit into an answer.
_NAMED, _SHOWN = 100, 8000


class Report:
    """Of *front*, and of *memory*, which is shared with workers, if any is."""

    def __init__(self, front: PoolFront, memory: IoMemory | None) -> None:
        self._front, self._memory = front, memory
        self._work = front.work
        self._now = asyncio.get_running_loop().time
        self.providers: dict[str, Callable[[Args], Iterable[Row] | Row]] = {
            "lanes": lambda args: map(self._lane_row, self._busy_lanes()),
            "state": self.states,
            "groups": lambda args: self.groups(),
            "throttles": lambda args: front.throttles.statistics(),
            "arena": lambda args: self.arenas(),
            "load": lambda args: [self._load_row(seat) for seat in self._work.seats.values()],
        }

    # lanes

    def _busy_lanes(self) -> list[PoolLane]:
        return [lane for lane in self._work.board.by_id.values() if not lane.is_empty or lane.holds]

    def _lane_row(self, lane: PoolLane) -> Row:
        kind, of = self._name(lane)
        return {
            "id": lane.id,
            "kind": kind,
            "of": of,
            "worker": lane.worker.slot if lane.worker is not None else None,
            "in_flight": len(lane.inflight),
            "waiting": lane.waiting_count,
            "waiting_bytes": lane.waiting_bytes,
            "held": [text for reason, text in _HELD.items() if lane.holds & reason],
            "state_bytes": len(lane.state),
        }

    def _name(self, lane: PoolLane) -> tuple[str, str]:
        """What orders *lane*, and whose it is."""
        if isinstance(lane, SessionLane):
            return "session", str(lane.session.peer_addr)
        if isinstance(lane, OnceLane):
            return "once", ""
        name = self._work.board.name_of(lane)
        return ("every", name[1].decode()) if name[0] == "@every" else ("key", key_text(name))

    # state

    def states(self, args: Args) -> Iterator[Row]:
        """What is kept, and where: *of* names a lane, as here or by its id, or the peer of a
        session by HOST:PORT, or the value of a key; then its content is told too.
        """
        wanted = args.get("of")
        rows = [row for lane in self._work.board.by_id.values() if (row := self._state_row(lane))]
        if wanted is None:
            return iter(rows)
        found = [row for row in rows if str(wanted) in _names(row)]
        if not found:
            raise LookupError(f"no state is kept for {wanted}")
        by_id = self._work.board.by_id
        return (row | {"state": _shown(by_id[row["id"]].state)} for row in found)

    def _state_row(self, lane: PoolLane) -> Row | None:
        if not lane.state:
            return None
        kind, of = self._name(lane)
        return {"id": lane.id, "kind": kind, "of": of, "state_bytes": len(lane.state)}

    def groups(self) -> Iterator[Row]:
        """The groups: how many members, and the first of them by session id."""
        for name, members in self._front.groups.members.items():
            yield {
                "name": name,
                "members": len(members),
                "sessions": list(islice(members, _NAMED)),
            }

    # shared memory

    def arenas(self) -> Row:
        """The arenas, and what workers keep of the first one although it is handled."""
        ingress = self._work.ingress
        leases = [
            {"worker": slot, "lease_bytes": nbytes, "age_s": round(age_s, 3)}
            for slot, nbytes, age_s in (ingress.leases() if ingress is not None else ())
        ]
        leases.sort(key=lambda row: row["age_s"], reverse=True)
        return {"arenas": self._arena_rows(), "leases": leases[:_NAMED]}

    def _arena_rows(self) -> list[Row]:
        ingress = self._work.ingress
        if ingress is None or self._memory is None:
            return []
        ingress.collect()
        rows = [_arena("ingress", ingress.size, ingress.used, ingress.slots, ingress.waiting)]
        for slot, memory in sorted(self._memory.slots.items()):
            memory.collect()
            occupied = memory.occupied
            used = sum(length for _, length in occupied)
            rows.append(_arena(f"worker {slot}", memory.arena_bytes, used, len(occupied), None))
        return rows

    # workers

    def _load_row(self, seat: Seat) -> Row:
        worker, memory, now = seat.worker, seat.memory, self._now()
        row: Row = {
            "slot": worker.slot,
            "generation": worker.generation,
            "held": worker.held,
            "held_bytes": worker.held_bytes,
            "credit": worker.credit.messages,
            "lanes": len(worker.lanes),
            "retiring": worker.retiring,
            "oldest_s": self._oldest_s(seat, now),
            "busy_s": seat.busy_us / 1e6,
            "failed": seat.failed,
        }
        if memory is not None:
            page = memory.page
            row["handled"] = page.handled
            row["running"] = self._running(seat, now, page.running, page.started())
        return row

    def _running(self, seat: Seat, now: float, sync: int, started: list[int]) -> list[Row]:
        """What the worker has begun: *sync* is the item that has its thread; the longest first."""
        rows, items = [], _in_flight(seat.worker)
        for number in started:
            if number not in items:
                continue  # completed, and said so since
            lane, item = items[number]
            for_s = seat.ages.of(number, now)
            if number == sync:  # whatever it completed before, it has told
                for_s = min(for_s, now - seat.heard_at)
            raw = raw_of(item)
            type_ = raw_ids(raw)[2] if raw is not None else None
            rows.append({"type": type_, "lane": lane.id, "for_s": round(for_s, 3)})
        return sorted(rows, key=lambda row: row["for_s"], reverse=True)

    def _oldest_s(self, seat: Seat, now: float) -> float | None:
        first = min((lane.numbers[0] for lane in seat.worker.lanes if lane.numbers), default=None)
        return None if first is None else round(seat.ages.of(first, now), 3)

    # counters

    def counters(self) -> Row:
        """The section "pool" of the counters."""
        front, tally, now = self._front, self._front.tally, self._now()
        ages = [age for seat in self._work.seats.values() if (age := self._oldest_s(seat, now))]
        arenas = self._arena_rows()
        return {
            "in_work": self._work.count,
            "in_work_bytes": front.throttles.dispatch.current,
            "oldest_s": max(ages, default=0.0),
            "completed_ago_s": round(now - tally.completed_at, 3),
            "arena_size_bytes": {row["arena"]: row["size_bytes"] for row in arenas},
            "arena_used_bytes": {row["arena"]: row["used_bytes"] for row in arenas},
            "handled_total": tally.handled,
            "failed_total": tally.failed,
            "busy_s_total": tally.busy_us / 1e6,
            "redelivered_total": tally.redelivered,
            "quarantined_total": front.quarantined,
            "recalls_total": front.recalled,
            "pushes_dropped_total": front.pushes_dropped,
            "stage_s": tally.stages.as_dict(),
        }


def _arena(name: str, size: int, used: int, slots: int, waiting: int | None) -> Row:
    return {
        "arena": name,
        "size_bytes": size,
        "used_bytes": used,
        "slots": slots,
        "waiting": waiting,
    }


def _in_flight(worker: Worker) -> dict[int, tuple[Lane[Any], Any]]:
    """What *worker* holds, by number."""
    return {
        number: (lane, item)
        for lane in worker.lanes
        for number, item in zip(lane.numbers, lane.inflight, strict=True)
    }


def key_text(name: KeyName) -> str:
    """A key for people: ``field=value``, or ``front[0:4]=0x…``."""
    key, value = name
    if isinstance(key, tuple):
        return f"front[{key[0]}:{key[1]}]=0x{value.hex()}"
    return f"{key}={_plain(msgpack.unpackb(value, strict_map_key=False))}"


def _names(row: Row) -> tuple[str, ...]:
    """By which a lane can be asked for."""
    of = row["of"]
    return str(row["id"]), of, of.rpartition("/")[0], of.partition("=")[2]


def _shown(packed: bytes) -> Any:
    """The state that is kept, as JSON can hold it."""
    shown = _plain(msgpack.unpackb(packed, strict_map_key=False))
    text = repr(shown)
    return shown if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(_plain(key)): _plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    if isinstance(value, bytes):
        return f"0x{value.hex()}"
    if value is None or isinstance(value, str | int | float):  # a bool is an int
        return value
    return repr(value)
