"""The supervisor with real processes: starting, replacing, stopping, being killed."""

from __future__ import annotations

import os
import re
import signal
import socket
import stat
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from mpmsgr.pool import page
from mpmsgr.supervisor import ExitCode
from tests.loopback import ANY_PORT, HOST
from tests.processes.supervisor_harness import Start, ask, assert_nothing_left, until

REPLACED_S = 2.0  # the promise is 1 s on a machine that has nothing else to do


# Starting and stopping


def test_ready_then_a_clean_stop(start: Start) -> None:
    running = start(graceful_timeout_s=10.0)
    host, port = running.wait_ready()
    assert running.said == [f"mpmsgr: ready on {host}:{port} (2 workers)"]
    assert stat.S_IMODE(running.run_dir.stat().st_mode) == 0o700
    assert running.stop() == ExitCode.CLEAN
    assert running.said == [f"mpmsgr: ready on {host}:{port} (2 workers)"]
    assert_nothing_left(running)
    (stop_io,) = running.journal("stop", role="io")
    assert stop_io["timeout_s"] == pytest.approx(9.0, abs=0.5)
    assert len(running.journal("stop", role="worker")) == 2


def test_what_children_are_told(start: Start) -> None:
    running = start(nonce=77)
    running.wait_ready()
    io = running.wait_packet("start", role="io")
    assert io["endpoint"] == f"ipc://{running.run_dir}/io-1.ipc"
    assert (io["incarnation"], io["nonce"], len(io["listen_fds"])) == (1, 77, 1)
    worker = running.wait_packet("start", role="worker", slot=1)
    assert (worker["endpoint"], worker["incarnation"]) == (io["endpoint"], 1)


def test_children_get_malloc_settings_no_stdin_and_the_session(start: Start) -> None:
    running = start()
    running.wait_ready()
    pid = running.child("worker", 0)
    environ = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    assert b"MALLOC_MMAP_THRESHOLD_=33554432" in environ
    assert f"MPMSGR_SUPERVISOR_PID={running.process.pid}".encode() in environ
    assert os.readlink(f"/proc/{pid}/fd/0") == "/dev/null"
    assert os.getsid(pid) == os.getsid(running.process.pid)


def test_workers_hold_no_listening_socket_and_no_descriptor_of_a_sibling(start: Start) -> None:
    running = start()
    running.wait_ready()
    io_sockets = sockets_of(running.child("io"))
    workers = [sockets_of(running.child("worker", slot)) for slot in (0, 1)]
    assert [len(sockets) for sockets in workers] == [1, 1]
    assert not io_sockets & workers[0]
    assert not workers[0] & workers[1]


def sockets_of(pid: int) -> set[str]:
    links = [os.readlink(entry) for entry in Path(f"/proc/{pid}/fd").iterdir()]
    return {link for link in links if link.startswith("socket:")}


def test_several_binds_and_no_workers(start: Start) -> None:
    running = start(workers=0, bind=[ANY_PORT, ANY_PORT])
    running.wait_ready()
    address = rf"{re.escape(HOST)}:\d+"
    (line,) = running.said
    assert re.fullmatch(rf"mpmsgr: ready on {address},{address} \(0 workers\)", line)
    assert running.stop() == ExitCode.CLEAN


def test_ctrl_c_reaches_the_group_and_stops_gracefully(start: Start) -> None:
    running = start()
    running.wait_ready()
    os.killpg(running.process.pid, signal.SIGINT)
    assert running.wait() == ExitCode.CLEAN
    assert len(running.journal("stop")) == 3, "children were told, not interrupted"


def test_nothing_is_accepted_after_the_stop(start: Start) -> None:
    running = start(io="stubborn")
    address = running.wait_ready()
    assert ask(address) == "1"
    running.signal(signal.SIGTERM)
    running.wait_packet("stop", role="io")
    until(lambda: refused(address), "connections are refused")
    assert running.children(), "the I/O process holds its copy of the socket still"


def refused(address: tuple[str, int]) -> bool:
    try:
        socket.create_connection(address, timeout=5).close()
    except ConnectionError:
        return True
    return False


def test_a_stop_that_takes_too_long(start: Start) -> None:
    running = start(io="stubborn", graceful_timeout_s=0.5)
    running.wait_ready()
    assert running.stop() == ExitCode.UNFINISHED
    assert running.said[1:] == [
        "mpmsgr: stopped unfinished: what was in flight is lost (not ended after 0.5 s);"
        " killed: the I/O process, worker 0, worker 1"
    ]
    assert_nothing_left(running)


