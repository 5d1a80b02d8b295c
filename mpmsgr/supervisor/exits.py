"""How `mpmsgr.supervisor.run` ends."""

from __future__ import annotations

from enum import IntEnum


class ExitCode(IntEnum):
    """The supervisor's exit codes; each one but CLEAN comes with one line of reason on stderr.

    They are those of the command line, whose table has codes of other commands between them.
    """

    CLEAN = 0  # asked to stop; everything was delivered, everybody ended in time
    FAILED = 1  # the I/O process could not start, or the supervisor itself failed
    USAGE = 2  # a setting is wrong for this machine: port in use, run directory unusable
    PLUGIN = 3  # a plugin could not be loaded at the first start
    UNFINISHED = 4  # stopped with something undelivered, or somebody had to be killed
    CRASH_LOOP = 8  # processes died again and again before they did any work
