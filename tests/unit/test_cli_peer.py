"""ping and send against a messenger of this process, on loopback."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from mpmsgr import Connection, Dispatcher, Message
from mpmsgr.cli import ping
from mpmsgr.cli.content import value_text
from mpmsgr.cli.exit_codes import ExitCode
from mpmsgr.cli.main import run
from mpmsgr.dispatch.payload import decode, reply_to
from tests.unit.thread_serving import ThreadServer, serving_in_thread

ECHO, ADD, SILENT, BINARY = 0x8001, 0x9001, 0x9002, 0x9003

SHOP = """\
from mpmsgr import message


@message(0x9001)
class Add:
    n: int
    note: str = ""


class Plain:
    pass
"""


class Peer(Dispatcher):
    """Echoes, adds, stays silent, or answers with bytes that are no text."""

    def dispatch(self, con: Connection, m: Message) -> bool | None:
        if m.type == ECHO:
            con.send_message(m.reply(m.front, m.middle, m.data))
        elif m.type == ADD:
            decode(m)
            con.send_message(reply_to(m, {"sum": m.obj.n + 1, "note": m.obj.note, "raw": b"\xff"}))
        elif m.type == BINARY:
            con.send_message(m.reply(b"\xff\x00", b"", b"tab\t"))
        else:
            return m.type == SILENT
        return None


@pytest.fixture(scope="module")
def server() -> Iterator[ThreadServer]:
    with serving_in_thread(Peer()) as server:
        yield server


@pytest.fixture
def place(server: ThreadServer) -> str:
    return server.place


@pytest.fixture
def app(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with the module `shop`, which is the current one."""
    (tmp_path / "shop.py").write_text(SHOP)
    (tmp_path / "broken.py").write_text("import shop\nshop.nothing\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", sys.path[:])
    for name in ("shop", "broken"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return tmp_path


# ping


def test_ping_tells_people(
    server: ThreadServer, place: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run(["ping", place]) == 0
    said = dict(line.split(maxsplit=1) for line in capfd.readouterr().out.splitlines())
    assert said["banner"] == "ceph v027"
    assert said["peer"] == f"{server.messenger.addr} (as it announces itself)"
    assert said["us"].startswith("127.0.0.1:")
    assert said["tag"] in ("READY", "SEQ")
    assert "MSGR_KEEPALIVE2" in said["NOSRCADDR"]
    assert said["policy"] == "lossy no, server no, standby no, resetcheck yes"
    assert said["round"].endswith("ms (KEEPALIVE2)")


@pytest.mark.parametrize("prefix", ["", "v1:"])
def test_ping_tells_programs(
    server: ThreadServer, place: str, prefix: str, capfd: pytest.CaptureFixture[str]
) -> None:
    line = [
        "ping",
        f"{prefix}{place}/{server.messenger.addr.nonce}",
        "--json",
        "--peer-type",
        "svc",
    ]
    assert run(line) == 0
    said = json.loads(capfd.readouterr().out)
    assert said["announced"] == str(server.messenger.addr)
    assert [flag for flag, on in said["policy"].items() if on] == ["resetcheck"]
    assert "RECONNECT_SEQ" in said["feature_names"]
    assert 0 < said["rtt_s"] < 5


def test_ping_without_keepalive2() -> None:
    said = {"keepalive2": False, "rtt_s": None}
    assert ping._round_trip_text(said) == "not measured, KEEPALIVE2 was not negotiated"


def test_ping_that_is_not_answered(
    place: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    async def silence(con: object, timeout_s: float) -> None:
        return None

    monkeypatch.setattr(ping, "_round_trip", silence)
    assert run(["ping", place]) == ExitCode.TIMEOUT
    out, err = capfd.readouterr()
    assert "round trip  no answer" in out
    assert err == "mpmsgr ping: no answer to KEEPALIVE2 within 5 s\n"


@pytest.mark.parametrize("verb", ["ping {}", "send {} 5"])
def test_nobody_there(verb: str, capfd: pytest.CaptureFixture[str]) -> None:
    line = verb.format("127.0.0.1:1").split()
    assert run([*line, "--timeout", "0.05"]) == ExitCode.NO_CONNECTION
    err = capfd.readouterr().err
    assert err.startswith(f"mpmsgr {line[0]}: no session with 127.0.0.1:1 after ")
    assert err.count("\n") == 1


# send


def test_send_a_number(place: str, app: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert run(["send", place, "0x8001", "front=a b", "middle=m", "--data", "d"]) == 0
    assert capfd.readouterr().out == "type 0x8001\nfront: a b\nmiddle: m\ndata: d\n"


def test_send_a_file(place: str, app: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (app / "bulk").write_bytes(b"\x00\xff")
    assert run(["send", place, str(ECHO), "--file", "bulk", "--json"]) == 0
    reply = json.loads(capfd.readouterr().out)
    assert (reply["type"], reply["data_hex"], reply["front"]) == (ECHO, "00ff", "")
    assert reply["tid"] > 0
    assert reply["took_s"] > 0


def test_send_standard_input(
    place: str, app: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"piped")))
    assert run(["send", place, str(ECHO), "--file", "-"]) == 0
    assert "data: piped" in capfd.readouterr().out


def test_bytes_that_are_no_text(place: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert run(["send", place, hex(BINARY)]) == 0
    assert capfd.readouterr().out == "type 0x9003\nfront_hex: ff00\ndata: tab\t\n"


@pytest.mark.parametrize("spec", ["shop:Add", "shop.Add"])
def test_send_a_class(place: str, app: Path, spec: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert run(["send", place, spec, "n=4", "note=hi"]) == 0
    assert json.loads(capfd.readouterr().out) == {"sum": 5, "note": "hi", "raw": "ff"}


def test_send_a_class_of_another_folder(
    place: str, app: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir("/")
    assert run(["send", place, "shop:Add", "n=4", "--json", "--app-dir", str(app)]) == 0
    assert json.loads(capfd.readouterr().out)["value"]["sum"] == 5


@pytest.mark.parametrize(
    ("spec", "code", "said"),
    [
        ("shop:Plain", 2, "TYPE = 'shop:Plain': must be a class with @message in shop"),
        ("shop:Nothing", 2, "must be a class with @message in shop"),
        ("gone:Add", 3, "gone: there is no module gone in "),
        ("gone.sub:Add", 3, "gone.sub: there is no module gone in "),
        ("broken:Add", 3, "broken: AttributeError: module 'shop' has no attribute 'nothing'"),
    ],
)
def test_send_a_class_that_is_none(
    app: Path, spec: str, code: int, said: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run(["send", "gate:1", spec, "n=1"]) == code
    err = capfd.readouterr().err
    assert said in err.splitlines()[-1]
    assert "importlib" not in err, "a traceback begins in the module"


def test_send_what_msgpack_cannot_hold(app: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert run(["send", "gate:1", "shop:Add", f"n={1 << 64}"]) == ExitCode.USAGE
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith(f"mpmsgr send: FIELD=VALUE = 'n={1 << 64}': message type 0x")
    assert "msgpack cannot hold it: Integer value out of range" in line


def test_an_error_reply(place: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert run(["send", place, "0x9999"]) == ExitCode.REMOTE_ERROR
    assert capfd.readouterr().err.splitlines()[-1].startswith("mpmsgr send: nobody handles")


def test_no_reply(place: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert run(["send", place, hex(SILENT), "--timeout", "0.2"]) == ExitCode.TIMEOUT
    assert f"no reply from {place} to type 0x9002" in capfd.readouterr().err


def test_values_as_text() -> None:
    assert value_text("plain") == "plain"
    assert value_text(None) == "null"
    assert value_text([1, {"a": b"x"}]) == '[1, {"a": "x"}]'
