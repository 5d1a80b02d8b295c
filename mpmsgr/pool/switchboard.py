"""Which lane a message goes to: its session's, its key's, or one of its own."""

from __future__ import annotations

from typing import Any, TypeVar

from mpmsgr.dispatch.handling import Handling
from mpmsgr.dispatch.routes import KeyName, Routes, key_of
from mpmsgr.pool.items import KeyLane, OnceLane, PoolLane, SessionLane, raw_of
from mpmsgr.session.session import Session
from mpmsgr.wire.v1.parcel import decode_raw, raw_ids

L = TypeVar("L", bound=PoolLane)

#: So many lanes of keys that have neither messages nor a state are remembered, for their worker.
_IDLE_KEYS = 10_000


class Switchboard:
    """The lanes there are. by_id: all of them; routes: what handlers asked for, None: not known
    yet; is_plain: every message goes to the lane of its session.
    """

    def __init__(self) -> None:
        self.by_id: dict[int, PoolLane] = {}
        self.routes: Routes | None = None
        self.is_plain = True
        self._keys: dict[KeyName, KeyLane] = {}
        self._names: dict[int, KeyName] = {}  # by lane id
        self._last_id = 0

    def new_session(self, session: Session) -> SessionLane:
        """The lane of *session*, which has none yet."""
        lane = session.connection = SessionLane(session)
        self.by_id[session.id] = lane
        return lane

    def learn(self, routes: Routes) -> None:
        """What handlers ask for is known, or has changed."""
        self.routes, self.is_plain = routes, routes.plain

    def own_lane(self, item: Any) -> PoolLane | None:
        """The lane of a message that its handler does not want in its session's order, or None."""
        raw = raw_of(item)
        if raw is None or self.routes is None:
            return None
        handling = self.routes.of(raw_ids(raw)[2])
        if handling.ordering == "session":
            return None
        if handling.ordering == "none":
            return self._new(OnceLane)
        name = key_of(handling, decode_raw(raw).front)
        return None if name is None else self.key_lane(name)

    def handling_of(self, item: Any) -> Handling | None:
        """How a message is handled, as far as that is known."""
        raw = raw_of(item)
        return self.routes.of(raw_ids(raw)[2]) if raw is not None and self.routes else None

    def key_lane(self, name: KeyName) -> KeyLane:
        """The lane of a key."""
        lane = self._keys.get(name)
        if lane is None:
            lane = self._keys[name] = self._new(KeyLane)
            self._names[lane.id] = name
        return lane

    def name_of(self, lane: PoolLane) -> KeyName:
        """The key of *lane*, which is that of a key."""
        return self._names[lane.id]

    def _new(self, kind: type[L]) -> L:
        self._last_id -= 1
        lane = kind(self._last_id)
        self.by_id[lane.id] = lane
        return lane

    def idle_keys(self) -> list[KeyLane]:
        """Half of the lanes of keys that nothing is known of but their worker, if it is time."""
        if len(self._keys) <= _IDLE_KEYS:
            return []
        idle = [lane for lane in self._keys.values() if lane.is_empty and not lane.state]
        return idle[: len(idle) // 2 + 1]

    def remove(self, lane: PoolLane) -> None:
        """Forget *lane*."""
        self.by_id.pop(lane.id, None)
        name = self._names.pop(lane.id, None)
        if name is not None:
            del self._keys[name]
