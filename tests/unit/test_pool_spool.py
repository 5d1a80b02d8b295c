"""Quarantined messages on disk: nothing is lost silently, no file in the directory is fatal."""

from __future__ import annotations

import dataclasses
import io
import os
import re
import stat
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgpack
import pytest

from mpmsgr.pool import spool as spool_module
from mpmsgr.pool.quarantined import Quarantined, read_item
from mpmsgr.pool.spool import Listing, Spool, UnknownItem, UnreadableItem
from mpmsgr.wire.message import Message
from mpmsgr.wire.name import EntityName
from mpmsgr.wire.v1.parcel import HEADER, encode_parcel

AT = 1790000000.25  # 2026-09-21 14:13:20 UTC
AN_ID = "20260921T141320.250000-00c0ffee"
NONCE = 4242


def raw_message(data: bytes = b"bulk", **fields: Any) -> bytes:
    """A message of client.7 as it is when it came in."""
    m = Message(0x8001, b"front", b"mid", data, **{"tid": 5, "priority": 196, **fields})
    parcel = encode_parcel(m, EntityName.parse("client.7"))
    seq, header_crc = (9).to_bytes(8, "little"), bytes(4)
    return b"".join((seq, parcel.head, header_crc, *parcel.body))


def item(at: float = AT, data: bytes = b"bulk", **facts: Any) -> Quarantined:
    return Quarantined.of(
        raw_message(data),
        **{
            "at": at,
            "peer": "127.0.0.1:1/4242",
            "nonce": NONCE,
            "session": 77,
            "attempts": 3,
            "cause": "its workers died",
            **facts,
        },
    )


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    return Spool(tmp_path / "quarantine")


@pytest.fixture
def no_umask() -> Iterator[None]:
    before = os.umask(0)
    yield
    os.umask(before)


def file_of(spool: Spool, id_: str) -> Path:
    return spool.directory / f"{id_}.mpq"


# One message


def test_what_is_stored_comes_back(spool: Spool) -> None:
    stored = item(signal=9, traceback="Traceback ...\nOops")
    id_ = spool.store(stored)
    found = spool.get(id_)
    assert found == dataclasses.replace(stored, id=id_)
    m = found.message()
    assert (m.type, m.tid, m.seq, m.priority, str(m.src)) == (0x8001, 5, 9, 196, "client.7")
    assert (m.front, m.middle, m.data) == (b"front", b"mid", b"bulk")
    assert m.message_id == (found.entity, found.nonce, found.tid)


def test_the_raw_message_says_most_itself() -> None:
    view = memoryview(bytearray(raw_message(version=2)))
    made = Quarantined.of(view, at=AT, peer="p", nonce=1, session=2, attempts=1, cause="c")
    assert (made.type, made.tid, made.seq, made.priority) == (0x8001, 5, 9, 196)
    assert (made.entity, made.version, made.size) == ("client.7", 2, len(view))
    assert type(made.raw) is bytes, "a view would keep the buffer it came in"


@pytest.mark.parametrize("size", [0, 1, 255, 256, 65536, 1 << 20])
def test_a_file_is_one_msgpack_array(spool: Spool, size: int) -> None:
    stored = item(data=bytes(size))
    facts, raw = msgpack.unpackb(file_of(spool, spool.store(stored)).read_bytes())
    assert raw == stored.raw
    assert facts.pop("format") == 1
    assert Quarantined(raw=raw, **facts) == stored


def test_texts_are_cut_to_what_can_be_read(spool: Spool) -> None:
    stored = item(cause="two\n  lines" + "!" * 5000, traceback="x" * (1 << 21) + "\udc80 the end")
    found = spool.get(spool.store(stored))
    assert found.cause.startswith("two lines!!!")
    assert len(found.cause) == 1000
    assert found.traceback.endswith("\\udc80 the end"), "what no UTF-8 can hold is escaped"
    assert len(found.traceback) < 1 << 17


def test_listed_are_facts_by_age(spool: Spool) -> None:
    ids = [spool.store(item(AT + after, cause=str(after))) for after in (3, 1, 2)]
    listing = spool.list()
    assert [one.cause for one in listing.items] == ["1", "2", "3"]
    assert [one.id for one in listing.items] == sorted(ids) == list(spool.ids())
    assert listing.items[0] == dataclasses.replace(spool.get(ids[1]), raw=b"")
    assert listing.unreadable == ()
    with pytest.raises(ValueError, match=f"bytes of message {ids[1]} are not there"):
        listing.items[0].message()


