"""A history: a plan carried out, judged all along."""

from __future__ import annotations

from random import Random

from mpmsgr.session.endpoint import Timing
from mpmsgr.session.session import Session, Target
from mpmsgr.session.states import State
from tests.simulation.host import Books, Host
from tests.simulation.invariants import (
    Deliveries,
    Violation,
    check_acks,
    check_host,
    told_to_wait,
    unsettled,
)
from tests.simulation.network import Clock, Network
from tests.simulation.plan import SETUPS, STANDBY_S, Op, Plan

#: Once faults have stopped, all is settled within this many virtual seconds: a handshake that
#: stands still (10), a lost race (15), a full backoff (15), and the same again.
SETTLE_S = 80.0
_MOST_STEPS = 300_000
_CHECK_EVERY = 8
_PORT = 6800


class History:
    """Carries out *plan*. `run` raises Violation; the story is in `books`."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.clock, self.books = Clock(), Books()
        self.rng = Random(plan.seed ^ 0x5EED)
        self.network = Network(self.clock, Random(plan.seed ^ 0xCAB1E), plan.weather)
        self.setup = SETUPS[plan.setup]
        self.deliveries = Deliveries(plan, self.books, self.setup.lossy)
        self.books.on_delivery = self.deliveries.delivered
        self.books.on_event = self.deliveries.happened
        self.books.on_fault = self.deliveries.failed
        self.books.on_wait = told_to_wait
        if plan.one_priority:
            self.books.only_priority = 127
        self.all_hosts: list[Host] = []
        self.hosts = [self._new_host(number) for number in range(plan.hosts)]

    def _new_host(self, number: int, nonce: int | None = None) -> Host:
        plan = self.plan
        listens = self.setup.peers or number == 0
        host = Host(
            self.network,
            self.books,
            f"{'svc' if listens else 'client'}.{number}",
            f"10.0.0.{number + 1}",
            _PORT if listens else 0,
            plan.listens if listens else plan.dials,
            Random(self.rng.random()),
            nonce=self.rng.getrandbits(32) if nonce is None else nonce,
            timing=Timing(jitter=plan.jitter),
            echo=plan.echo,
            talkative=plan.talkative,
        )
        self.all_hosts.append(host)
        self.network.hosts.append(host)
        return host

    def run(self) -> int:
        """Let it happen; return the number of messages delivered. Raises Violation."""
        for op in self.plan.ops:
            self.clock.call_at(op.at, self._do, op)
        self._until(self.plan.duration_s)
        self.network.clear_up()
        for number in range(len(self.hosts)):
            self._send(Op(self.clock.now, "send", number))
        self._settle()
        if self.plan.churn:
            self._until(self.clock.now + STANDBY_S + SETTLE_S)
        self._until(self.clock.now + 30.0)
        self._at_the_end()
        return sum(len(t.delivered) for host in self.all_hosts for t in host.tracks.values())

    def _until(self, at: float) -> None:
        clock = self.clock
        while clock.next_at() <= at:
            clock.step()
            if clock.steps % _CHECK_EVERY == 0:
                self._check()
            if clock.steps > _MOST_STEPS:
                raise Violation("something goes round and round")
        clock.now = at
        self._check()

    def _check(self) -> None:
        for host in self.hosts:
            check_host(host)
            if self.setup.late:
                check_acks(host)

    def _settle(self) -> None:
        deadline = self.clock.now + SETTLE_S
        while self.clock.now < deadline:
            self._until(self.clock.now + 1.0)
            if not unsettled(self.hosts):
                return
        raise Violation(f"not settled {SETTLE_S:g} s after the faults: {unsettled(self.hosts)}")

    def _at_the_end(self) -> None:
        what = unsettled(self.hosts)
        if what:
            raise Violation(f"settled, and then not any more: {what}")
        self.deliveries.balance(self.all_hosts)
        for host in self.hosts:
            pipes = {s.pipe for s in host.endpoint.registry if s.pipe is not None}
            if host.endpoint.registry.pipes != pipes:
                raise Violation(f"{host.label}: pipes of nobody: {host.endpoint.registry.pipes}")

    # what happens

    def _do(self, op: Op) -> None:
        getattr(self, f"_{op.kind}")(op)

    def _send(self, op: Op) -> None:
        """The host sends to a service it connects to."""
        host, number = self.hosts[op.host], self._destination(op.host)
        if number is None:
            return
        host.send(host.connect(self._target(self.hosts[number])), op.amount)

    def _connect(self, op: Op) -> None:
        """The host connects, and has nothing to say."""
        number = self._destination(op.host)
        if number is not None:
            self.hosts[op.host].connect(self._target(self.hosts[number]))

    def _target(self, server: Host) -> Target:
        nonce = server.endpoint.addr.nonce if self.plan.know_nonce else None
        return Target(server.ip, _PORT, nonce)

    def _destination(self, number: int) -> int | None:
        if not self.setup.peers:
            return 0 if number else None
        return self.rng.choice([n for n in range(len(self.hosts)) if n != number])

    def _push(self, op: Op) -> None:
        """The host sends to whoever is connected to it."""
        host = self.hosts[op.host]
        session = self._some_session(host)
        if session is not None:
            host.send(session, op.amount, self.rng.choice((0, 0, 3000)))

    def _some_session(self, host: Host) -> Session | None:
        live = [s for s in host.endpoint.registry if s.state is not State.CLOSED]
        return self.rng.choice(live) if live else None

    def _cut(self, op: Op) -> None:
        ends = [end for end in self.network.ends if end.is_open]
        if ends:
            self.rng.choice(ends).cut()

    def _stall(self, op: Op) -> None:
        ends = [end for end in self.network.ends if end.is_open]
        if ends:
            self.network.stall(self.rng.choice(ends))

    def _mark_down(self, op: Op) -> None:
        session = self._some_session(self.hosts[op.host])
        if session is not None:
            self.hosts[op.host].mark_down(session)

    def _close(self, op: Op) -> None:
        session = self._some_session(self.hosts[op.host])
        if session is not None:
            self.hosts[op.host].close(session)

    def _disposable(self, op: Op) -> None:
        host = self.hosts[op.host]
        session = self._some_session(host)
        if session is not None:
            host.track(session).disposable = True
            host.endpoint.mark_disposable(session)

    def _restart(self, op: Op) -> None:
        """A service comes back with the nonce it had, or with another; a client with another."""
        host = self.hosts[op.host]
        host.crash()
        keeps = host.port and self.rng.random() < 0.5
        self.hosts[op.host] = self._new_host(op.host, host.endpoint.addr.nonce if keeps else None)

    def _race(self, op: Op) -> None:
        """Two peers lose their connection, if they have one, and want to talk at once."""
        host = self.hosts[op.host]
        number = self._destination(op.host)
        assert number is not None
        other = self.hosts[number]
        for one, two in ((host, other), (other, host)):
            one.send(one.connect(self._target(two)), 1)
        for end in self.network.ends:
            if end.is_open and {end.host, end.peer.host} == {host, other}:
                end.cut()

    def _keepalive(self, op: Op) -> None:
        host = self.hosts[op.host]
        session = self._some_session(host)
        if session is not None:
            host.endpoint.send_keepalive(session, self.clock.now)
            host.run()


def fails(plan: Plan) -> bool:
    """Does the history of *plan* break a promise?"""
    try:
        History(plan).run()
    except Exception:  # an error of the code under test is a finding as well
        return True
    return False


def tell(history: History) -> str:
    """The story of *history*, both sides in the order of time."""
    return "\n".join([str(history.plan), *map(str, history.books.story)])


def live(plan: Plan) -> int:
    """Run *plan*; return the messages delivered. Raises Violation with the seed and the story."""
    history = History(plan)
    try:
        return history.run()
    except Exception as err:
        raise Violation(f"{err}\n{tell(history)}") from err
