"""What a process sends: encoded, and put into the outboxes of sessions."""

from __future__ import annotations

from mpmsgr.dispatch.invocation import Invocation
from mpmsgr.errors import OutboxFull
from mpmsgr.messenger.driver import Driver
from mpmsgr.messenger.tids import TidSource
from mpmsgr.session.endpoint import Endpoint
from mpmsgr.session.session import Session
from mpmsgr.session.states import State
from mpmsgr.wire.message import Message
from mpmsgr.wire.v1.parcel import Parcel, encode_parcel


class Sender:
    """Messages of *endpoint* leave through it, at once or when a handler completes.

    priority: of messages that name none. tids: for those that have none. driver: once the
    messenger is started and until it has shut down; without one nothing is sent.
    """

    def __init__(self, endpoint: Endpoint, priority: int) -> None:
        self.tids = TidSource()
        self.driver: Driver | None = None
        self._endpoint = endpoint
        self._priority = priority

    def send(self, session: Session, m: Message) -> bool:
        """Encode and queue *m*; False: the session is over.

        Raises ValueError where *m* cannot be sent, OutboxFull as the policy says.
        """
        if self.driver is None:
            return False
        parcel = self._encode(m)
        if parcel.push and not self._endpoint.admit(session, parcel.size):
            self._refuse(session)
            return True
        return self._queue(session, parcel)

    def hold(self, session: Session, m: Message, run: Invocation) -> bool:
        """The same, but *m* is queued when the handler *run* has completed."""
        if self.driver is None or session.state is State.CLOSED:
            return False
        parcel = self._encode(m)
        policy = session.policy
        limit = 0 if policy.outbox_full == "drop_oldest" else policy.outbox_bytes
        held = run.hold_push(session.id, parcel.size, limit) if parcel.push else 0
        if parcel.push and not self._endpoint.admit(session, held):
            run.drop_push(session.id, parcel.size)
            self._refuse(session)
            return True
        run.hold(lambda: self._queue(session, parcel), parcel.size)
        return True

    def sign(self, m: Message) -> None:
        """Make *m* one of ours, if it is not encoded: it may have its tid and priority already."""
        m.tid = m.tid or self.tids.next()
        m.priority = m.priority or self._priority
        m.src, m.nonce = self._endpoint.name, self._endpoint.addr.nonce

    def _encode(self, m: Message) -> Parcel:
        endpoint = self._endpoint
        name = endpoint.name
        endpoint.limits.check(len(m.front), len(m.middle), len(m.data))
        m.priority = m.priority or self._priority
        if not m.tid:
            m.tid, m.src, m.nonce = self.tids.next(), name, endpoint.addr.nonce
        parcel = encode_parcel(m, name)
        parcel.push = m.src is name  # the tid is ours, maybe from the peer it went to before
        return parcel

    def _queue(self, session: Session, parcel: Parcel) -> bool:
        driver = self.driver
        if driver is None:
            return False
        queued = self._endpoint.send(session, [parcel], driver.now())
        if session.full:  # at once: the action comes after the messages that are being handled
            driver.sink.full(session, True)
        driver.run()
        return queued

    def _refuse(self, session: Session) -> None:
        """A push finds the outbox full: it is dropped, or OutboxFull raised, as the policy says."""
        policy = session.policy
        drops = policy.outbox_full == "drop_oldest"
        self._endpoint.push_dropped(session, int(drops))
        if self.driver is not None:
            self.driver.run()
        if not drops:
            raise OutboxFull(session.peer_addr, session.outbox.nbytes, policy.outbox_bytes)