def test_ids_tell_the_time_and_differ_at_the_same_time(spool: Spool) -> None:
    ids = {spool.store(item()) for _ in range(20)}
    assert len(ids) == 20
    assert {id_.rpartition("-")[0] for id_ in ids} == {"20260921T141320.250000"}


def test_no_directory_holds_nothing_and_stays_none(spool: Spool) -> None:
    assert spool.list() == Listing((), ())
    assert spool.ids() == spool.discard() == ()
    with pytest.raises(UnknownItem, match="'2026': there is no message in quarantine"):
        spool.get("2026")
    assert not spool.directory.exists()


# Written safely


@pytest.mark.usefixtures("no_umask")
def test_only_the_owner_may_look(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "deep" / "quarantine")
    id_ = spool.store(item())
    assert stat.S_IMODE(spool.directory.stat().st_mode) == 0o700
    assert stat.S_IMODE(file_of(spool, id_).stat().st_mode) == 0o600


def test_a_directory_that_is_there_is_taken_as_it_is(tmp_path: Path) -> None:
    tmp_path.chmod(0o750)
    Spool(tmp_path).prepare()
    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o750


def test_a_file_in_its_place_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(FileExistsError):
        Spool(tmp_path / "file").prepare()


def test_synced_before_it_has_its_name_and_the_name_after(
    spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[tuple[str, str, int]] = []
    fsync, replace = os.fsync, os.replace

    def note_fsync(fd: int) -> None:
        steps.append(("fsync", os.readlink(f"/proc/self/fd/{fd}"), os.fstat(fd).st_size))
        fsync(fd)

    def note_replace(old: Path, new: Path) -> None:
        steps.append(("replace", str(new), old.stat().st_size))
        replace(old, new)

    monkeypatch.setattr(os, "fsync", note_fsync)
    monkeypatch.setattr(os, "replace", note_replace)
    id_ = spool.store(item())
    directory, file = spool.directory, file_of(spool, id_)
    assert [(step, path) for step, path, _ in steps] == [
        ("fsync", str(directory.parent)),
        ("fsync", f"{directory / id_}.tmp"),
        ("replace", str(file)),
        ("fsync", str(directory)),
    ]
    assert steps[1][2] == steps[2][2] == file.stat().st_size, "synced when all of it is written"
    del steps[:]
    spool.discard(id_)
    assert [(step, path) for step, path, _ in steps] == [("fsync", str(directory))]


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_failed_store_leaves_nothing(
    spool: Spool, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    spool.prepare()

    def fail(*args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, step, fail)
    with pytest.raises(OSError, match="No space left"):
        spool.store(item())
    assert os.listdir(spool.directory) == []


# Bounded


def stored_size(tmp_path: Path, one: Quarantined) -> int:
    other = Spool(tmp_path / "other")
    return file_of(other, other.store(one)).stat().st_size


def test_beyond_the_bytes_the_oldest_go(
    tmp_path: Path, spool: Spool, caplog: pytest.LogCaptureFixture
) -> None:
    spool.max_bytes = 3 * stored_size(tmp_path, item())
    ids = [spool.store(item(AT + n)) for n in range(3)]
    assert spool.dropped == 0, "exactly full is not too much"
    ids += [spool.store(item(AT + n)) for n in range(3, 5)]
    assert spool.ids() == tuple(ids[2:])
    assert spool.dropped == 2
    for id_, line in zip(ids[:2], caplog.messages, strict=True):
        assert line == (
            f"quarantine is full, its oldest goes: {id_}, type 0x8001 tid 5 of client.7"
            " at 127.0.0.1:1/4242: its workers died"
        )


def test_beyond_the_files_the_oldest_go(spool: Spool) -> None:
    spool.max_files = 2
    ids = [spool.store(item(AT + n)) for n in range(5)]
    assert spool.ids() == tuple(ids[3:])
    assert spool.dropped == 3


def test_the_newest_stays_when_the_clock_was_set_back(spool: Spool) -> None:
    spool.max_files = 1
    spool.store(item(AT))
    newest = spool.store(item(AT - 3600))
    assert spool.ids() == (newest,)


def test_one_beyond_the_bound_alone_is_kept_without_its_content(
    tmp_path: Path, spool: Spool
) -> None:
    spool.max_bytes = 2 * stored_size(tmp_path, item())
    small, large = spool.store(item(AT)), spool.store(item(AT + 1, data=bytes(5000)))
    found = spool.get(large)
    assert found.truncated
    assert (found.raw, found.size) == (b"", len(raw_message(bytes(5000))))
    assert (found.tid, found.cause) == (5, "its workers died")
    with pytest.raises(ValueError, match=f"{found.size} bytes of message {large} are not there"):
        found.message()
    assert not spool.get(small).truncated, "there was room for both"


def test_the_bound_is_kept_by_what_a_killed_writer_left_and_what_is_damaged(
    spool: Spool, caplog: pytest.LogCaptureFixture
) -> None:
    spool.prepare()
    (spool.directory / "20200101T000000.000000-00000000.tmp").write_bytes(b"half")
    (spool.directory / "20200101T000000.000000-00000001.mpq").write_bytes(b"half")
    (spool.directory / "notes.txt").write_bytes(b"not ours")
    spool.max_files = 1
    id_ = spool.store(item())
    assert sorted(os.listdir(spool.directory)) == [f"{id_}.mpq", "notes.txt"]
    assert spool.dropped == 2
    assert "its writer was killed" in caplog.messages[0]
    assert "holds no facts in msgpack" in caplog.messages[1]


def test_threads_store_at_once(spool: Spool) -> None:
    spool.max_files = 5
    with ThreadPoolExecutor(4) as threads:
        ids = list(threads.map(lambda n: spool.store(item(AT + n)), range(40)))
    assert len(spool.ids()) == 5
    assert spool.dropped == 35
    assert set(spool.ids()) <= set(ids)
    assert spool.list().unreadable == ()


# Found by the beginning of its id


def test_the_beginning_of_one_id_is_enough(spool: Spool) -> None:
    first, second = spool.store(item(AT)), spool.store(item(AT + 1))
    assert spool.get(first[:15]).id == first
    assert spool.resolve(second[:15], first) == (second, first)


def test_an_unknown_id_names_what_there_is(spool: Spool) -> None:
    ids = [spool.store(item(AT + n)) for n in range(7)]
    with pytest.raises(UnknownItem) as caught:
        spool.get("20260921T")
    assert caught.value.allowed == f"is the beginning of {', '.join(ids[2:])} and 2 older ones"
    for none in ("x", "", f"../{spool.directory.name}/{ids[0]}"):
        with pytest.raises(UnknownItem) as caught:
            spool.get(none)
        assert caught.value.id == none
        assert caught.value.allowed.startswith("must be, or begin only one of, ")
        assert ids[6] in str(caught.value)


def test_an_empty_id_is_not_the_beginning_of_the_only_one(spool: Spool) -> None:
    id_ = spool.store(item())
    with pytest.raises(UnknownItem):
        spool.discard("")
    assert spool.ids() == (id_,)


def test_discard_is_all_or_nothing(spool: Spool) -> None:
    ids = [spool.store(item(AT + n)) for n in range(3)]
    with pytest.raises(UnknownItem):
        spool.discard(ids[0], "gone")
    assert spool.ids() == tuple(ids)
    assert spool.discard(ids[0], ids[2][:15]) == (ids[0], ids[2])
    assert spool.ids() == (ids[1],)


def test_what_goes_meanwhile_is_no_error(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    left, gone = spool.store(item(AT)), AN_ID
    scan = spool_module._scan

    def see_one_more(directory: Path) -> Any:
        files, foreign = scan(directory)
        return [*files, spool_module._File(gone)], foreign

    monkeypatch.setattr(spool_module, "_scan", see_one_more)
    assert [one.id for one in spool.list().items] == [left]
    assert spool.discard(gone) == ()
    with pytest.raises(UnknownItem):
        spool.get(gone)


# Files that are no messages


def put(spool: Spool, content: bytes, id_: str = AN_ID) -> None:
    spool.prepare()
    file_of(spool, id_).write_bytes(content)


def facts_of(spool: Spool) -> dict[str, Any]:
    id_ = spool.store(item())
    facts: dict[str, Any] = msgpack.unpackb(file_of(spool, id_).read_bytes())[0]
    spool.discard(id_)
    return facts


def packed(facts: dict[Any, Any], raw: bytes) -> bytes:
    bulk = b"\xc6" + len(raw).to_bytes(4, "big") + raw
    return b"\x92" + bytes(msgpack.packb(facts)) + bulk


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "holds no facts in msgpack"),
        (b"PK\x03\x04 a zip", "holds no facts in msgpack"),
        (b"\x92\xdb\xff\xff\xff\xff", "holds no facts in msgpack"),
        (b"\x92\x81\x90\x01\x01", "holds no facts in msgpack"),
        (b"\x92\x01\x01", "holds msgpack, but no message"),
        (b"\x91\x80", "holds msgpack, but no message"),
        (b"\x92\x80\xc6\0\0\0\0", "has format None, known is 1"),
        (packed({"format": 2}, b""), "has format 2, known is 1"),
    ],
)
def test_a_file_that_is_none_of_ours(spool: Spool, content: bytes, reason: str) -> None:
    put(spool, content)
    listing = spool.list()
    assert [(u.name, u.reason) for u in listing.unreadable] == [(f"{AN_ID}.mpq", reason)]
    with pytest.raises(UnreadableItem, match=re.escape(f"{AN_ID}.mpq {reason}")):
        spool.get(AN_ID)
    assert spool.discard(AN_ID) == (AN_ID,)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"tid": "5"}, "facts missing, unknown or of another type: tid"),
        ({"truncated": 0}, "facts missing, unknown or of another type: truncated"),
        ({"colour": 1}, "facts missing, unknown or of another type: colour"),
        ({3: 4}, "holds no facts in msgpack"),
        ({"at": float("nan")}, "at = nan is no time"),
        ({"at": 1e300}, "at = 1e+300 is no time"),
    ],
)
def test_facts_that_are_none(spool: Spool, changes: dict[Any, Any], reason: str) -> None:
    put(spool, packed(facts_of(spool) | changes, raw_message()))
    assert [u.reason for u in spool.list().unreadable] == [reason]


