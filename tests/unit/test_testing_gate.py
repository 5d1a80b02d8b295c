"""The gate: shut, it holds one type of messages back; it takes none."""

from __future__ import annotations

import threading
from pathlib import Path
from unittest.mock import Mock

import pytest

from mpmsgr import Dispatcher, Message
from mpmsgr.dispatch.chain import Chain
from mpmsgr.testing.gate import GATE_ENV, Gate, gate
from tests.support import eventually


@pytest.fixture
def held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Gate:
    monkeypatch.setenv(GATE_ENV, str(tmp_path))
    return Gate()


def test_open_it_passes_everything_on(held: Gate) -> None:
    assert held.dispatch(Mock(), Message(0x8001)) is False


def test_shut_it_holds_its_type(held: Gate, tmp_path: Path) -> None:
    passed: list[bool] = []
    gate(tmp_path, 0x8001).touch()
    assert held.dispatch(Mock(), Message(0x8002)) is False
    thread = threading.Thread(
        target=lambda: passed.append(bool(held.dispatch(Mock(), Message(0x8001))))
    )
    thread.start()
    assert not passed
    gate(tmp_path, 0x8001).unlink()
    assert eventually(lambda: passed) == [False]
    thread.join()


def test_it_is_asked_first_and_says_nothing_of_handling(held: Gate) -> None:
    class Takes(Dispatcher):
        message_types = (0x8001,)
        order = -1000

    chain, takes = Chain(), Takes()
    for dispatcher in sorted((takes, held), key=lambda d: d.order):
        chain.add_tail(dispatcher)
    assert chain.takers(0x8001) == (held, takes)
    assert not held.message_types
