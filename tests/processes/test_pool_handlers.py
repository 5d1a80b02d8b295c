"""Plugin code in workers: functions and classes, replies, errors, options, start and stop."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from mpmsgr import ErrorCode, Message, RemoteError, message, sync
from mpmsgr.dispatch import payload
from tests.processes.pool_serving import WORKER, Serve

MODULES = {
    "shop": """
        import os, sys
        from mpmsgr import Message, RemoteError, handles, message, on_start, on_stop

        @message(0x9001)
        class Add:
            n: int
            text: str = ""

        state = {}

        @on_start
        def open_shop(options):
            note("start", sorted(options.items()))

        @on_start
        async def and_async():
            note("also")

        @on_stop
        def close_shop():
            note("stop")

        def note(*words):
            with open("notes", "a") as file:
                print(os.getpid(), *words, file=file)

        @handles(Add)
        def add(con, m):
            return {"sum": m.obj.n + 1, "text": m.obj.text, "data": bytes(m.data)}

        @handles(0x9002)
        async def later(con, m):
            import asyncio
            await asyncio.sleep(0)
            return m.front[::-1]

        @handles(0x9003)
        def fails(con, m):
            raise ValueError("broken on purpose")

        @handles(0x9004)
        async def fails_later(con, m):
            import asyncio
            task = asyncio.ensure_future(asyncio.sleep(60))
            task.cancel()
            await task

        @handles(0x9005)
        def refuses(con, m):
            raise RemoteError(1007, "not today", {})

        @handles(0x9006)
        def gives_nonsense(con, m):
            return object()

        @handles(0x9007)
        def silent(con, m):
            pass

        @handles(0x9008)
        def who(con, m):
            return [os.getpid(), con.id, con.peer_type, str(con.peer_addr), str(m.src), m.nonce]

        @handles(0x9009)
        def too_long(con, m):
            con.send_message(m.reply(bytes((16 << 20) + 1)))

        @handles(0x900A)
        def uses_a_buffer_again(con, m):
            buffer = bytearray(int(m.front))
            for number in range(3):
                buffer[:] = bytes([number]) * len(buffer)
                con.send_message(Message(0x900B, data=buffer))
            with memoryview(bytes(buffer)) as view:  # released before the handler completes
                con.send_message(m.reply(data=view))

        @handles(0x900C)
        def stops(con, m):
            breakpoint()

        @handles(0x900D)
        def ends(con, m):
            sys.exit("bad usage")
    """,
    "classes": """
        from mpmsgr import Dispatcher

        class Scale(Dispatcher):
            message_types = {0x9101}
            order = 1

            def __init__(self, by=1, *, words=()):
                self.by, self.words = by, words

            def dispatch(self, con, m):
                text = ",".join(self.words)
                con.send_message(m.reply(b"%d %s" % (int(m.front) * self.by, text.encode())))

        class PassesOn(Dispatcher):
            message_types = {0x9101, 0x9102}

            def dispatch(self, con, m):
                if m.front == b"mine":
                    con.send_message(m.reply(b"taken"))
                    return True
                return False
    """,
}
TOML = """
    [options.shop]
    colour = "red"
    [options."classes:Scale"]
    by = 3
    words = ["a", "b"]