def test_a_raw_message_that_is_none(spool: Spool) -> None:
    facts = facts_of(spool)
    for raw in (b"short", bytes(HEADER.size + 100)):
        put(spool, packed(facts, raw))
        with pytest.raises(UnreadableItem, match=f"its {len(raw)} bytes are no message"):
            spool.get(AN_ID)


def read(content: bytes) -> Quarantined:
    return read_item(io.BytesIO(content), AN_ID, whole=True)


def test_a_file_cut_anywhere_or_too_long_is_damaged(spool: Spool) -> None:
    whole = packed(facts_of(spool), raw_message())
    assert read(whole).raw == raw_message()
    for content in (*(whole[:n] for n in range(len(whole))), whole + b"\0"):
        with pytest.raises(ValueError, match=r"holds no facts|is damaged"):
            read(content)


def test_no_damage_raises_anything_else(spool: Spool) -> None:
    whole = packed(facts_of(spool), raw_message())
    unreadable = 0
    for at in range(len(whole)):
        for flip in (0x01, 0x80, 0xFF):
            damaged = whole[:at] + bytes([whole[at] ^ flip]) + whole[at + 1 :]
            try:
                read(damaged).message()
            except ValueError:
                unreadable += 1
    assert unreadable > 200


def test_files_of_others_are_named_and_left_alone(spool: Spool) -> None:
    id_ = spool.store(item())
    (spool.directory / "notes.txt").touch()
    (spool.directory / f"{AN_ID}.mpq").mkdir()
    (spool.directory / "20260101T000000.000000-00000000.mpq").symlink_to("/nowhere")
    os.mkfifo(spool.directory / "20260101T000000.000000-00000001.mpq")
    (spool.directory / "20260101T000000.000000-00000002.tmp").touch()
    listing = spool.list()
    assert [one.id for one in listing.items] == [id_]
    reasons = {u.name: u.reason for u in listing.unreadable}
    killed = reasons.pop("20260101T000000.000000-00000002.tmp")
    assert killed == "is being written, or its writer was killed"
    assert set(reasons.values()) == {"is no file of the quarantine"}
    assert len(reasons) == 4
    spool.discard(*spool.ids())
    assert len(os.listdir(spool.directory)) == 5


def test_a_file_that_may_not_be_read(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    id_ = spool.store(item())

    def refuse(*args: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(spool_module, "open", refuse, raising=False)
    (unreadable,) = spool.list().unreadable
    assert str(unreadable) == f"{id_}.mpq cannot be read: Permission denied"
