"""Child processes: started by exec, watched by pidfd, spoken to over a control channel."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path

import mpmsgr
from mpmsgr.control import ControlChannel
from mpmsgr.errors import ConfigError
from mpmsgr.process import DUMP_SIGNAL, PARENTS_SIGNALS, SUPERVISOR_PID_ENV
from mpmsgr.supervisor.stacks import Stacks

# Buffers that come and go must stay malloc's: above the mmap threshold each is mapped, faulted in
# page by page and unmapped; a free top above the trim threshold goes back to the kernel, and comes
# back as page faults. Allocating and freeing 8 x 1 MiB costs 224 faults and 630 us per MiB with
# the defaults, 1.5 and 17 us with these. Setting one of them switches glibc's own adaption off.
MALLOC_ENVIRONMENT = {
    # The most that glibc takes (HEAP_MAX_SIZE / 2): only larger buffers are mapped.
    "MALLOC_MMAP_THRESHOLD_": str(32 << 20),
    # Above dispatch_bytes (100 MiB), so that a full queue that empties keeps its pages.
    "MALLOC_TRIM_THRESHOLD_": str(128 << 20),
    # Fewer brk calls; pages nobody touched cost nothing. More than this gained nothing.
    "MALLOC_TOP_PAD_": str(1 << 20),
}


def _module(name: str) -> list[str]:
    # -P: modules named like ours or the standard library's in the current directory are not ours.
    return [sys.executable, "-P", "-m", name]


@dataclass(frozen=True)
class Commands:
    """The beginnings of the children's command lines; the options are appended."""

    io: Sequence[str] = field(default_factory=lambda: _module("mpmsgr.messenger.io"))
    worker: Sequence[str] = field(default_factory=lambda: _module("mpmsgr.pool.worker"))


class Process:
    """A running child: its pid, its pidfd, our ends of its control channel and of its stacks.

    signal: the number of what ended it, 0 before and if none did.
    """

    def __init__(
        self, popen: subprocess.Popen[bytes], channel: ControlChannel, stacks: Stacks
    ) -> None:
        """Watch *popen*, our child that was not waited for yet."""
        self._popen = popen
        self.pid = popen.pid
        self.channel, self.stacks = channel, stacks
        self.pidfd = os.pidfd_open(popen.pid)
        self.signal = 0

    def dump_stacks(self) -> None:
        """Have it write to `stacks`: see `mpmsgr.process.dump_stacks_on_signal`."""
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.pidfd, DUMP_SIGNAL)

    def kill(self) -> None:
        """Send SIGKILL."""
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)

    def reap(self) -> str:
        """Wait for its end and release what belongs to it; returns the cause of death."""
        status = self._popen.wait()
        os.close(self.pidfd)
        self.channel.close()
        self.stacks.close()
        self.signal = max(0, -status)
        return f"signal {self.signal}" if self.signal else f"exit {status}"


def spawn(
    command: Sequence[str], options: Sequence[str], fds: Sequence[int] = (), stdin: bool = False
) -> Process:
    """Start *command* with ``--control-fd N --stacks-fd M`` and *options*.

    *fds* keep their numbers in it.

    stdin: it reads from ours, not from nowhere.

    Main thread only: the children's PR_SET_PDEATHSIG follows the thread that started them.
    Raises OSError if the process cannot be started.
    """
    assert threading.current_thread() is threading.main_thread()
    channel, theirs = ControlChannel.pair()
    with theirs, ExitStack() as undo:
        undo.callback(channel.close)
        reader, writer = os.pipe()
        stacks = Stacks(reader)
        undo.callback(stacks.close)
        try:
            ours = ["--control-fd", str(theirs.fileno()), "--stacks-fd", str(writer)]
            inherited = [theirs.fileno(), writer, *fds]
            argv = [*command, *ours, *options]
            popen = _start(argv, inherited, None if stdin else subprocess.DEVNULL)
        finally:
            os.close(writer)
        undo.pop_all()
    return Process(popen, channel, stacks)


def check_platform() -> None:
    """Raise ConfigError where processes cannot be supervised."""
    try:
        os.close(os.pidfd_open(os.getpid()))
    except (AttributeError, OSError) as exc:
        reason = f"Linux 5.3 or newer is needed, to be told of the death of processes ({exc})"
        raise ConfigError("platform", sys.platform, reason) from None


def _start(argv: list[str], fds: list[int], stdin: int | None) -> subprocess.Popen[bytes]:
    # Inherited by the child until it can deal with them: Ctrl-C reaches the whole process group.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, (*PARENTS_SIGNALS, DUMP_SIGNAL))
    try:
        return subprocess.Popen(
            argv, stdin=stdin, pass_fds=fds, env=child_environment(os.environ.copy())
        )
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def child_environment(env: dict[str, str]) -> dict[str, str]:
    """*env* with what children need; what the operator set for malloc stays."""
    env = MALLOC_ENVIRONMENT | env | {SUPERVISOR_PID_ENV: str(os.getpid())}
    package_root = str(Path(mpmsgr.__file__).parent.parent)
    if sys.path and os.path.abspath(sys.path[0]) == package_root and not sys.flags.safe_path:
        # Run from a checkout that is not installed: -P hides the directory we found it in.
        rest = env.get("PYTHONPATH")
        env["PYTHONPATH"] = package_root + (os.pathsep + rest if rest else "")
    return env