def test_undelivered_messages_are_said(start: Start) -> None:
    running = start(io="undelivered")
    running.wait_ready()
    assert running.stop() == ExitCode.UNFINISHED
    assert running.said[1:] == ["mpmsgr: stopped unfinished: 3 messages undelivered"]


def test_a_second_interrupt_stops_at_once(start: Start) -> None:
    running = start(io="stubborn", worker="stubborn", graceful_timeout_s=600.0)
    running.wait_ready()
    running.signal(signal.SIGINT)
    running.wait_packet("stop", role="io")
    running.signal(signal.SIGINT)
    assert running.wait(5.0) == ExitCode.UNFINISHED
    assert_nothing_left(running)


def test_a_second_term_does_not_hurry(start: Start) -> None:
    running = start(io="stubborn", graceful_timeout_s=1.0)
    running.wait_ready()
    began = time.monotonic()
    running.signal(signal.SIGTERM)
    running.wait_packet("stop", role="io")
    running.signal(signal.SIGTERM)
    assert running.wait() == ExitCode.UNFINISHED
    assert time.monotonic() - began >= 1.0
    assert running.journal("quit") == []


# Replacing


@pytest.mark.alone
def test_a_killed_worker_is_replaced_at_once(start: Start) -> None:
    running = start()
    running.wait_ready()
    os.kill(running.child("worker", 1), signal.SIGKILL)
    lost = running.wait_packet("worker_lost", timeout_s=REPLACED_S, role="io")
    assert (lost["slot"], lost["generation"], lost["cause"]) == (1, 1, "signal 9")
    running.wait_packet("start", timeout_s=REPLACED_S, role="worker", slot=1, number=2)
    assert len(running.journal("start")) == 4, "the other one goes on"
    assert running.stop() == ExitCode.CLEAN


@pytest.mark.alone
def test_a_killed_io_process_is_replaced_on_the_same_sockets(start: Start) -> None:
    running = start()
    address = running.wait_ready()
    os.kill(running.child("io"), signal.SIGKILL)
    began = time.monotonic()
    assert ask(address) == "2", "queued by the kernel until it is there"
    assert time.monotonic() - began < REPLACED_S
    for slot in (0, 1):
        link = running.wait_packet("link", role="worker", slot=slot)
        assert (link["incarnation"], link["endpoint"]) == (
            2,
            f"ipc://{running.run_dir}/io-2.ipc",
        )
    nonces = {packet["nonce"] for packet in running.journal("start", role="io")}
    assert len(nonces) == 1, "the nonce stays"
    assert running.stop() == ExitCode.CLEAN
    assert len(running.said) == 1, "ready is said once"


def test_deaths_after_work_have_no_limit_and_leave_no_descriptors(start: Start) -> None:
    running = start(workers=1, worker="works-and-exits@12")
    running.wait_ready()
    running.wait_packet("start", role="worker", number=3)
    before = len(os.listdir(f"/proc/{running.process.pid}/fd"))
    running.wait_packet("start", role="worker", number=13)
    assert len(os.listdir(f"/proc/{running.process.pid}/fd")) <= before + 2
    assert running.stop() == ExitCode.CLEAN


def test_a_worker_that_never_is_ready_is_killed_and_counted(start: Start) -> None:
    running = start(
        workers=1, worker="unready", limits={"boot_timeout_s": 3.0, "first_crash_limit": 2}
    )
    assert running.wait() == ExitCode.CRASH_LOOP
    assert running.said[-1] == (
        "mpmsgr: worker 0 died 2 times in a row before it did any work,"
        " last: signal 9 (not ready after 3 s)"
    )
    assert_nothing_left(running)


def test_a_worker_that_boots_at_the_second_try(start: Start) -> None:
    # Whoever takes longer because the machine is busy is tried again as well.
    limits = {"boot_timeout_s": 2.0, "first_crash_limit": 100}
    running = start(worker="unready@1", limits=limits)
    running.wait_ready()
    numbers = {p["number"] for p in running.journal("start", role="worker", slot=0)}
    assert numbers >= {1, 2}
    assert running.stop() == ExitCode.CLEAN


@pytest.mark.parametrize(("io", "worker"), [("good", "exit"), ("exit", "good")])
def test_a_crash_loop_at_the_first_start(start: Start, io: str, worker: str) -> None:
    running = start(io, worker)
    assert running.wait() == ExitCode.CRASH_LOOP
    assert running.said[-1].endswith("died 3 times in a row before it did any work, last: exit 7")
    assert_nothing_left(running)


