"""serve_local: a service in this process, its clients, and what is arranged to go wrong."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import mpmsgr
from mpmsgr import Dispatcher, Message, PluginError, sync
from mpmsgr.errors import ConfigError
from mpmsgr.testing import LocalService, serve_local
from mpmsgr.testing.cut import Towards
from tests.unit.messenger_peers import ECHO, Recorder

PLUGIN = """
from mpmsgr import handles

OPENED = []

@handles(0x8001)
def answer(con, m):
    return m.data[0]
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """With a plugin that no other test has, importable until the test is over."""
    (tmp_path / "plugin_of_local.py").write_text(PLUGIN)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield tmp_path
    sys.modules.pop("plugin_of_local", None)


@pytest.fixture
def echo() -> Recorder:
    return Recorder()


@pytest.fixture
def service(echo: Recorder, tmp_path: Path) -> Iterator[LocalService]:
    with serve_local(echo, folder=tmp_path) as service:
        yield service


def ask(con: Any, number: int = 7) -> int:
    reply = con.request(Message(ECHO, b"", data=bytes([number])), timeout=10)
    return int(reply.data[0])


def test_a_module_by_name(folder: Path) -> None:
    with serve_local("plugin_of_local", folder=folder) as service:
        reply = service.connect().request(Message(0x8001, data=b"\x05"), timeout=10)
        assert bytes(reply.front) == b"\x05"


def test_what_the_configuration_says(folder: Path) -> None:
    (folder / "mpmsgr.toml").write_text('modules = ["plugin_of_local"]\nname = "svc.12"\n')
    with serve_local(folder=folder) as service:
        assert str(service.messenger.name) == "svc.12"
        assert service.connect().request(Message(0x8001, data=b"\x05"), timeout=10)
    with serve_local(folder=folder / "..", config=folder / "mpmsgr.toml") as service:
        assert str(service.messenger.name) == "svc.12"


def test_a_module_that_is_not_there(folder: Path) -> None:
    with (
        pytest.raises(PluginError, match=r"^plugin_of_nobody: there is no module"),
        serve_local("plugin_of_nobody", folder=folder),
    ):
        pass


def test_a_module_that_cannot_start_leaves_nothing(folder: Path) -> None:
    class Fails(Dispatcher):
        def on_start(self) -> None:
            raise RuntimeError("no database")

    with pytest.raises(RuntimeError, match="no database"), serve_local(Fails(), folder=folder):
        pass


def test_a_wrong_configuration(folder: Path) -> None:
    (folder / "mpmsgr.toml").write_text('modules = "x"\nworker = 3\n')
    with pytest.raises(ConfigError, match="worker"), serve_local(folder=folder):
        pass


def test_clients_of_every_kind(service: LocalService, echo: Recorder) -> None:
    async def in_a_coroutine() -> int:
        async with service.aconnect() as con:
            reply = await con.request(Message(ECHO, data=b"\x03"), timeout=10)
            return int(reply.data[0])

    assert ask(service.connect(), 1) == 1
    assert asyncio.run(in_a_coroutine()) == 3
    with sync.connect(service.address, timeout=10) as con:
        assert ask(con, 2) == 2
    assert len(echo.messages) == 3


def test_clients_end_with_the_visit(service: LocalService) -> None:
    before = service.connect()
    with service.visit():
        con = service.connect()
        assert ask(con) == 7
    with pytest.raises(mpmsgr.SessionReset):
        ask(con)
    assert ask(before) == 7


@pytest.mark.parametrize("towards", ["service", "client"])
@pytest.mark.parametrize("byte", [0, 1, 9, 53, 200])
def test_a_cut_session_goes_on(
    service: LocalService, echo: Recorder, byte: int, towards: Towards
) -> None:
    con, total = service.connect(), 0
    with service.cut(con, byte=byte, towards=towards) as cut:
        while total == 0 or not cut.happened:
            total += 1
            assert ask(con, total) == total
    assert ask(con, 99) == 99
    assert [m.data[0] for m in echo.messages] == [*range(1, total + 1), 99], "each once"
    assert echo.events == ["accept"] * 2


def test_a_client_in_a_coroutine_can_be_cut(service: LocalService, echo: Recorder) -> None:
    async def main() -> None:
        async with service.aconnect() as con:
            with service.cut(con, byte=30):
                await con.request(Message(ECHO, data=b"1"), timeout=10)

    asyncio.run(main())
    assert echo.events[:2] == ["accept"] * 2


def test_only_its_own_clients_can_be_cut(service: LocalService) -> None:
    with (
        sync.connect(service.address, timeout=10) as con,
        pytest.raises(ValueError, match="no client that this service made"),
    ):
        service.cut(con)


@pytest.mark.parametrize("wrong", [{"byte": -1}, {"towards": "nobody"}])
def test_a_wrong_cut(service: LocalService, wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="must be"):
        service.cut(service.connect(), **wrong)


def test_one_cut_at_a_time(service: LocalService) -> None:
    con = service.connect()
    with service.cut(con, byte=20):
        with pytest.raises(ValueError, match=r"^cut\(byte=20, .* still to happen"):
            service.cut(con)
        assert ask(con) == 7
    with service.cut(con):
        pass


def test_what_was_arranged_and_did_not_happen_fails_the_test(service: LocalService) -> None:
    with pytest.raises(AssertionError, match=r"not within 0\.05 s, \d+ bytes"), service.visit():
        service.cut(service.connect(), byte=10**6, towards="client", timeout=0.05)


def test_a_failure_is_not_hidden_by_what_did_not_happen(service: LocalService) -> None:
    with pytest.raises(ZeroDivisionError), service.visit():
        fail_before_the_cut(service)


def fail_before_the_cut(service: LocalService) -> None:
    with service.cut(service.connect(), byte=10**6, timeout=60):
        raise ZeroDivisionError
