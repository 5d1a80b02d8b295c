"""Collecting what a child writes of its stacks, with times that a test names."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Iterator
from typing import NamedTuple

import pytest

from mpmsgr.supervisor.stacks import MAX_BYTES, QUIET_S, Stacks, own_stacks

NEVER = float("inf")


class Pipe(NamedTuple):
    """The two ends."""

    stacks: Stacks
    writer: int

    def write(self, text: str) -> None:
        os.write(self.writer, text.encode())


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    reader, writer = os.pipe()
    pipe = Pipe(Stacks(reader), writer)
    yield pipe
    pipe.stacks.close()
    if not pipe.stacks.eof:
        os.close(writer)


def test_pieces_become_one_dump_that_is_due_when_nothing_followed(pipe: Pipe) -> None:
    assert pipe.stacks.due_at == NEVER
    pipe.write("Current thread\n  File ")
    pipe.stacks.read(10.0)
    assert pipe.stacks.due_at == 10.0 + QUIET_S
    pipe.write("here\n")
    pipe.stacks.read(11.0)
    assert pipe.stacks.due_at == 11.0 + QUIET_S
    assert pipe.stacks.take() == "Current thread\n  File here"
    assert (pipe.stacks.due_at, pipe.stacks.take()) == (NEVER, "")


def test_a_look_without_anything_there_changes_nothing(pipe: Pipe) -> None:
    pipe.stacks.read(10.0)
    assert (pipe.stacks.due_at, pipe.stacks.eof) == (NEVER, False)


def test_who_never_ends_is_due_at_once(pipe: Pipe) -> None:
    written = 0
    while written < MAX_BYTES:
        written += os.write(pipe.writer, b"x" * 4096)
        pipe.stacks.read(10.0)
    assert pipe.stacks.due_at == 10.0
    pipe.write("rest")
    pipe.stacks.read(10.0)
    assert pipe.stacks.take() == "x" * written, "no more is collected"
    pipe.stacks.read(10.0)
    assert pipe.stacks.take() == "rest"


def test_what_is_no_text_is_shown_all_the_same(pipe: Pipe) -> None:
    os.write(pipe.writer, b"\xff\n")
    pipe.stacks.read(10.0)
    assert pipe.stacks.take() == "\ufffd"


def test_the_end(pipe: Pipe) -> None:
    pipe.write("last words")
    os.close(pipe.writer)
    pipe.stacks.read(10.0)
    assert (pipe.stacks.eof, pipe.stacks.take()) == (True, "last words")
    pipe.stacks.close()
    pipe.stacks.close()
    assert pipe.stacks.fileno() == -1


def test_our_own_need_no_directory_to_write_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", "/no/such/directory")
    text = own_stacks()
    assert "Current thread 0x" in text
    assert "in test_our_own_need_no_directory_to_write_in\n" in text


def test_our_own_are_not_worth_an_exception(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(name: str) -> int:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(os, "memfd_create", fail)
    assert own_stacks() == "not to be had: Too many open files"