def test_a_worker_that_loops_later_opens_its_breaker_and_keeps_the_sessions(start: Start) -> None:
    limits = {"breaker_limit": 3, "backoff_s": 0.01, "backoff_max_s": 0.2}
    running = start("good", "good", workers=1, limits=limits)
    running.wait_ready()
    for number in range(1, 6):
        os.kill(running.child("worker", 0, number), signal.SIGKILL)
    line = running.wait_line("times in a row")
    assert line.endswith(
        "worker 0 died 3 times in a row before it did any work: started every 0.2 s only,"
        " until it works or a reload mends it"
    )
    running.child("worker", 0, 6)
    assert running.journal("start", role="io", number=2) == [], "it keeps its sessions"
    assert running.stop() == ExitCode.CLEAN


def test_an_io_process_that_loops_later_ends_it(start: Start) -> None:
    running = start("exits-later", "good", limits={"crash_limit": 4, "backoff_s": 0.01})
    running.wait_ready()
    os.kill(running.child("io"), signal.SIGKILL)
    assert running.wait() == ExitCode.CRASH_LOOP
    assert running.said[-1] == (
        "mpmsgr: the I/O process died 4 times in a row before it did any work, last: exit 7"
    )
    assert_nothing_left(running)


def test_a_plugin_that_cannot_be_loaded(start: Start) -> None:
    running = start(worker="unloadable", workers=4)
    assert running.wait() == ExitCode.PLUGIN
    assert running.said == ["mpmsgr: no module named 'nowhere'"]
    assert_nothing_left(running)


def test_an_io_process_that_cannot_start(start: Start) -> None:
    running = start(io="unloadable")
    assert running.wait() == ExitCode.FAILED
    assert_nothing_left(running)


def test_a_child_that_speaks_nonsense_is_replaced(start: Start) -> None:
    running = start(worker="garbage@1")
    running.wait_ready()
    assert running.stop() == ExitCode.CLEAN


def test_a_program_that_is_not_there(start: Start) -> None:
    running = start(commands={"io": ["/nonexistent/io"], "worker": ["/nonexistent/worker"]})
    assert running.wait() == ExitCode.CRASH_LOOP
    assert "cannot be started" in running.said[-1]
    assert_nothing_left(running)


def test_a_defect_of_the_supervisor_leaves_nobody_behind(start: Start) -> None:
    running = start(limits={"boot_timeout_s": "no number"})
    assert running.wait() == ExitCode.FAILED
    assert "TypeError" in running.lines[-1]
    assert_nothing_left(running)


# Shared memory

SIZES = {"arena_bytes": 1 << 20, "ring_bytes": 8192, "worker_arena_bytes": 65536}
SLOT_BYTES = page.SIZE + 2 * 8192 + 65536


def test_the_shared_memory_of_children(start: Start) -> None:
    running = start(**SIZES)
    running.wait_ready()
    io = running.wait_packet("start", role="io")
    (arena,) = io["fds"]
    assert io["memory"] == SIZES
    assert arena["name"] == "/memfd:mpmsgr-io-1"
    assert (arena["bytes"], arena["writable"]) == (1 << 20, True)
    for slot in (0, 1):
        (memory,) = running.wait_packet("slot_memory", role="io", **{"slot": slot})["fds"]
        assert memory["name"] == f"/memfd:mpmsgr-worker-{slot}"
        assert (memory["bytes"], memory["writable"]) == (SLOT_BYTES, True)
        worker = running.wait_packet("start", role="worker", slot=slot)
        assert worker["memory"] == SIZES
        assert worker["fds"] == [{**arena, "writable": False}, memory]
    assert running.stop() == ExitCode.CLEAN


def test_sizes_are_whole_pages(start: Start) -> None:
    running = start(workers=1, arena_bytes=1, ring_bytes=4097, worker_arena_bytes="5KiB")
    running.wait_ready()
    told = running.wait_packet("start", role="worker")["memory"]
    assert told == {"arena_bytes": 4096, "ring_bytes": 8192, "worker_arena_bytes": 8192}


