"""A monitor test double: enough of a Ceph monitor for the real ``ceph`` command line.

Serve it as ``mon.0`` (a monitor's nonce is 0) and point the real client at it:

    mpmsgr serve --name mon.0 --bind 127.0.0.1:6789 workers.ceph_mon
    ceph --mon-host v1:127.0.0.1:6789/0 hello world

It authenticates everybody (method "none"), tells its map and an empty configuration, and runs the
commands of a table. It keeps no state between messages, so any worker can answer any of them.
"""

from __future__ import annotations

import errno
import json
import logging
from collections.abc import Callable, Mapping
from typing import Any
from uuid import UUID

from mpmsgr import Connection, Dispatcher, Message
from mpmsgr.errors import ProtocolError
from mpmsgr.wire.address import EntityAddr
from mpmsgr.wire.message import PRIO_HIGH
from workers import ceph_payloads as payloads

log = logging.getLogger(__name__)

FSID = "c0ffee00-0000-4000-8000-000000000001"
#: Added to a connection's id, as global ids below 4096 are the daemons'.
FIRST_GLOBAL_ID = 4096

Run = Callable[["CephMon", Mapping[str, Any]], str]
"""A command's work: the monitor and the parsed command line in, what it prints out."""


def hello_world(mon: CephMon, line: Mapping[str, Any]) -> str:
    """Say hello, so that a caller sees who answered."""
    return f"hello, world, from mon.{mon.name}\n"


def fsid(mon: CephMon, line: Mapping[str, Any]) -> str:
    """Tell the cluster's id."""
    return f"{mon.fsid}\n"


#: The commands by the words one types; a client shows their docstrings as help.
COMMANDS: dict[str, Run] = {"hello world": hello_world, "fsid": fsid}


def describe(commands: Mapping[str, Run]) -> str:
    """What a client is told of *commands*: JSON it completes and checks its arguments with."""
    table = {
        f"cmd{number:03}": {
            "sig": words.split(),
            "help": (run.__doc__ or "").strip(),
            "module": "mon",
            "perm": "r",
            "flags": 0,
        }
        for number, (words, run) in enumerate(commands.items())
    }
    return json.dumps(table)


class CephMon(Dispatcher):
    """Answers as the only monitor of a cluster of its own."""

    message_types = frozenset(
        {
            payloads.PING,
            payloads.MON_GET_MAP,
            payloads.MON_SUBSCRIBE,
            payloads.AUTH,
            payloads.MON_COMMAND,
        }
    )

    def __init__(self, fsid: str = FSID, name: str = "a", address: str = "") -> None:
        """*fsid* of the cluster, *name* in its map, *address* to be found at.

        Without an address the map names the one that the server announced to the client.
        """
        self.fsid, self.name = UUID(fsid), name
        self.address = EntityAddr.parse(address) if address else None
        self._answers: dict[int, Callable[[Connection, Message], None]] = {
            payloads.PING: self._ping,
            payloads.MON_GET_MAP: self._get_map,
            payloads.MON_SUBSCRIBE: self._subscribe,
            payloads.AUTH: self._auth,
            payloads.MON_COMMAND: self._command,
        }

    def dispatch(self, con: Connection, m: Message) -> bool | None:
        """Answer one message; like a real monitor, drop a connection that sends nonsense."""
        try:
            self._answers[m.type](con, m)
        except ProtocolError as err:
            log.warning("%s sent a bad message of type %d: %s", con.peer_addr, m.type, err)
            con.mark_down()
        return None

    def monmap(self, con: Connection) -> payloads.MonMap:
        """The map with this monitor in it, as the client of *con* can reach it."""
        addr = self.address or con.my_addr
        return payloads.MonMap(self.fsid, (payloads.MonInfo(self.name, (addr,)),))

    def _auth(self, con: Connection, m: Message) -> None:
        auth = payloads.Auth.decode(m.front)
        hello = payloads.AuthHello.decode(auth.payload) if auth.protocol == 0 else None
        if hello is None or payloads.AUTH_NONE not in hello.methods:
            refusal = payloads.AuthReply(0, -errno.EOPNOTSUPP, 0)
            _send(con, payloads.AUTH_REPLY, refusal.encode())
            return
        # The map first: a real monitor sends it second, and now and then its client is
        # authenticated and sends a command before it has learnt the fsid.
        self._get_map(con, m)
        global_id = hello.global_id or FIRST_GLOBAL_ID + con.id
        reply = payloads.AuthReply(payloads.AUTH_NONE, 0, global_id)
        _send(con, payloads.AUTH_REPLY, reply.encode())

    def _get_map(self, con: Connection, m: Message) -> None:
        _send(con, payloads.MON_MAP, self.monmap(con).encode())

    def _subscribe(self, con: Connection, m: Message) -> None:
        wishes = {wish.what: wish.start for wish in payloads.Subscribe.decode(m.front).wishes}
        if "config" in wishes:  # the client waits for it
            _send(con, payloads.CONFIG, payloads.encode_config({}))
        monmap = self.monmap(con)
        if wishes.get("monmap", monmap.epoch + 1) <= monmap.epoch:
            _send(con, payloads.MON_MAP, monmap.encode())

    def _command(self, con: Connection, m: Message) -> None:
        command = payloads.Command.decode(m.front)
        result, text, output = self._run(command)
        ack = payloads.CommandAck(result, text, command.lines)
        front, data = ack.encode(), output.encode()
        con.send_message(m.reply(front, data=data, type=payloads.MON_COMMAND_ACK))

    def _run(self, command: payloads.Command) -> tuple[int, str, str]:
        """Result (a negative errno), text for stderr, output."""
        if command.fsid != self.fsid:
            return -errno.EPERM, "wrong fsid", ""
        line = _parse(command)
        prefix = line["prefix"]
        if prefix == "get_command_descriptions":
            return 0, "", describe(COMMANDS)
        run = COMMANDS.get(prefix)
        if run is None:
            return -errno.EINVAL, "command not known", ""
        return 0, "", run(self, line)

    def _ping(self, con: Connection, m: Message) -> None:
        state = {
            "health": {"status": "HEALTH_OK", "checks": {}},
            "mon_status": {"name": self.name, "rank": 0, "state": "leader"},
        }
        _send(con, payloads.PING, payloads.encode_text(json.dumps(state, indent=4)))


def _send(con: Connection, type_: int, front: bytes) -> None:
    """Send what has no tid: Ceph's clients do not look for one here."""
    con.send_message(Message(type_, front, priority=PRIO_HIGH))


def _parse(command: payloads.Command) -> dict[str, Any]:
    """The command line: a JSON object with its words in ``prefix``."""
    text = command.lines[0] if command.lines else ""
    try:
        line = json.loads(text)
    except (ValueError, RecursionError):
        line = None
    if not isinstance(line, dict) or not isinstance(line.get("prefix"), str):
        raise ProtocolError("command.line", text, "a JSON object with a prefix")
    return line
