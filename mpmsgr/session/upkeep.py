"""What faults and time do to sessions (session spec §10, §11)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mpmsgr.session.actions import Flush
from mpmsgr.session.faults import FaultFacts, FaultResult, decide_fault
from mpmsgr.session.states import Move, State
from mpmsgr.wire.features import MSGR_KEEPALIVE2, has_feature

if TYPE_CHECKING:
    from mpmsgr.session.endpoint import Endpoint
    from mpmsgr.session.session import Session

_U32 = 0xFFFFFFFF
#: While we do not read a session, its peer hears from us so often, in seconds, whatever its policy
#: says of keepalives: it cannot know why its own get no answer.
_PAUSED_PERIOD_S = 10.0


class Upkeep:
    """Keeps the sessions of *endpoint* going: reconnects, parks, watches and ends them."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint

    def fault(self, session: Session, cause: str, now: float, accepting: bool) -> None:
        """Spec §10; *accepting*: the incoming handshake had not ended (spec §6, last table)."""
        facts = FaultFacts(
            session.state,
            session.lossy,
            session.policy.server,
            session.policy.standby or accepting,
            session.is_queued or bool(session.outbox.sent),
        )
        result = decide_fault(facts).result
        if result is FaultResult.END:
            self._endpoint.end(session, cause)
            return
        session.outbox.requeue_sent()
        if result is FaultResult.PARK or not session.can_dial:
            session.backoff_s = 0.0
            session.move(Move.PARK)
            session.parked_at = now
            self._endpoint.schedule(session, now + session.policy.standby_timeout_s)
            return
        if result is FaultResult.RECONNECT:
            session.connect_seq = (session.connect_seq + 1) & _U32
            session.backoff_s = 0.0
            delay = 0.0
        else:
            delay = self._endpoint.backoff.spread(session.backoff_s)
            session.backoff_s = self._endpoint.backoff.after(session.backoff_s)
        session.move(Move.RETRY)
        session.retry_at = now + delay
        self.tick(session, now)

    def tick(self, session: Session, now: float) -> None:
        """Do what is due for *session*, and ask to be woken for what is due next."""
        state = session.state
        if state is State.OPEN:
            self.watch(session, now)
        elif state is State.STANDBY:
            limit = session.policy.standby_timeout_s
            if limit and now >= session.parked_at + limit:
                self._endpoint.end(session, f"the peer did not come back within {limit:g} s")
            elif limit:
                self._endpoint.schedule(session, session.parked_at + limit)
        elif state is State.CLOSED or (state is State.CONNECTING and session.pipe is not None):
            pass
        elif now < session.retry_at:
            self._endpoint.schedule(session, session.retry_at)
        else:
            if state is State.WAIT:
                self._endpoint.detach(session)
                session.move(Move.RETRY)
            self._endpoint.dial(session, now)

    def watch(self, session: Session, now: float) -> None:
        """Silence of an open session: ask for a sign of life, or give it up."""
        policy, pipe = session.policy, session.pipe
        if session.paused or pipe is None:
            session.last_received = now
        heard = session.last_received
        # A plain KEEPALIVE has no answer: only KEEPALIVE2 makes silence a sign of death.
        answers = has_feature(session.features, MSGR_KEEPALIVE2)
        patience = (policy.keepalive_timeout_s if answers else 0, policy.idle_timeout_s)
        limits = [t for t in patience if t]
        # Compared with the moments asked for: `now - heard` may round to less than was waited.
        if pipe is not None and limits and now >= heard + min(limits):
            silent = now - heard
            self._endpoint.pipe_failed(pipe, f"not a byte from the peer for {silent:.1f} s", now)
            return
        due = [heard + t for t in limits]
        period = self._period(session)
        if period:
            ask_at = heard + period
            if pipe is not None and (session.paused or now >= ask_at):
                session.keepalive_due = True
                self._endpoint.emit(Flush(pipe))
                ask_at = now + period
            due.append(ask_at)
        if due:
            self._endpoint.schedule(session, min(due))

    def paused(self, session: Session, now: float) -> None:
        """*session* is not read any more: see that it gets keepalives."""
        if session.state is State.OPEN:
            self._endpoint.schedule(session, now + self._period(session))

    @staticmethod
    def _period(session: Session) -> float:
        """Seconds between keepalives, 0 = there are none."""
        return session.policy.keepalive_period_s or (_PAUSED_PERIOD_S if session.paused else 0.0)
