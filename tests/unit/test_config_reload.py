"""What a reload takes over, and what it leaves for a restart."""

from __future__ import annotations

import pytest

from mpmsgr.config import OPTIONS, Settings, take_over

RUNNING = Settings(workers=2, modules=["a"], bind=["127.0.0.1:6800"])


def test_nothing_new() -> None:
    assert take_over(RUNNING, RUNNING) == (RUNNING, [])


def test_workers_get_what_is_theirs_and_the_io_process_keeps_what_it_has() -> None:
    read = Settings(
        workers=3,
        modules=["b"],
        options={"b": {"n": 1}},
        graceful_timeout_s=5.0,
        log_level="debug",
        bind=["127.0.0.1:6801"],
        name="svc.1",
        max_front_bytes=1024,
    )
    taken, left = take_over(RUNNING, read)
    assert left == ["bind", "name", "max_front_bytes"]
    assert (taken.bind, taken.name, taken.max_front_bytes) == (
        RUNNING.bind,
        RUNNING.name,
        RUNNING.max_front_bytes,
    )
    assert (taken.workers, taken.modules, taken.options) == (3, ["b"], {"b": {"n": 1}})
    assert (taken.graceful_timeout_s, taken.log_level) == (5.0, "debug")


@pytest.mark.parametrize(("before", "after"), [(0, 0), (0, 2), (2, 0)])
def test_where_the_io_process_has_the_modules_they_stay(before: int, after: int) -> None:
    running = Settings(workers=before, modules=["a"])
    taken, left = take_over(running, Settings(workers=after, modules=["b"], log_level="debug"))
    assert left == (["workers"] if before != after else []) + ["modules"]
    assert (taken.workers, taken.modules, taken.log_level) == (before, ["a"], "debug")


def test_no_option_is_both() -> None:
    assert not [option.name for option in OPTIONS if option.live and option.of_workers]
