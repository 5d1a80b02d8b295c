"""The verbs of `mpmsgr quarantine`, against a messenger of this process where they need one."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mpmsgr.cli.exit_codes import ExitCode
from mpmsgr.cli.main import run
from mpmsgr.dispatch.payload import VALUE, pack
from mpmsgr.pool.spool import Quarantined, Spool
from mpmsgr.wire.message import Message
from mpmsgr.wire.name import EntityName
from mpmsgr.wire.v1.parcel import encode_parcel
from tests.unit.messenger_peers import ECHO, FAIL, SILENT, Recorder
from tests.unit.thread_serving import ThreadServer, serving_in_thread

AT = 1790000000.25  # 2026-09-21 14:13:20 UTC

Capture = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def recorder() -> Recorder:
    return Recorder(ECHO, SILENT, FAIL)


@pytest.fixture(scope="module")
def server(recorder: Recorder) -> Iterator[ThreadServer]:
    with serving_in_thread(recorder) as server:
        yield server


@pytest.fixture
def spool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Spool:
    """A spool in the directory `q` of the current one."""
    monkeypatch.chdir(tmp_path)
    spool = Spool(tmp_path / "q")
    spool.prepare()
    return spool


def keep(spool: Spool, m: Message | None = None, at: float = AT, **facts: Any) -> str:
    """Put a message of client.7 into quarantine; its id."""
    m = m or Message(ECHO, b"front", b"mid", b"bulk", tid=5, priority=196)
    parcel = encode_parcel(m, EntityName.parse("client.7"))
    raw = b"".join(((9).to_bytes(8, "little"), parcel.head, bytes(4), *parcel.body))
    about = {
        "peer": "127.0.0.1:1/42",
        "nonce": 42,
        "session": 77,
        "attempts": 3,
        "cause": "its workers died",
    }
    return spool.store(Quarantined.of(raw, at=at, **{**about, **facts}))


# list


def test_list_for_people(spool: Spool, capfd: Capture) -> None:
    first = keep(spool)
    second = keep(spool, Message(0x9001, tid=12345), at=AT + 60, attempts=1, cause="poison: no")
    assert run(["quarantine", "list", "--dir", "q"]) == 0
    head, *lines = capfd.readouterr().out.splitlines()
    assert head.split() == ["ID", "WHEN", "PEER", "TYPE", "TID", "ATTEMPTS", "CAUSE"]
    assert [re.split(r"  +", line) for line in lines] == [
        [first, "2026-09-21 14:13:20Z", "client.7 127.0.0.1:1/42", "0x8001", "5", "3"]
        + ["its workers died"],
        [second, "2026-09-21 14:14:20Z", "client.7 127.0.0.1:1/42", "0x9001", "12345", "1"]
        + ["poison: no"],
    ]
    assert {line.index(cause) for line, cause in zip(lines, ("its", "poison"), strict=True)} == {
        head.index("CAUSE")
    }


def test_list_for_programs(spool: Spool, capfd: Capture) -> None:
    id_ = keep(spool)
    (spool.directory / "notes.txt").touch()
    assert run(["quarantine", "list", "--dir", "q", "--json"]) == 0
    out, err = capfd.readouterr()
    listing = json.loads(out)
    assert listing["directory"] == str(spool.directory)
    assert listing["unreadable"] == [
        {"name": "notes.txt", "reason": "is no file of the quarantine"}
    ]
    (one,) = listing["messages"]
    wanted = ("id", "when", "peer", "type", "tid", "attempts", "cause")
    assert [one[key] for key in wanted] == [
        id_,
        "2026-09-21T14:13:20.250000+00:00",
        "127.0.0.1:1/42",
        ECHO,
        5,
        3,
        "its workers died",
    ]
    assert err == ""


def test_list_of_nothing_names_the_directory(spool: Spool, capfd: Capture) -> None:
    assert run(["quarantine", "list", "--dir", "q"]) == 0
    assert capfd.readouterr().out == f"{spool.directory}: no message in quarantine\n"


def test_list_names_what_it_cannot_read(spool: Spool, capfd: Capture) -> None:
    id_ = keep(spool)
    (spool.directory / f"{id_}.mpq").write_bytes(b"PK")
    (spool.directory / "\x1b[2J\udcff").touch()
    assert run(["quarantine", "list", "--dir", "q"]) == 0
    assert capfd.readouterr().err.splitlines() == [
        r"mpmsgr quarantine: \x1b[2J\udcff is no file of the quarantine",
        f"mpmsgr quarantine: {id_}.mpq holds no facts in msgpack",
    ]


# show


def test_show_for_people(spool: Spool, capfd: Capture) -> None:
    m = Message(ECHO, pack(ECHO, {"n": 5, "raw": b"\xff"}), b"", b"\x00bulk\xff" * 3, tid=5)
    id_ = keep(spool, m, signal=9, traceback="Traceback:\n  File x\nOops: \x1b[2J\n")
    assert run(["quarantine", "show", id_[:10], "--dir", "q"]) == 0
    about, traceback, front, data = capfd.readouterr().out.split("\n\n")
    said = dict(re.split(r"\s+", line, maxsplit=1) for line in about.splitlines())
    assert said == {
        "id": id_,
        "when": "2026-09-21T14:13:20.250000+00:00",
        "peer": "client.7 at 127.0.0.1:1/42, nonce 42, session 77",
        "message": "type 0x8001, version 1, tid 5, seq 9, priority 127, 103 bytes",
        "attempts": "3",
        "cause": "its workers died",
        "signal": "9 (SIGKILL)",
    }
    assert traceback == "Traceback:\n  File x\nOops: \\x1b[2J"
    assert front == 'front, 11 bytes of msgpack:\n{"n": 5, "raw": "ff"}'
    assert data == (
        "data, 18 bytes:\n"
        "00000000  00 62 75 6c 6b ff 00 62 75 6c 6b ff 00 62 75 6c  |.bulk..bulk..bul|\n"
        "00000010  6b ff                                            |k.|\n"
    )


@pytest.mark.parametrize(
    ("front", "version", "shown"),
    [
        (pack(ECHO, 7), VALUE, "of msgpack:\n7\n"),
        (pack(ECHO, "text"), VALUE, "of msgpack:\ntext\n"),
        (pack(ECHO, [1, 2]), 1, "of msgpack:\n[1, 2]\n"),
        (pack(ECHO, 7), 1, "|.|"),
        (b"front", 1, "|front|"),
        (b"\x80 ", 1, "|. |"),
    ],
)
def test_front_is_shown_as_what_it_is(
    spool: Spool, front: bytes, version: int, shown: str, capfd: Capture
) -> None:
    id_ = keep(spool, Message(ECHO, front, tid=5, version=version))
    assert run(["quarantine", "show", id_, "--dir", "q"]) == 0
    assert shown in capfd.readouterr().out


def test_a_long_part_is_shown_in_full_when_asked(spool: Spool, capfd: Capture) -> None:
    id_ = keep(spool, Message(ECHO, data=bytes(3000), tid=5))
    assert run(["quarantine", "show", id_, "--dir", "q"]) == 0
    *_, last, rest = capfd.readouterr().out.splitlines()
    assert last.startswith("000003f0")
    assert rest == "and 1976 more, which --full shows"
    assert run(["quarantine", "show", id_, "--dir", "q", "--full"]) == 0
    assert capfd.readouterr().out.splitlines()[-1].startswith("00000bb0  00 00 00 00 00 00 00 00  ")


def test_show_for_programs(spool: Spool, capfd: Capture) -> None:
    m = Message(ECHO, pack(ECHO, {"n": 5}), b"text", b"\xff", tid=5)
    id_ = keep(spool, m, signal=64, traceback="Oops")
    assert run(["quarantine", "show", id_, "--dir", "q", "--json"]) == 0
    said = json.loads(capfd.readouterr().out)
    assert (said["id"], said["signal"], said["traceback"]) == (id_, 64, "Oops")
    assert (said["value"], said["middle"], said["data_hex"]) == ({"n": 5}, "text", "ff")
    assert said["session"] == 77
    assert "raw" not in said


def test_show_what_was_too_large(spool: Spool, capfd: Capture) -> None:
    spool.max_bytes = 1000
    id_ = keep(spool, Message(ECHO, data=bytes(5000), tid=5))
    assert run(["quarantine", "show", id_, "--dir", "q"]) == 0
    assert "too large to be kept" in capfd.readouterr().out
    assert run(["quarantine", "show", id_, "--dir", "q", "--json"]) == 0
    said = json.loads(capfd.readouterr().out)
    assert said["truncated"]
    assert "data" not in said
    assert run(["quarantine", "list", "--dir", "q"]) == 0
    assert "its workers died (content not kept)" in capfd.readouterr().out


def test_show_what_is_damaged(spool: Spool, capfd: Capture) -> None:
    id_ = keep(spool)
    (spool.directory / f"{id_}.mpq").write_bytes(b"PK")
    assert run(["quarantine", "show", id_, "--dir", "q"]) == ExitCode.FAILED
    assert capfd.readouterr().err == f"mpmsgr quarantine: {id_}.mpq holds no facts in msgpack\n"


def test_an_unknown_signal_is_a_number(spool: Spool, capfd: Capture) -> None:
    assert run(["quarantine", "show", keep(spool, signal=99), "--dir", "q"]) == 0
    assert re.search(r"^signal +99$", capfd.readouterr().out, re.MULTILINE)


# replay


def test_replay_sends_it_as_a_new_message(
    spool: Spool, server: ThreadServer, recorder: Recorder, capfd: Capture
) -> None:
    m = Message(ECHO, b"f", b"m", b"d", tid=1 << 40, priority=196, version=3, data_off=8)
    id_ = keep(spool, m)
    before = len(recorder.messages)
    assert run(["quarantine", "replay", id_[:12], "--to", server.place, "--dir", "q"]) == 0
    assert capfd.readouterr().out == "type 0x8001\nfront: f\nmiddle: m\ndata: d\n"
    (got,) = recorder.messages[before:]
    assert (got.front, got.middle, got.data) == (b"f", b"m", b"d")
    kept = ("type", "priority", "version", "compat_version", "data_off")
    assert [getattr(got, name) for name in kept] == [ECHO, 196, 3, 3, 8]
    assert got.tid not in (0, 1 << 40)
    assert spool.ids() == (), "answered, it is done"


def test_replay_for_programs_and_keep(spool: Spool, server: ThreadServer, capfd: Capture) -> None:
    id_ = keep(spool)
    line = ["quarantine", "replay", id_, "--to", server.place, "--dir", "q", "--json", "--keep"]
    assert run(line) == 0
    reply = json.loads(capfd.readouterr().out)
    assert (reply["type"], reply["front"], reply["data"]) == (ECHO, "front", "bulk")
    assert reply["took_s"] > 0
    assert spool.ids() == (id_,)


@pytest.mark.parametrize(
    ("type_", "code", "said"),
    [
        (FAIL, ExitCode.REMOTE_ERROR, "as it was told"),
        (SILENT, ExitCode.TIMEOUT, "no reply from .* to type 0x9001"),
    ],
)
def test_what_is_not_answered_stays(
    spool: Spool, server: ThreadServer, type_: int, code: ExitCode, said: str, capfd: Capture
) -> None:
    id_ = keep(spool, Message(type_, tid=5))
    line = ["quarantine", "replay", id_, "--to", server.place, "--dir", "q", "--timeout", "0.2"]
    assert run(line) == code
    out, err = capfd.readouterr()
    assert out == ""
    assert re.search(f"^mpmsgr quarantine: .*{said}", err, re.MULTILINE)
    assert spool.ids() == (id_,)


def test_replay_to_nobody(spool: Spool, capfd: Capture) -> None:
    id_ = keep(spool)
    line = ["quarantine", "replay", id_, "--to", "127.0.0.1:1", "--dir", "q", "--timeout", "0.05"]
    assert run(line) == ExitCode.NO_CONNECTION
    assert "no session with 127.0.0.1:1" in capfd.readouterr().err
    assert spool.ids() == (id_,)


def test_replay_of_what_somebody_discards_meanwhile(
    spool: Spool, server: ThreadServer, monkeypatch: pytest.MonkeyPatch, capfd: Capture
) -> None:
    id_ = keep(spool)
    discard = Spool.discard

    def second(spool: Spool, *ids: str) -> tuple[str, ...]:
        discard(spool, *ids)
        return discard(spool, *ids)

    monkeypatch.setattr(Spool, "discard", second)
    assert run(["quarantine", "replay", id_, "--to", server.place, "--dir", "q"]) == 0
    assert "data: bulk" in capfd.readouterr().out


def test_replay_of_what_was_too_large(spool: Spool, capfd: Capture) -> None:
    spool.max_bytes = 1000
    id_ = keep(spool, Message(ECHO, data=bytes(5000), tid=5))
    assert run(["quarantine", "replay", id_, "--to", "gate:1", "--dir", "q"]) == ExitCode.USAGE
    assert f"ID = '{id_}': its 5074 bytes were too many to be kept" in capfd.readouterr().err
    assert spool.ids() == (id_,)


# discard


def test_discard_some(spool: Spool, capfd: Capture) -> None:
    ids = [keep(spool, at=AT + n) for n in range(3)]
    assert run(["quarantine", "discard", ids[2][:15], ids[0], "--dir", "q"]) == 0
    assert capfd.readouterr().out == f"{ids[2]}\n{ids[0]}\n"
    assert spool.ids() == (ids[1],)


def test_discard_all(spool: Spool, capfd: Capture) -> None:
    ids = [keep(spool, at=AT + n) for n in range(3)]
    (spool.directory / f"{ids[0]}.mpq").write_bytes(b"PK")
    (spool.directory / "notes.txt").touch()
    assert run(["quarantine", "discard", "--all", "--dir", "q"]) == 0
    assert capfd.readouterr().out.split() == ids
    assert [path.name for path in spool.directory.iterdir()] == ["notes.txt"]
    assert run(["quarantine", "discard", "--all", "--dir", "q"]) == 0
    assert capfd.readouterr().out == ""


def test_discard_is_all_or_nothing(spool: Spool, capfd: Capture) -> None:
    id_ = keep(spool)
    assert run(["quarantine", "discard", id_, "nope", "--dir", "q"]) == ExitCode.USAGE
    out, err = capfd.readouterr()
    assert (out, err) == (
        "",
        f"mpmsgr quarantine: ID = 'nope': must be, or begin only one of, {id_}\n",
    )
    assert spool.ids() == (id_,)


# Which directory


def test_the_directory_of_the_environment(
    spool: Spool, monkeypatch: pytest.MonkeyPatch, capfd: Capture
) -> None:
    monkeypatch.setenv("MPMSGR_QUARANTINE_DIR", "q")
    id_ = keep(spool)
    assert run(["quarantine", "list"]) == 0
    assert id_ in capfd.readouterr().out


def test_the_directory_of_the_file(spool: Spool, tmp_path: Path, capfd: Capture) -> None:
    (tmp_path / "mpmsgr.toml").write_text('quarantine_dir = "q"\nmodules = ["echo"]\n')
    id_ = keep(spool)
    assert run(["quarantine", "show", id_]) == 0
    assert id_ in capfd.readouterr().out


def test_a_configured_directory_need_not_be_there_yet(
    spool: Spool, monkeypatch: pytest.MonkeyPatch, capfd: Capture
) -> None:
    monkeypatch.setenv("MPMSGR_QUARANTINE_DIR", "later")
    assert run(["quarantine", "list"]) == 0
    assert "later: no message in quarantine" in capfd.readouterr().out


# Wrong use


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("", "a verb is missing, one of list, show, replay, discard"),
        ("lst", "'lst' is no verb, the nearest is list; verbs: list, show, replay, discard"),
        ("--json", "no such option --json; options: --help; usage"),
        ("list", r"--dir = '': must be given, or quarantine_dir in mpmsgr.toml, or MPMSGR_QUA"),
        ("list --dir /nowhere", "--dir = '/nowhere': must be a directory that exists"),
        ("list --dir q x", "got unexpected extra argument"),
        ("show --dir q", "ID is missing; usage: mpmsgr quarantine show"),
        ("show x --dir q", "ID = 'x': there is no message in quarantine"),
        ("replay x --dir q", "--to is missing; usage: mpmsgr quarantine replay"),
        ("replay --to gate:1 --dir q", "ID is missing; usage: mpmsgr quarantine replay"),
        ("replay x --to gate --dir q", "--to = 'gate': must be HOST:PORT"),
        ("replay x --to gate:1 --timeout 0 --dir q", "--timeout = '0': must be seconds from 0.001"),
        ("replay x --to gate:1 --dir q", "ID = 'x': there is no message in quarantine"),
        ("discard --dir q", "ID, --all = 'neither': exactly one of them must be given"),
        ("discard x --all --dir q", "ID, --all = 'both': exactly one of them must be given"),
    ],
)
def test_one_line_and_exit_2(spool: Spool, line: str, said: str, capfd: Capture) -> None:
    assert run(["quarantine", *line.split()]) == ExitCode.USAGE
    out, err = capfd.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert err.startswith("mpmsgr quarantine: ")
    assert re.search(said, err), err


@pytest.mark.parametrize("verb", ["list", "show", "replay", "discard"])
def test_help_goes_to_stdout(verb: str, capfd: Capture) -> None:
    assert run(["quarantine", verb, "--help"]) == ExitCode.OK
    out, err = capfd.readouterr()
    assert out.startswith(f"Usage: mpmsgr quarantine {verb}")
    assert err == ""


def test_help_lists_the_verbs_in_full(capfd: Capture) -> None:
    run(["quarantine", "-h"])
    lines = capfd.readouterr().out.split("Verbs:\n")[1].splitlines()
    assert [line.split()[0] for line in lines] == ["list", "show", "replay", "discard"]
    assert all(line.endswith(".") and not line.endswith("...") for line in lines)
