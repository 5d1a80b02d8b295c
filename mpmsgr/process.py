"""What a child process does first: die with its parent, leave the operator's signals to it."""

from __future__ import annotations

import ctypes
import faulthandler
import os
import signal
import sys
from types import FrameType

SUPERVISOR_PID_ENV = "MPMSGR_SUPERVISOR_PID"
#: A child writes the stacks of its threads to stderr when it gets this one, even inside C.
DUMP_SIGNAL = signal.SIGQUIT
#: Those a terminal, or a careless ``pkill``, sends to children as well as to the supervisor.
PARENTS_SIGNALS = (
    signal.SIGINT,
    signal.SIGTERM,
    signal.SIGHUP,
    signal.SIGUSR1,
    signal.SIGUSR2,
)

_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def die_with_parent(expected_parent_pid: int) -> bool:
    """Have the kernel send us SIGKILL when our parent dies; exit now if it is dead already.

    Returns True if that is armed, False off Linux, where only the end of the control channel tells.
    The signal follows the parent's *thread* that spawned us. It survives exec and not fork, and a
    change of user or group disarms it: call again after one. Raises OSError if the kernel refuses.
    Source: prctl(2), PR_SET_PDEATHSIG.
    """
    if not sys.platform.startswith("linux"):
        return False
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    if prctl(_PR_SET_PDEATHSIG, ctypes.c_ulong(signal.SIGKILL), 0, 0, 0) != 0:
        errno = ctypes.get_errno()
        raise OSError(errno, f"prctl(PR_SET_PDEATHSIG): {os.strerror(errno)}")
    # A parent that died between our start and the call above sends nothing any more.
    if os.getppid() != expected_parent_pid:
        os._exit(1)
    return True


def leave_signals_to_parent() -> None:
    """Let the operator's signals pass: a terminal's reach the whole process group.

    A handler that does nothing, not SIG_IGN, since that and a blocked mask would be inherited by
    programs the plugins start. DUMP_SIGNAL has its stacks written, by nobody's leave: a process
    that is stuck cannot ask for it. The parent blocks them all for us until here. Main thread only.
    """
    for number in PARENTS_SIGNALS:
        signal.signal(number, _do_nothing)
        signal.siginterrupt(number, False)
    if sys.stderr is None:  # what has its descriptor now is no place for stacks
        signal.signal(DUMP_SIGNAL, _do_nothing)
    else:
        faulthandler.register(DUMP_SIGNAL, file=sys.stderr, all_threads=True)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, (*PARENTS_SIGNALS, DUMP_SIGNAL))


def _do_nothing(number: int, frame: FrameType | None) -> None:
    pass
