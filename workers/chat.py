"""Rooms: what one says, all hear, once and in the same order. Groups, state by key, and @every.

A room is a *key*: whatever concerns it is handled in one lane, whoever sent it, and shares a state.
It is a *group* as well: those who joined get its lines, from whichever worker they come. What a
handler sends leaves together with its state, so that no line is lost, doubled or given the number
of another one when a worker dies.

Groups forget who is gone, the state of a room does not: every now and then the roll is called. A
client answers each RollCall with a Here for every room that it is in; who does not is left out.
"""

from __future__ import annotations

import time
from typing import Any

from mpmsgr import Connection, Message, Reject, Service, every, handles, message

EVERYBODY = "everybody"
ROLL_CALL_S = 10.0


@message(0x8101)
class Join:
    """Be in *room* under *name*. The reply: who is there."""

    room: str
    name: str


@message(0x8102)
class Say:
    """Have all in *room* get *text*. The reply: the number of the line."""

    room: str
    text: str


@message(0x8103)
class Leave:
    """Be in *room* no more. The reply: who is left."""

    room: str


@message(0x8104)
class Who:
    """The reply: who is in *room*."""

    room: str


@message(0x8105)
class Here:
    """Answers roll call *number*: still in *room*."""

    room: str
    number: int


@message(0x8111)
class Line:
    """A push: *name* said *text*, the line with this *number* in *room*."""

    room: str
    number: int
    name: str
    text: str


@message(0x8112)
class RollCall:
    """A push: who is there?"""

    number: int


@message(0x8113)
class Summary:
    """A push, with each roll call: who is in *room*, how many *lines* were said there."""

    room: str
    names: list[str]
    lines: int


@handles(Join, key="room")
def join(con: Connection, m: Message, state: dict[str, Any]) -> list[str]:
    """Members by connection: name, and the last roll call they answered."""
    con.group(m.obj.room).join()
    con.group(EVERYBODY).join()
    state.setdefault("members", {})[con.id] = [m.obj.name, _roll_call()]
    return _names(state)


@handles(Say, key="room")
def say(con: Connection, m: Message, state: dict[str, Any]) -> int:
    """To the speaker as well: so everybody has the same lines."""
    member = state.get("members", {}).get(con.id)
    if member is None:
        raise Reject("not in this room: join it first")
    name, _ = member
    number: int = state.get("lines", 0) + 1
    state["lines"] = number
    con.group(m.obj.room).send(Line(m.obj.room, number, name, m.obj.text))
    return number


@handles(Leave, key="room")
def leave(con: Connection, m: Message, state: dict[str, Any]) -> list[str]:
    """Whoever is in no room goes on answering roll calls: there is no harm in it."""
    con.group(m.obj.room).leave()
    state.get("members", {}).pop(con.id, None)
    return _names(state)


@handles(Who, key="room")
def who(con: Connection, m: Message, state: dict[str, Any]) -> list[str]:
    """For anybody, in the room or not."""
    return _names(state)


@every(ROLL_CALL_S)
def call_the_roll(service: Service) -> None:
    """On one worker, whichever: it needs to know nothing."""
    service.group(EVERYBODY).send(RollCall(_roll_call()))


@handles(Here, key="room")
def here(con: Connection, m: Message, state: dict[str, Any]) -> None:
    """The first answer sums up the room, and leaves out who missed the last two roll calls."""
    number, members = m.obj.number, state.get("members", {})
    if con.id not in members:
        return
    members[con.id][1] = number
    if number > state.get("called", 0):
        state["called"] = number
        state["members"] = {id_: of for id_, of in members.items() if of[1] >= number - 2}
        summary = Summary(m.obj.room, _names(state), state.get("lines", 0))
        con.group(m.obj.room).send(summary)


def _roll_call() -> int:
    """Number of the roll call at this time, the same in every worker."""
    return int(time.time() / ROLL_CALL_S)


def _names(state: dict[str, Any]) -> list[str]:
    return sorted(name for name, _ in state.get("members", {}).values())
