"""The messenger: an endpoint with a name, an address, dispatchers and connections."""

from __future__ import annotations

import asyncio
import secrets
import socket
from collections.abc import Callable, Collection, Iterator
from random import Random
from typing import Any, Self

from mpmsgr.dispatch.authorities import Authorities
from mpmsgr.dispatch.chain import Chain
from mpmsgr.dispatch.connection import Connection
from mpmsgr.dispatch.dispatcher import Dispatcher
from mpmsgr.dispatch.group import Group
from mpmsgr.dispatch.invocation import Invocation
from mpmsgr.errors import MessengerError, SessionReset
from mpmsgr.messenger.accepter import bind_sockets, raise_fd_limit
from mpmsgr.messenger.binding import Binding
from mpmsgr.messenger.connection import LocalConnection, MessengerConnection
from mpmsgr.messenger.driver import Driver
from mpmsgr.messenger.fast import FastCounts, FastSink
from mpmsgr.messenger.in_work import InWork
from mpmsgr.messenger.inject import FaultyDriver
from mpmsgr.messenger.local import LocalSink
from mpmsgr.messenger.local_group import LocalGroup, LocalService
from mpmsgr.messenger.loopback import LoopbackConnection
from mpmsgr.messenger.sender import Sender
from mpmsgr.messenger.sink import Sink
from mpmsgr.session.auth import Authenticator, NoAuthentication
from mpmsgr.session.endpoint import Endpoint, Timing
from mpmsgr.session.handled import HandledPrefix
from mpmsgr.session.inject import Injection, Injector
from mpmsgr.session.policy import Policies, Policy, default_policies
from mpmsgr.session.session import Session, Target
from mpmsgr.session.states import State
from mpmsgr.wire.address import EntityAddr, split_address
from mpmsgr.wire.crc import Bytes
from mpmsgr.wire.limits import Limits
from mpmsgr.wire.message import PRIO_DEFAULT, Message
from mpmsgr.wire.name import EntityName, parse_type


