"""Which sessions may be read, as far as that depends on what is in work (dispatch spec §2, §3).

What came in one read is in work already; if that is too much, its session is not read on until
there is some room again. A large message gets its room before its payload is read (`Sink.place`).
While anybody waits, reads are short: so little comes beyond a maximum per session.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from mpmsgr.dispatch.throttle import Throttle
from mpmsgr.logs import RateLimit, held_back
from mpmsgr.session.pipe import Pipe
from mpmsgr.session.session import Pause, Session
from mpmsgr.wire.name import type_label

if TYPE_CHECKING:
    from mpmsgr.messenger.driver import Driver

log = logging.getLogger("mpmsgr.dispatch")

#: Part of `dispatch_bytes` that only urgent peers may fill, where there are any.
RESERVE = 8
#: Messages longer than this are throttled before they are read, where nothing else is asked for.
CLAIMS_ABOVE = 64 * 1024
#: What a message in work takes beside its bytes, on average: measured 112 in the I/O process.
PER_MESSAGE = 128
#: So much has to be free, or half of the maximum, before a session is read again: it is not worth
#: the while for less.
_ROOM = {"bytes": 1 << 20, "messages": 128}
_NO_LIMIT = 1 << 62
#: A payload that comes slower than this, bytes per second, is given up after so many seconds if
#: others wait.
_LEAST_RATE, _GRACE_S = 64 * 1024, 5.0
_LOOK_EVERY_S = 1.0
#: Lines about one throttle are at least so far apart, in seconds.
_SAY_EVERY_S = 10.0


class _Waiter:
    """What waits at *throttles* one after the other, in the order of the spec; at: which one."""

    __slots__ = ("at", "session", "throttles")

    def __init__(self, session: Session, throttles: tuple[_Throttle, ...]) -> None:
        self.session, self.throttles = session, throttles
        self.at = 0

    @property
    def throttle(self) -> _Throttle:
        return self.throttles[self.at]

    @property
    def is_through(self) -> bool:
        return self.at == len(self.throttles)

    def get(self) -> bool:
        """May it pass the throttle? If not, it waits there."""
        raise NotImplementedError

    def passed(self) -> list[_Waiter]:
        """It has waited, and has got what it waited for; who else goes on by that?"""
        return []


class _Reading(_Waiter):
    """A session that is not read. It waits for some *room* at each throttle, and keeps none of
    it.
    """

    __slots__ = ("room",)

    def get(self) -> bool:
        throttle, urgent = self.throttle, self.session.policy.urgent
        # Noted: the maximum may be another one when it gets it.
        self.room = min(throttle.limit(urgent) // 2, _ROOM[throttle.unit])
        return not throttle.is_full(urgent) or throttle.get(self.room, self, urgent)

    def passed(self) -> list[_Waiter]:
        return self.throttle.put(self.room)


class _Claim(_Waiter):
    """A message that is to be received from *pipe*, or (it is through) is being received: it keeps
    what it gets until it has arrived. since: when somebody began to wait for that, who then had
    `got` bytes of it.
    """

    __slots__ = ("got", "lead", "pipe", "since", "size")

    def __init__(
        self,
        session: Session,
        throttles: tuple[_Throttle, ...],
        pipe: Pipe,
        size: int,
        lead: int,
    ) -> None:
        super().__init__(session, throttles)
        self.pipe, self.size, self.lead = pipe, size, lead
        self.since, self.got = 0.0, 0

    @property
    def amount(self) -> int:
        return self.size if self.throttle.unit == "bytes" else 1

    def get(self) -> bool:
        return self.throttle.get(self.amount, self, self.session.policy.urgent)

    def give_back(self) -> None:
        """Return what it has got so far."""
        while self.at:
            self.at -= 1
            self.throttle.give_back(self.amount)


class _Throttle(Throttle[_Waiter]):
    """A throttle as people know it. option: what sets its maximum; unit: of what it counts."""

    __slots__ = ("name", "option", "unit")

    def __init__(self, max: int, name: str, option: str, unit: str) -> None:
        super().__init__(max)
        self.name, self.option, self.unit = name, option, unit

    def statistics(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "current": self.current,
            "max": self.max,
            "waiting": self.waiting,
            "full_count": self.full_count,
        }


class Throttles:
    """The throttles of a messenger: messages and bytes per peer type, then *dispatch_bytes* of all.

    place(pipe, size, lead): what `Sink.place` answers when there is room. dispatch: the last one;
    the sink counts bytes, and PER_MESSAGE, in its `current` itself, and calls `came` when that
    exceeds `quick`; of_types: do peer types have throttles of their own? Then it tells `took` and
    `gave_back` too. waits: does anybody wait? Then it calls `look` after it gave something back.
    """

    def __init__(
        self, dispatch_bytes: int, place: Callable[[Pipe, int, int], memoryview | None]
    ) -> None:
        self.dispatch = _Throttle(dispatch_bytes, "dispatch", "dispatch_bytes", "bytes")
        self.quick = dispatch_bytes or _NO_LIMIT
        self.of_types = self.waits = False
        self._place = place
        self._own: dict[int | None, tuple[_Throttle, _Throttle]] = {}  # messages, bytes
        self._all = [self.dispatch]
        self._readings: dict[Session, _Reading] = {}
        self._claims: dict[Pipe, _Claim] = {}
        self._rate = RateLimit(_SAY_EVERY_S)
        self._timer: asyncio.TimerHandle | None = None
        self._loop = asyncio.get_running_loop()
        self._driver: Driver

    def attach(self, driver: Driver) -> None:
        """Sessions are those of *driver*, and their policies'."""
        self._driver = driver
        driver.throttles = self
        policies = driver.endpoint.policies
        self._types = frozenset(policies.by_type)
        self._has_urgent = any(policy.urgent for _, policy in policies.tables())
        self.dispatch.reserve = self._reserve(self.dispatch.max)
        for type_, policy in policies.tables():
            label = "default" if type_ is None else type_label(type_)
            if policy.may_deadlock:
                log.warning(
                    "[policy.%s] has a throttle between peers that wait for each other: two of them"
                    " that do not read can stop each other for good",
                    label,
                )
            if policy.is_throttled:
                table = f"[policy.{label}] throttle_"
                messages = _Throttle(
                    policy.throttle_messages, f"{label}.messages", f"{table}messages", "messages"
                )
                nbytes = _Throttle(
                    policy.throttle_bytes, f"{label}.bytes", f"{table}bytes", "bytes"
                )
                self._own[type_] = messages, nbytes
                self._all += self._own[type_]
        self.of_types = bool(self._own)
        self._changed()

    def set_dispatch_bytes(self, dispatch_bytes: int) -> None:
        """Bound what is in work by so much from now on; who waited for less goes on."""
        self.dispatch.reserve = self._reserve(dispatch_bytes)
        self._go_on(self.dispatch.reset_max(dispatch_bytes))
        self._changed()

    def _reserve(self, dispatch_bytes: int) -> int:
        return dispatch_bytes // RESERVE if self._has_urgent else 0

    def close(self) -> None:
        """Nobody is let go on any more."""
        if self._timer is not None:
            self._timer.cancel()

    def statistics(self) -> list[dict[str, Any]]:
        """Per throttle name, current, max, waiting (sessions and messages), full_count."""
        return [throttle.statistics() for throttle in self._all]

    def _of(self, session: Session) -> tuple[_Throttle, ...]:
        """The throttles of *session*, in the order of the spec."""
        return (*self._own_of(session), self.dispatch)

    def _own_of(self, session: Session) -> tuple[_Throttle, ...]:
        type_ = session.peer_type
        return self._own.get(type_ if type_ in self._types else None, ())

    # what is in work

    def took(self, session: Session, messages: int, nbytes: int) -> None:
        """So much of *session* is in work now."""
        for throttle in self._own_of(session):
            throttle.take(nbytes if throttle.unit == "bytes" else messages)

    def gave_back(self, session: Session, messages: int, nbytes: int) -> None:
        """So much of *session* is not any more; see `look`."""
        for throttle in self._own_of(session):
            throttle.give_back(nbytes if throttle.unit == "bytes" else messages)

    # who is read

    def came(self, session: Session) -> None:
        """Messages of *session* came and are in work: is it read on?"""
        claim = self._claims.get(session.pipe) if session.pipe is not None else None
        if claim is not None and claim.is_through:
            return  # it has room for the rest of that message; then it is asked again
        reading = self._readings.get(session)
        if reading is None:
            reading = _Reading(session, self._of(session))
            if self._advance(reading):
                return
            self._readings[session] = reading
            self._changed()
        self._driver.pause_reading(session, Pause.DISPATCH)

    def let_through(self, session: Session) -> None:
        """*session* does not wait any more: it is over, or has to be read for its acks."""
        reading = self._readings.pop(session, None)
        if reading is not None:
            self._go_on(reading.throttle.leave(reading))
            self._driver.resume_reading(session, Pause.DISPATCH)
        claim = self._claims.get(session.pipe) if session.pipe is not None else None
        if claim is not None and not claim.is_through:
            waiters = claim.throttle.leave(claim)
            claim.give_back()
            claim.throttles = ()
            self._let(claim)
            self._go_on(waiters)
        self._changed()

    # messages that get their room first

    def claim(self, pipe: Pipe, size: int, lead: int) -> bool:
        """Is there room for a message of *size* bytes? If not, it waits for its place."""
        assert pipe.session is not None
        claim = _Claim(pipe.session, self._of(pipe.session), pipe, size, lead)
        self._claims[pipe] = claim
        through = self._advance(claim)
        if self.waits or not through:
            self._changed()
        return through

    def unclaim(self, pipe: Pipe) -> None:
        """The message that *pipe* claimed is over: if it arrived, its bytes are in work next."""
        claim = self._claims.pop(pipe, None)
        if claim is None:
            return
        waiters = [] if claim.is_through else claim.throttle.leave(claim)
        claim.give_back()
        self._go_on(waiters)
        if self.waits:
            self._loop.call_soon(self.look)

    # going on

    def look(self) -> None:
        """Something was given back: who waited for it goes on."""
        for throttle in self._all:
            if throttle.waiting:
                self._go_on(throttle.go_on())
        self._changed()

    def _go_on(self, waiters: list[_Waiter]) -> None:
        for waiter in waiters:  # the list grows
            waiters += waiter.passed()
            waiter.at += 1
            if self._advance(waiter):
                self._let(waiter)

    def _advance(self, waiter: _Waiter) -> bool:
        """As far as there is room; is it through?"""
        while not waiter.is_through:
            if not waiter.get():
                self._say_full(waiter.throttle, waiter.session)
                return False
            waiter.at += 1
        return True

    def _let(self, waiter: _Waiter) -> None:
        if isinstance(waiter, _Reading):
            del self._readings[waiter.session]
            self._driver.resume_reading(waiter.session, Pause.DISPATCH)
        elif isinstance(waiter, _Claim):
            place = self._place(waiter.pipe, waiter.size, waiter.lead)
            if place is not None:
                self._driver.grant(waiter.pipe, place)

    def _changed(self) -> None:
        """Somebody waits, or nobody does any more."""
        before, self.waits = self.waits, any(throttle.waiting for throttle in self._all)
        always = self.waits or self.of_types
        self.quick = -1 if always else self.dispatch.limit(urgent=False) or _NO_LIMIT
        if self.waits == before:
            return
        self._driver.read_briefly(self.waits)
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_later(_LOOK_EVERY_S, self._cut_slow) if self.waits else None

    # upkeep

    def _cut_slow(self) -> None:
        """While others wait, nobody keeps room for a payload that hardly comes."""
        self._timer = self._loop.call_later(_LOOK_EVERY_S, self._cut_slow)
        for pipe, cause in list(self._slow()):
            self._driver.endpoint.pipe_failed(pipe, cause, self._driver.now())
        self._driver.run()
        self.look()

    def _slow(self) -> Iterator[tuple[Pipe, str]]:
        now = self._driver.now()
        for pipe, claim in self._claims.items():
            if not claim.is_through or claim.session.paused:
                claim.since = 0.0
                continue
            stage = pipe.established
            got = stage.parser.buffered if stage is not None else 0
            if not claim.since:
                claim.since, claim.got = now, got
            cause = too_slow(got - claim.got, claim.size - claim.got, now - claim.since)
            if cause:
                yield pipe, cause

    def _say_full(self, throttle: _Throttle, session: Session) -> None:
        peer = type_label(session.peer_type)
        held = self._rate.allows(f"{throttle.name} {peer}", self._driver.now())
        if held is not None:
            log.warning(
                "%s peers are not read: %d %s in work, at most %d (%s); %d wait%s",
                peer,
                throttle.current,
                throttle.unit,
                throttle.max,
                throttle.option,
                throttle.waiting,
                held_back(held),
            )


def too_slow(got: int, size: int, took: float) -> str:
    """Why *got* of *size* bytes in *took* seconds are too few while others wait, or ""."""
    if took <= _GRACE_S or got >= min(size, _LEAST_RATE * took):
        return ""
    return (
        f"{got} of {size} bytes of a message came in {took:.0f} s, less than"
        f" {_LEAST_RATE} a second, while others wait for room"
    )
