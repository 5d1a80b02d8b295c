"""A client's way to its service, which can be cut at any byte."""

from __future__ import annotations

from typing import Literal, Protocol

from mpmsgr.loop import LoopThread
from mpmsgr.testing.mishap import Mishap
from mpmsgr.testing.proxy import Flow, Leg, Link, Place, Proxy

Towards = Literal["service", "client"]


class Way(Protocol):
    """What a client is connected by."""

    def arrange(self, cut: Cut) -> None:
        """From now on *cut* counts the bytes; where it wants none, the connection ends at once.

        Raises ValueError while another one does.
        """

    def withdraw(self, cut: Cut) -> None:
        """It does not, any more."""


def check_free(cut: Cut | None) -> None:
    """Raise ValueError if there is a *cut* already."""
    if cut is not None:
        raise ValueError(f"{cut} of this client is still to happen")


class Line(Proxy):
    """The proxy between one client and its service; *cut* is what is arranged for it."""

    def __init__(self, target: Place, thread: LoopThread) -> None:
        super().__init__(target)
        self.thread = thread
        self.cut: Cut | None = None
        self.place = thread.call(self.start())

    def hang_up(self) -> None:
        """End it, from another thread."""
        self.thread.call(self.close())

    def link(self) -> Link:
        """See `Proxy`."""
        return _CutLink(self)

    def arrange(self, cut: Cut) -> None:
        """See `Way`."""
        check_free(self.cut)
        self.cut = cut
        if self.links and not cut.left:
            for link in list(self.links):
                link.end()
            self.carried_out()

    def withdraw(self, cut: Cut) -> None:
        """See `Way`."""
        if self.cut is cut:
            self.cut = None

    def carried_out(self) -> None:
        """What was arranged has happened."""
        cut, self.cut = self.cut, None
        if cut is not None:
            cut.is_done()


class Cut(Mishap):
    """A connection that ends when *byte* more bytes have passed *towards* one side.

    left: how many of them are still to come. way: the client's; its loop runs in *thread*.
    """

    def __init__(
        self, way: Way, thread: LoopThread, byte: int, towards: Towards, timeout_s: float
    ) -> None:
        if byte < 0 or towards not in ("service", "client"):
            raise ValueError("byte must be 0 or more, towards 'service' or 'client'")
        super().__init__(timeout_s)
        self.byte, self.left, self.towards = byte, byte, towards
        self._way = way
        thread.call(self._arrange())

    async def _arrange(self) -> None:
        self._way.arrange(self)

    def is_done(self) -> None:
        """It has happened."""
        self._done()

    def why(self) -> str:
        """See `Mishap`."""
        return f"{self.byte - self.left} bytes have passed"

    def cancel(self) -> None:
        """See `Mishap`."""
        super().cancel()
        self._way.withdraw(self)

    def __repr__(self) -> str:
        return f"cut(byte={self.byte}, towards={self.towards!r})"


class _CutLink(Link):
    def __init__(self, line: Line) -> None:
        self._line = line
        super().__init__(line)

    def flow(self, to: Leg) -> Flow:
        return _CutFlow(self, self._line, to)

    def cut_behind(self, to: Leg) -> None:
        """What was sent to *to* arrives, nothing else in either direction."""
        for leg in (self.near, self.far):
            leg.swallow()
        to.close()
        self.other(to).end()


class _CutFlow(Flow):
    def __init__(self, link: _CutLink, line: Line, to: Leg) -> None:
        super().__init__(to)
        self._link, self._line = link, line

    def step(self) -> None:
        cut = self._line.cut
        if cut is None or cut.towards != self._towards:
            self.send(len(self.queue))
            return
        size = min(cut.left, len(self.queue))
        cut.left -= size
        self.send(size)
        if not cut.left:
            self._link.cut_behind(self.to)
            self._line.carried_out()

    @property
    def _towards(self) -> Towards:
        return "client" if self.to is self._link.near else "service"