def test_an_arena_per_incarnation_and_a_piece_per_slot(start: Start) -> None:
    running = start(**SIZES)
    running.wait_ready()
    before = memfds_of(running.process.pid)
    os.kill(running.child("io"), signal.SIGKILL)
    second = running.wait_packet("start", role="io", number=2)["fds"][0]
    assert second["name"] == "/memfd:mpmsgr-io-2"
    for slot in (0, 1):
        link = running.wait_packet("link", role="worker", slot=slot)
        assert link["fds"] == [{**second, "writable": False}]
    os.kill(running.child("worker", 1), signal.SIGKILL)
    arena, piece = running.wait_packet("start", role="worker", slot=1, number=2)["fds"]
    assert arena == link["fds"][0]
    assert piece == running.wait_packet("start", role="worker", slot=1, number=1)["fds"][1]
    handed = [running.wait_packet("slot_memory", slot=1, number=n)["fds"] for n in (1, 2)]
    assert handed == [[piece], [piece]]
    assert len(before) == 3
    assert len(memfds_of(running.process.pid)) == 3, "the first arena is let go"


def test_a_slot_more_has_memory_of_its_own(start: Start) -> None:
    running = start(**SIZES)
    running.wait_ready()
    running.signal(signal.SIGTTIN)
    piece = running.wait_packet("start", role="worker", slot=2)["fds"][1]
    assert (piece["name"], piece["bytes"]) == ("/memfd:mpmsgr-worker-2", SLOT_BYTES)
    assert running.wait_packet("slot_memory", role="io", slot=2)["fds"] == [piece]
    running.signal(signal.SIGTTOU)
    running.wait_line("worker 2 (generation 1) ended: exit 0")
    os.kill(running.child("io"), signal.SIGKILL)
    assert running.wait_packet("slot_memory", role="io", slot=2, number=2)["fds"] == [piece]
    running.signal(signal.SIGTTIN)
    again = running.wait_packet("start", role="worker", slot=2, number=2)
    assert (again["fds"][1], again["begun"]) == (piece, [])
    assert running.stop() == ExitCode.CLEAN


def test_a_slot_more_that_there_is_no_room_for_is_tried_again(start: Start) -> None:
    running = start(workers=1, log_level="error", **SIZES)
    running.wait_ready()
    supervisor = psutil.Process(running.process.pid)
    limits = supervisor.rlimit(psutil.RLIMIT_FSIZE)
    supervisor.rlimit(psutil.RLIMIT_FSIZE, (65536, limits[1]))
    running.signal(signal.SIGHUP)
    running.wait_line("the reload is given up, the workers from before it stay: ")
    assert running.journal("start", role="worker", slot=1) == []
    running.signal(signal.SIGTTIN)
    running.wait_line("worker 1 (generation 4) cannot be started: ")
    supervisor.rlimit(psutil.RLIMIT_FSIZE, limits)
    assert len(running.wait_packet("start", role="worker", slot=1)["fds"]) == 2
    assert running.stop() == ExitCode.CLEAN


def memfds_of(pid: int) -> list[str]:
    links = [os.readlink(entry) for entry in Path(f"/proc/{pid}/fd").iterdir()]
    return [link for link in links if "memfd:" in link]


@pytest.mark.parametrize("settings", [{"workers": 0}, {"arena_bytes": 0}])
def test_no_shared_memory(start: Start, settings: dict[str, Any]) -> None:
    running = start(**settings)
    running.wait_ready()
    assert memfds_of(running.process.pid) == []
    for packet in running.journal("start"):
        assert "fds" not in packet
        assert "memory" not in packet
    assert running.journal("slot_memory") == []


def test_what_a_dead_worker_ran_is_told_and_its_page_is_blank_again(start: Start) -> None:
    running = start(worker="runs@1", limits={"crash_limit": 1})
    running.wait_ready()
    os.kill(running.child("worker", 1), signal.SIGSEGV)
    lost = running.wait_packet("worker_lost", role="io")
    assert (lost["slot"], lost["running"], lost["signal"]) == (1, [41, 42, 43], signal.SIGSEGV)
    assert lost["cause"] == "signal 11"
    assert running.wait_packet("start", role="worker", slot=1, number=2)["begun"] == []
    os.kill(running.child("worker", 0), signal.SIGKILL)
    assert running.wait_packet("worker_lost", slot=0)["running"] == [41, 42, 43]
    assert running.stop() == ExitCode.CLEAN, "no crash loop: the messages were"


def test_a_death_with_nothing_running(start: Start) -> None:
    running = start(worker="works-and-exits@1", workers=1)
    lost = running.wait_packet("worker_lost", role="io")
    assert (lost["running"], lost["signal"], lost["cause"]) == ([], 0, "exit 7")


