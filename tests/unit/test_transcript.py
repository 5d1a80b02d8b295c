"""What a page says a terminal prints: what may differ, and what may not."""

from __future__ import annotations

import pytest

from tests.transcript import Transcript

LOG = "2026-11-24 15:23:32,833 INFO supervisor mpmsgr.supervisor: worker 1 ended: exit 0, pid 2285"


def read(shown: str, printed: str, prompt: str = "") -> int:
    return Transcript({"/home/you": "/x"}, {"6800": "31337"}).read(
        printed, shown.split("\n"), prompt
    )


@pytest.mark.parametrize(
    ("shown", "printed"),
    [
        ("5", "5\n"),
        (LOG, LOG.replace("15:23:32,833", "00:00:00,001").replace("2285", "17") + "\n"),
        ("ready on 127.0.0.1:6800", "ready on 127.0.0.1:31337\n"),
        ("2.0 s, p50 14.1 ms, own CPU 31.1 us, 135 MiB", "11 s, p50 9 ms, own CPU 1.1 us, 8 MiB\n"),
        ("sent 2498, answered 2498", "sent 31, answered 31\n"),
        ('File "/home/you/a.py"', 'File "/x/a.py"\n'),
        ("SLOT   PID  SINCE\n   1  2311   2.0s", "SLOT  PID  SINCE\n   1   23  3m05s\n"),
        ("a\n...\nb", "a\nb\n"),
        ("a\n...\nb", "a\n1\n2\nb\n"),
    ],
)
def test_what_may_differ(shown: str, printed: str) -> None:
    assert read(shown, printed) == read(shown, f"{printed}$ ", "$ ") - 2 == len(printed)


@pytest.mark.parametrize(
    ("shown", "printed"),
    [
        ("5", "6\n"),
        ("5", "55\n"),
        ("5", "5"),
        (LOG, LOG.replace("worker 1", "worker 2") + "\n"),
        (LOG, LOG.replace("INFO", "ERROR") + "\n"),
        (LOG, LOG.replace("exit 0", "exit 1") + "\n"),
        ("ready on 127.0.0.1:6800", "ready on 127.0.0.1:6800\n"),
        ("sent 2498, answered 2498, lost 0", "sent 2498, answered 2497, lost 0\n"),
        ("sent 2498, answered 2498, lost 0", "sent 2498, answered 2498, lost 1\n"),
        ("took 2.0 s", "took s\n"),
        ("type 0x8001", "type 0x8002\n"),
        ("a\nb", "a\n1\nb\n"),
        ("a\n...\nb", "a\n1\n2\n"),
    ],
)
def test_what_may_not(shown: str, printed: str) -> None:
    assert read(shown, printed) == -1


def test_nothing_comes_after_the_prompt_or_instead_of_it() -> None:
    assert read("5", "5\n", "$ ") == read("5", "5\nmore\n$ ", "$ ") == -1
    assert read("5", "5\n$ more", "$ ") == -1


def test_what_was_learnt_holds_from_then_on() -> None:
    transcript = Transcript({}, {})
    assert transcript.read("worker 1, pid 17\n", ["worker 1, pid 2311"]) > 0
    assert transcript.typed("kill -9 2311") == "kill -9 17"
    assert transcript.read("pid 18\n", ["pid 2311"]) == -1
    assert transcript.read("pid 17\n", ["pid 2311"]) > 0
    assert transcript.typed("kill -9 23110 17") == "kill -9 23110 17"
