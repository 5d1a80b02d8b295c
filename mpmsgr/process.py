"""What a child process does first: die with its parent, leave signals to it, show stacks."""

from __future__ import annotations

import ctypes
import faulthandler
import logging
import os
import signal
import sys
import traceback
from types import FrameType

from mpmsgr.errors import ConfigError, PluginError

SUPERVISOR_PID_ENV = "MPMSGR_SUPERVISOR_PID"
DUMP_SIGNAL = signal.SIGUSR1
#: Those a terminal, or a careless ``pkill``, sends to children as well as to the supervisor.
PARENTS_SIGNALS = (
    signal.SIGINT,
    signal.SIGTERM,
    signal.SIGQUIT,
    signal.SIGHUP,
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
    programs the plugins start. The parent blocks them for us until here. Main thread only.
    """
    for number in PARENTS_SIGNALS:
        signal.signal(number, _do_nothing)
        signal.siginterrupt(number, False)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, PARENTS_SIGNALS)


def dump_stacks_on_signal(fd: int) -> None:
    """Write the stacks of all threads to *fd* when DUMP_SIGNAL comes, and on a fault (SIGSEGV).

    Also while one of them is in C and holds the GIL: the handler needs no Python. *fd* is our end
    of a pipe of the parent's; programs we start do not inherit it. The parent blocks the signal
    for us until here. Main thread only.
    """
    os.set_inheritable(fd, False)
    faulthandler.enable(fd, all_threads=True)
    faulthandler.register(DUMP_SIGNAL, fd, all_threads=True, chain=False)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, (DUMP_SIGNAL,))


def why_not_started(err: BaseException) -> str:
    """What a child that cannot start tells its parent of *err*.

    A sentence where the configuration or a module is to blame; otherwise the traceback.
    """
    if isinstance(err, PluginError | ConfigError):
        return str(err)
    return "".join(traceback.format_exception(err)).rstrip()


def end_broken(log: logging.Logger) -> None:
    """End at once, in the handling of an error of our own: the supervisor starts another one."""
    log.error("this process cannot go on", exc_info=True)
    logging.shutdown()
    os._exit(1)


def leave_interrupts_to_parent_at_breakpoints() -> None:
    """Have ``breakpoint()`` leave SIGINT alone: pdb takes it with its first ``continue``.

    Ctrl-C after a breakpoint would come to a second prompt, and not end the server. What
    PYTHONBREAKPOINT names is left to itself.
    """
    if "PYTHONBREAKPOINT" not in os.environ:
        sys.breakpointhook = _break


def refuse_breakpoints() -> None:
    """Have ``breakpoint()`` raise, and say where it works: here is no terminal.

    What PYTHONBREAKPOINT names is left to itself.
    """
    if "PYTHONBREAKPOINT" not in os.environ:
        sys.breakpointhook = _refuse


def _refuse() -> None:
    raise RuntimeError("breakpoint(): a worker has no terminal, mpmsgr serve --workers 0 has")


def _break() -> None:
    import pdb  # only a breakpoint needs it

    pdb.Pdb(nosigint=True).set_trace(sys._getframe(1))


def _do_nothing(number: int, frame: FrameType | None) -> None:
    pass