class Messenger:
    """``async with Messenger("svc.0") as m:``: start, use, shut down.

    name: ``TYPE.NUMBER`` or ``TYPE.?``. nonce: u32 naming this instance, random by default; two
    messengers of one host need different ones. policies: by peer type; the defaults are ours
    between `client` and `svc`, Ceph's towards Ceph's types. advertise: the address told to peers
    where it is not the bound one (NAT, containers). authenticator: asked where no dispatcher gets
    or verifies authorizers. send_priority: of messages that name none. fast_budget_s: how long a
    fast callback may take (0: any time) without being counted and logged. dispatch_bytes: of
    messages that our own dispatchers have in work, above which peers that send more are not read
    (0: no limit). max_sessions: with so many, new peers are refused (0: no limit). drain_s: how
    long `shutdown` waits for handlers, replies and their acks.
    injection: faults on purpose. The rest: see its classes.

    endpoint: our sessions; binding: where we listen; sender: what is sent goes through it, send:
    its own; undelivered: after `shutdown`, per session what no peer has acknowledged; unfinished:
    its time was up before everything received was handled.
    """

    def __init__(
        self,
        name: str | EntityName = "client.?",
        *,
        nonce: int | None = None,
        policies: Policies | None = None,
        advertise: str | None = None,
        limits: Limits | None = None,
        timing: Timing | None = None,
        authenticator: Authenticator | None = None,
        protocol_version: int = 0,
        first_id: int = 1,
        sink: Sink | None = None,
        injection: Injection | None = None,
        send_priority: int = PRIO_DEFAULT,
        fast_budget_s: float = 0.001,
        dispatch_bytes: int = 0,
        max_sessions: int = 0,
        drain_s: float = 5.0,
    ) -> None:
        self.name = name if isinstance(name, EntityName) else EntityName.parse(name)
        self.chain = Chain()
        self.io_chain = Chain()
        self.closed = False
        self.undelivered: list[SessionReset] = []
        self.unfinished = False
        self._drain_s = drain_s
        self._dispatch_bytes = dispatch_bytes
        self.endpoint = Endpoint(
            self.name,
            EntityAddr(nonce=secrets.randbits(32) if nonce is None else nonce),
            policies or default_policies(self.name.type),
            Random(secrets.randbits(64)),
            limits=limits,
            timing=timing,
            authenticator=Authorities(self._authorities, authenticator or NoAuthentication()),
            protocol_version=protocol_version,
            first_id=first_id,
        )
        self.endpoint.max_sessions = max_sessions
        self.binding = Binding(self.endpoint, advertise)
        self.sender = Sender(self.endpoint, send_priority)
        self.send = self.sender.send
        self._given_sink = sink
        self._injection = injection
        self._driver: Driver | None = None
        self._local: LocalSink | None = None
        self._loopback: LoopbackConnection | None = None
        self._fast: FastSink | None = None
        self._fast_budget_s = fast_budget_s
        self._fast_connection_of: Callable[[Session], Connection] = self.connection_of
        self._over = asyncio.Event()

    # life

    async def __aenter__(self) -> Self:
        self.start()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.shutdown()

    def start(self) -> None:
        """Begin, on the running loop; later calls do nothing."""
        if self._driver is not None:
            return
        raise_fd_limit()
        throttled = any(policy.is_throttled for _, policy in self.endpoint.policies.tables())
        bounded = self._given_sink is None and (throttled or self._dispatch_bytes > 0)
        in_work = InWork(self._dispatch_bytes) if bounded else None
        self._local = LocalSink(
            self.chain,
            self.connection_of,
            self._overrun,
            self._handled,
            LocalService(self),
            LoopbackConnection(self),
            in_work,
        )
        self._local.use_chain(self.chain)
        sink, advertise = self._given_sink or self._local, self.binding.advertise
        if self._injection is None:
            self._driver = Driver(self.endpoint, sink, advertise)
        else:
            injector = Injector(self._injection, Random(self._injection.seed))
            self._driver = FaultyDriver(self.endpoint, sink, advertise, injector)
        self._driver.on_answer = self._answered
        self.sender.driver = self._driver
        if in_work is not None:
            in_work.throttles.attach(self._driver)
        self._use_fast()

    @property
    def driver(self) -> Driver:
        """What executes the endpoint's actions, once started."""
        return self._running()

    def _running(self) -> Driver:
        if self._driver is None:
            raise MessengerError("the messenger is not started: use `async with Messenger(...)`")
        return self._driver

    async def bind(self, *binds: str) -> EntityAddr:
        """Listen on each ``HOST:PORT`` (port 0 or ``A-B``: the first free one of the range).

        Returns the address peers are told. Accepting starts with the first dispatcher. Raises
        ConfigError.
        """
        self.listen(bind_sockets(list(binds)))
        return self.addr

    def listen(self, listeners: list[socket.socket]) -> list[EntityAddr]:
        """Take over listening sockets; the first one's address is ours. Returns all of them."""
        self.start()
        bound = self.binding.listen(listeners)
        self._accept_if_ready()
        return bound

    async def use_chain(self, chain: Chain) -> None:
        """Use the dispatchers of *chain* instead of those added so far, and start them."""
        self._running()
        assert self._local is not None
        self.chain = chain
        self._local.use_chain(chain)
        self._use_fast()
        await self._local.runner.start()
        self._accept_if_ready()

    async def use_io_chain(
        self, chain: Chain, connection_of: Callable[[Session], Connection] | None = None
    ) -> None:
        """Ask the dispatchers of *chain* before all others for what happens at once (`AT_ONCE`).

        Nothing else of them is called but on_start, now, and on_stop. connection_of(session): what
        they get, where that is no connection of ours.
        """
        self._running()
        assert self._local is not None
        self.io_chain = chain
        self._fast_connection_of = connection_of or self.connection_of
        self._use_fast()
        await self._local.runner.start(chain)

    def _use_fast(self) -> None:
        """Put the fast list between sessions and dispatchers, if there is anybody in it."""
        own = [] if self._given_sink else self.chain.fast
        fast, driver = [*self.io_chain.fast, *own], self._driver
        if driver is None or not (fast or self._fast):
            return
        if self._fast is None:
            self._fast = driver.sink = FastSink(
                driver.sink, driver, self._fast_connection_of, self._fast_budget_s
            )
        self._fast.use(fast)

    def _authorities(self) -> Iterator[Dispatcher]:
        yield from self.io_chain
        yield from self.chain

    def _accept_if_ready(self) -> None:
        driver = self._driver
        if driver is not None and (self._given_sink or len(self.chain)):
            self.binding.accept(driver)

    async def rebind(self, avoid_ports: Collection[int] = ()) -> EntityAddr:
        """Listen on other ports, as another incarnation (dispatch spec §6): nonce + 1000000.

        Every session ends with a reset. Ports of *avoid_ports* and the present ones are not
        taken. Raises ConfigError where no other is free, MessengerError where none was bound;
        then everything stays as it is.
        """
        listeners = self.binding.elsewhere(avoid_ports)
        await self.stop_accepting()
        self.endpoint.mark_down_all("we moved to another address")
        self._running().run()
        addr = self.addr
        self.endpoint.addr = addr._replace(nonce=(addr.nonce + 1_000_000) & 0xFFFFFFFF)
        self.listen(listeners)
        self._loopback_is_new()
        return self.addr

    async def stop_accepting(self) -> None:
        """No new connections, whoever else holds copies of the listening descriptors."""
        await self.binding.stop()

    async def shutdown(self, drain_s: float | None = None) -> int:
        """Stop in order; return how many messages were not acknowledged: see `undelivered`.

        New messages are ignored, handlers finish, replies and their acks are waited for, peers
        are told with CLOSE. Takes *drain_s* seconds at the most. A handler of ours may start it as
        a task, but not await it, for it waits for handlers.
        """
        if self.closed or self._driver is None:
            self.closed = True
            self._over.set()
            return 0
        await self.stop_accepting()
        self.endpoint.draining = True
        deadline = self.now() + (self._drain_s if drain_s is None else drain_s)
        self.unfinished = True
        try:
            async with asyncio.timeout_at(deadline):
                await self._driver.drain()
                self.unfinished = False
                await self._outboxes_empty()
        except TimeoutError:
            pass
        self.closed, self.sender.driver = True, None
        await self._end_sessions()
        self._over.set()
        return sum(reset.lost for reset in self.undelivered)

    async def wait(self) -> None:
        """Return when `shutdown` is done, whoever called it."""
        await self._over.wait()

    async def _outboxes_empty(self) -> None:
        """Wait until every reachable peer has acknowledged everything."""
        while any(s.outbox.nbytes for s in self.endpoint.registry if s.state is State.OPEN):  # noqa: ASYNC110 (acks raise no event)
            await asyncio.sleep(0.002)

    async def _end_sessions(self) -> None:
        assert self._driver is not None
        for session in self.endpoint.registry:
            self._fail_requests(session)
            lost = self.endpoint.close(session, self.now())
            if lost:
                peer = session.target or session.peer_addr
                self.undelivered.append(SessionReset(peer, len(lost), lost))
        self._driver.run()
        if self._loopback is not None:
            for end in (self._loopback, self._loopback.other):
                end.was_reset(SessionReset(self.addr), final=True)
                end.priv = None
        assert self._local is not None
        self._local.close()
        self._local.runner.cancel()
        await self._local.runner.stop()
        await self._driver.close()

    def statistics(self) -> dict[str, Any]:
        """Counters of the endpoint and the dispatch, and the number of sessions."""
        found = {"sessions": len(self.endpoint.registry), **vars(self.endpoint.counters)}
        found["unhandled"] = self._local.runner.unhandled if self._local is not None else 0
        counts = vars(self._fast.counts if self._fast is not None else FastCounts())
        return found | {f"fast_{name}": count for name, count in counts.items()}

    # dispatchers

    def add_dispatcher_head(self, dispatcher: Dispatcher) -> None:
        """Ask *dispatcher* first."""
        self.chain.add_head(dispatcher)
        self._chain_changed()

    def add_dispatcher_tail(self, dispatcher: Dispatcher) -> None:
        """Ask *dispatcher* last."""
        self.chain.add_tail(dispatcher)
        self._chain_changed()

    def _chain_changed(self) -> None:
        if self._local is not None:
            self._local.use_chain(self.chain)
        self._use_fast()
        self._accept_if_ready()

    # connections

    @property
    def addr(self) -> EntityAddr:
        """Our address; the ip is blank until bound or learned from a peer."""
        return self.endpoint.addr

    def get_connection(
        self,
        addr: str | EntityAddr,
        peer_type: str | int = "svc",
        *,
        policy: Policy | None = None,
        verify_address: bool = True,
    ) -> MessengerConnection | LoopbackConnection:
        """The connection to *addr*, ``HOST:PORT[/NONCE]``; a new one connects in the background.

        verify_address=False takes whatever address the server announces (NAT, port maps).
        Our own address gives the loopback. Raises ValueError for a wrong address or peer type,
        or a policy that never connects.
        """
        self.start()
        driver = self._running()
        target = _target(addr)
        if self._is_own(target):
            return self.get_loopback_connection()
        number = parse_type(peer_type) if isinstance(peer_type, str) else peer_type
        session = self.endpoint.connect(
            target, number, driver.now(), policy=policy, verify_address=verify_address
        )
        con = self.connection_of(session)
        driver.run()
        return con

    def get_loopback_connection(self) -> LoopbackConnection:
        """The connection to ourselves."""
        self.start()
        if self._loopback is None:
            self._loopback = LoopbackConnection.pair(self)
            self._loopback_is_new()
        return self._loopback

    def _loopback_is_new(self) -> None:
        if self._fast is not None and self._loopback is not None:
            for end in (self._loopback, self._loopback.other):
                self._fast.connected(end)

    def send_message(
        self, m: Any, addr: str | EntityAddr, peer_type: str | int = "svc", *, data: Bytes = b""
    ) -> bool:
        """Send to whoever is at *addr*: see `get_connection`, `Connection.send_message`."""
        return self.get_connection(addr, peer_type).send_message(m, data)

    def connection(self, id_: int) -> MessengerConnection:
        """The connection with *id_*; for one that is gone or never was, what sends nothing."""
        session = self.endpoint.registry.sessions.get(id_)
        return self.connection_of(session or Session.over(id_))

    def _is_own(self, target: Target) -> bool:
        own = self.addr
        place = (target.host, target.port) == (own.host, own.port)
        return place and own.port > 0 and target.nonce in (None, own.nonce)

    def connection_of(self, session: Session) -> MessengerConnection:
        """The connection of *session*."""
        con: MessengerConnection | None = session.connection
        if con is None:
            con = session.connection = MessengerConnection(self, session)
        return con

    # what connections ask for

    def now(self) -> float:
        """The loop's clock, in seconds."""
        return self._running().now()

    def read_on(self, con: MessengerConnection) -> None:
        """*con* has asked its peer for a reply, which may be behind what there is no room for."""
        if self._local is not None:
            self._local.read_on(con)

    def running(self) -> Invocation | None:
        """The callback that runs now."""
        return self._local.runner.current() if self._local is not None else None

    def holder(self) -> Invocation | None:
        """The callback that holds back what is sent now."""
        return self._local.runner.holder() if self._local is not None else None

    def group(self, name: str, con: LocalConnection | None = None) -> Group:
        """The group *name* of our connections; *con* may join it, if it is a peer's."""
        assert self._local is not None
        session = con.session if isinstance(con, MessengerConnection) else None
        return LocalGroup(name, self, self._local.groups, session)

    def send_keepalive(self, session: Session) -> None:
        """Ask for a sign of life."""
        driver = self._running()
        self.endpoint.send_keepalive(session, driver.now())
        driver.run()

    def mark_down(self, whose: Session | str | EntityAddr) -> None:
        """End a session, whose pending requests raise; that with an address, with a reset event."""
        if isinstance(whose, Session):
            self._fail_requests(whose, self.endpoint.mark_down(whose))
        else:
            registry = self.endpoint.registry
            session = registry.find(whose) if isinstance(whose, EntityAddr) else None
            session = session or registry.find_target(_target(whose))
            if session is not None:
                self.endpoint.end(session, "marked down by its address")
        self._running().run()

    def mark_down_all(self) -> None:
        """End every session, with reset events, and every handshake."""
        self.endpoint.mark_down_all("all were marked down")
        self._running().run()

    # what happens to them

    def to_ourselves(self, con: LoopbackConnection, m: Message) -> None:
        """*m* has come to loopback end *con*."""
        assert self._local is not None
        if self._fast is None or not self._fast.dispatches(con, m):
            self._local.dispatch(con, m)

    def _overrun(self, session: Session) -> None:
        self.endpoint.overrun(session, self.now())

    def _handled(self, session: Session, seq: int, prefix: HandledPrefix) -> None:
        self.endpoint.handled(session, [seq], self.now(), prefix=prefix)
        self._running().run()

    def _fail_requests(self, session: Session, lost: list[int] | None = None) -> None:
        if session.connection is not None and self._given_sink is None:
            tids = lost or []
            error = SessionReset(session.target or session.peer_addr, len(tids), tids)
            self.connection_of(session).was_reset(error, final=True)

    def _answered(self, session: Session) -> None:
        if session.connection is not None and self._given_sink is None:
            self.connection_of(session).answered(self.now())


def _target(addr: str | EntityAddr) -> Target:
    if isinstance(addr, EntityAddr):
        return Target(addr.host, addr.port, addr.nonce or None)
    host, port, nonce = split_address(addr)
    if not host or not port:
        raise ValueError(f"address {addr!r}: must be HOST:PORT or HOST:PORT/NONCE")
    return Target(host, port, nonce)