def test_a_handler_past_its_deadlines(start: Start) -> None:
    running = start(worker="hangs@1", workers=1, limits={"first_crash_limit": 1})
    lost = running.wait_packet("worker_lost", role="io")
    assert lost["cause"] == (
        "signal 9 (handler of message type 0x8001 exceeded its deadline of 0.4 s)"
    )
    assert lost["running"] == [41, 42, 43]
    running.wait_packet("start", role="worker", number=2)
    said = "\n".join(running.lines)
    assert said.count("takes long over a message of type 0x8001; its stacks follow") == 1
    stacks = said.partition("stacks follow")[2]
    assert re.search(r'File ".*supervisor_fakes\.py", line \d+ in spin', stacks), "though in C"
    assert running.stop() == ExitCode.CLEAN


def test_a_worker_the_io_process_wants_replaced(start: Start) -> None:
    running = start(io="recycles@1", limits={"crash_limit": 1, "first_crash_limit": 1})
    running.wait_ready()
    lost = running.wait_packet("worker_lost", role="io")
    assert (lost["slot"], lost["cause"]) == (1, "exit 0"), "its successor was there before"
    assert running.journal("start", role="worker", slot=2, number=1)
    assert running.journal("retire", role="io", slot=1)
    assert running.stop() == ExitCode.CLEAN


def test_memory_that_cannot_be_had_later_is_asked_for_again(start: Start) -> None:
    running = start(workers=1, log_level="error")
    address = running.wait_ready()
    supervisor = psutil.Process(running.process.pid)
    limits = supervisor.rlimit(psutil.RLIMIT_FSIZE)
    supervisor.rlimit(psutil.RLIMIT_FSIZE, (1 << 20, limits[1]))
    os.kill(running.child("io"), signal.SIGKILL)
    said = "the I/O process (incarnation 2) cannot be started: "
    until(lambda: [line for line in running.lines if said in line], "it is said")
    supervisor.rlimit(psutil.RLIMIT_FSIZE, limits)
    assert int(ask(address)) > 2
    assert running.stop() == ExitCode.CLEAN


# Being killed


@pytest.mark.parametrize(
    ("io", "worker"),
    [("good", "good"), ("good", "spins"), ("good", "deaf"), ("spins", "good")],
)
def test_nobody_outlives_a_killed_supervisor(start: Start, io: str, worker: str) -> None:
    running = start(io, worker)
    until(lambda: len(running.children()) == 3, "children are there")
    if worker == "deaf":
        until(lambda: len(running.journal("up")) == 2, "they know their parent")
    else:
        running.wait_ready()
    running.signal(signal.SIGKILL)
    running.wait()
    until(lambda: not running.children(), "children are gone", 2.0)


def test_children_that_just_started_do_not_outlive_it(start: Start) -> None:
    running = start(workers=8)
    until(lambda: running.children(), "a first child is there")
    running.signal(signal.SIGKILL)
    running.wait()
    until(lambda: not running.children(), "children are gone")  # as soon as they look


def test_the_next_supervisor_takes_the_run_directory_over(start: Start) -> None:
    first = start()
    first.wait_ready()
    first.signal(signal.SIGKILL)
    first.wait()
    assert first.run_dir.exists()
    second = start(run_dir=str(first.run_dir))
    second.wait_ready()
    assert second.stop() == ExitCode.CLEAN
    assert not first.run_dir.exists()


# What is wrong from the start


def test_a_port_in_use(start: Start) -> None:
    with socket.create_server((HOST, 0)) as taken:
        port = taken.getsockname()[1]
        running = start(bind=[f"{HOST}:{port}"])
        assert running.wait() == ExitCode.USAGE
    (line,) = running.said
    assert line.startswith("mpmsgr: ")
    assert str(port) in line
    assert_nothing_left(running)


def test_memory_that_is_not_there(start: Start) -> None:
    running = start(arena_bytes="1024GiB", workers=3)
    assert running.wait() == ExitCode.USAGE
    (line,) = running.said
    total = 2 * (1 << 40) + 3 * (page.SIZE + 2 * (2 << 20) + (32 << 20))
    assert line.startswith(
        f"mpmsgr: 2 arena_bytes + 3 x (worker_arena_bytes + 2 ring_bytes) = {total}: only "
    )
    assert re.search(r" only \d+ bytes are left of \d+ ", line)
    assert_nothing_left(running)


@pytest.mark.parametrize(
    "settings",
    [{"run_dir": "/tmp/" + "x" * 100}, {"options": {"m": {"text": "." * 70_000}}}],
)
def test_settings_that_cannot_be(start: Start, settings: dict[str, Any]) -> None:
    running = start(**settings)
    assert running.wait() == ExitCode.USAGE
    (line,) = running.said
    assert line.startswith("mpmsgr: ")
    assert_nothing_left(running)