"""


@pytest.fixture(scope="module")
def server() -> Iterator[Serve]:
    specs = ("classes:PassesOn", "shop", "classes:Scale")
    with Serve(MODULES, *specs, toml=TOML) as server:
        yield server


@pytest.fixture
def con(server: Serve) -> Iterator[sync.SyncConnection]:
    with sync.connect(server.address, timeout=10) as con:
        yield con


def ask(con: sync.SyncConnection, type_: int, front: bytes = b"", data: bytes = b"") -> bytes:
    return bytes(con.request(Message(type_, front, data=data), timeout=10).front)


def test_objects(con: sync.SyncConnection, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(payload, "_classes", {})

    class Add:
        n: int
        text: str = ""

    add = message(0x9001)(Add)
    asked = add(n=4, text="é")  # type: ignore[call-arg]
    assert con.request(asked, b"bulk", timeout=10) == {"sum": 5, "text": "é", "data": b"bulk"}
    with pytest.raises(RemoteError) as raised:
        con.request(Message(0x9001, b"\x80"), timeout=10)
    assert raised.value.code == ErrorCode.BAD_PAYLOAD
    assert "missing 1 required positional argument: 'n'" in raised.value.text


def test_async_handlers(con: sync.SyncConnection) -> None:
    assert payload.unpack(con.request(Message(0x9002, b"abc"), timeout=10)) == b"cba"


@pytest.mark.parametrize("size", [100, 10_000, 40_000, 100_000])
def test_what_was_sent_stays_as_it_was(con: sync.SyncConnection, size: int) -> None:
    """Whatever a handler does to its buffers before it completes."""
    pushes = con.messages(0x900B)
    reply = con.request(Message(0x900A, b"%d" % size), timeout=10)
    assert [next(pushes).data for _ in range(3)] == [bytes([n]) * size for n in range(3)]
    assert reply.data == bytes([2]) * size


def test_what_handlers_see_of_the_sender(server: Serve, con: sync.SyncConnection) -> None:
    reply = payload.unpack(con.request(Message(0x9008), timeout=10))
    pid, con_id, peer_type, peer_addr, src, nonce = reply
    messenger = con.connection.messenger
    assert con_id >> 32 == 1, "ids begin with the incarnation"
    assert (peer_type, src, nonce) == (8, "client.?", messenger.addr.nonce)
    assert peer_addr == f"127.0.0.1:0/{nonce}"
    assert pid in server.pids(WORKER)


@pytest.mark.parametrize(
    ("type_", "code", "text"),
    [
        (0x9003, ErrorCode.HANDLER_FAILED, "handler failed: ValueError: broken on purpose"),
        (0x9004, ErrorCode.HANDLER_FAILED, "handler failed: CancelledError: "),
        (0x9005, 1007, "not today"),
        (0x9006, ErrorCode.HANDLER_FAILED, "handler failed: TypeError: message type 0x9006"),
        (0x9009, ErrorCode.HANDLER_FAILED, "handler failed: ValueError: message front has"),
        (
            0x900C,
            ErrorCode.HANDLER_FAILED,
            "handler failed: RuntimeError: breakpoint(): a worker has",
        ),
        (0x900D, ErrorCode.HANDLER_FAILED, "handler failed: SystemExit: bad usage"),
        (0x9FFF, ErrorCode.UNHANDLED, "nobody handles message type 0x9fff"),
    ],
)
def test_what_goes_wrong_is_an_error_reply_and_the_worker_lives(
    server: Serve, con: sync.SyncConnection, type_: int, code: int, text: str
) -> None:
    workers = server.pids(WORKER)
    with pytest.raises(RemoteError) as raised:
        ask(con, type_)
    assert raised.value.code == code
    assert raised.value.text.startswith(text)
    assert payload.unpack(con.request(Message(0x9002, b"ab"), timeout=10)) == b"ba"
    assert server.pids(WORKER) == workers


def test_a_traceback_is_in_the_log(server: Serve, con: sync.SyncConnection) -> None:
    with pytest.raises(RemoteError):
        con.request(Message(0x9003, tid=424242), timeout=10)
    (line,) = server.until(lambda: server.lines("handler of type 0x9003", "tid 424242"), "the line")
    assert " ERROR worker " in line
    log = server.log.partition("tid 424242")[2]
    assert log.index("Traceback") < log.index("ValueError: broken on purpose")
    assert 'shop.py", line' in log


def test_the_chain(con: sync.SyncConnection) -> None:
    assert ask(con, 0x9101, b"mine") == b"taken"
    assert ask(con, 0x9101, b"7") == b"21 a,b", "passed on to the next one"
    with pytest.raises(RemoteError, match="nobody handles message type 0x9102"):
        ask(con, 0x9102, b"other")


def test_start_and_stop_run_once_per_worker() -> None:
    with Serve(MODULES, "shop", toml='[options.shop]\nb = 2\na = "x"') as server:
        workers = server.pids(WORKER)
        started = [f"{pid} start [('a', 'x'), ('b', 2)]" for pid in workers]
        also = [f"{pid} also" for pid in workers]
        assert sorted(server.written("notes")) == sorted(started + also)
        assert server.stop() == 0
        stopped = [f"{pid} stop" for pid in workers]
        assert sorted(server.written("notes")) == sorted(started + also + stopped)


# plugins that cannot be used


@pytest.mark.parametrize(
    ("source", "said", "workers"),
    [
        ("import json\n1 / 0", ["Traceback", 'bad.py", line 2', "ZeroDivisionError"], 2),
        ("x = 1", ["bad: has neither functions with @handles nor one Dispatcher class"], 0),
        (
            "from mpmsgr import handles, on_start\n"
            "@handles(0x9001)\ndef f(con, m): ...\n"
            "@on_start\ndef g(): raise OSError('no database')\n",
            ["Traceback", 'bad.py", line 5, in g', "OSError: no database"],
            1,
        ),
        (
            "import sys\nfrom mpmsgr import handles, on_start\n"
            "@handles(0x9001)\ndef f(con, m): ...\n"
            "@on_start\ndef g(): sys.exit('no database')\n",
            ['bad.py", line 6, in g', "SystemExit: no database"],
            1,
        ),
    ],
)
def test_a_plugin_that_cannot_be_loaded(source: str, said: list[str], workers: int) -> None:
    server = Serve({"bad": source}, workers=workers, wait=False)
    try:
        server.start()
        assert server.wait() == 3
        assert server.lines("mpmsgr: "), server.log
        assert [text for text in said if text not in server.log] == []
        assert server.children() == []
        assert not server.run_dir.exists()
    finally:
        server.close()
