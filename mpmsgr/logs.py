"""Log lines of our processes: on stderr or in a file, as text or as one JSON object per line."""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

log = logging.getLogger("mpmsgr.logs")

FORMATS = ("text", "json")
#: How far apart it is said that lines cannot be written, in seconds.
_FAILURES_EVERY_S = 60.0
#: What a line may say beside its text, when its writer gives it as ``extra=``.
FIELDS = ("peer", "session", "seq", "tid", "worker", "generation")


def setup_logging(level: str, process: str, file: str | None = None, form: str = "text") -> None:
    """Write lines of at least *level*; *process* ("io", "worker 1") stands in each.

    file: append to it instead of stderr; form: of `FORMATS`. Raises OSError if the file cannot be
    opened.
    """
    handler = logging.StreamHandler(sys.stderr) if file is None else LogFile(file)
    handler.setFormatter(JsonLines(process) if form == "json" else _text(process))
    root = logging.getLogger()
    for old in root.handlers:
        if isinstance(old, LogFile):
            old.close()
    root.handlers[:] = [handler]
    set_level(level)


def setup_from(settings: Mapping[str, Any], process: str) -> None:
    """The same, as *settings* (by name) say."""
    setup_logging(settings["log_level"], process, settings["log_file"], settings["log_format"])


def set_level(level: str) -> None:
    """Write lines of at least *level* from now on."""
    logging.getLogger().setLevel(level.upper())


def reopen() -> None:
    """Go on in a new file where ours was moved away; what cannot be opened is said, in the old."""
    for handler in logging.getLogger().handlers:
        if isinstance(handler, LogFile):
            handler.reopen()


class LogFile(logging.FileHandler):
    """A file that several processes append lines to; `reopen` it when it was moved away."""

    def __init__(self, path: str) -> None:
        super().__init__(path, mode="a", encoding="utf-8")
        self._failures = RateLimit(_FAILURES_EVERY_S)

    def reopen(self) -> None:
        """Close the file and open the one of its name."""
        try:
            before = self.setStream(self._open())
        except OSError as exc:
            log.error("the log file cannot be opened anew: %s", exc)
        else:
            if before is not None:
                before.close()

    def handleError(self, record: logging.LogRecord) -> None:
        """Say in a line on stderr, once in a while, that a line could not be written."""
        error = sys.exception()
        if not isinstance(error, OSError):
            super().handleError(record)
            return
        held = self._failures.allows("", time.monotonic())
        if held is not None and sys.stderr is not None:
            why = f"{self.baseFilename} cannot be written: {error.strerror}"
            with suppress(OSError, ValueError):  # a closed stderr is no reason to fail, either
                print(f"mpmsgr: {why}{held_back(held)}", file=sys.stderr, flush=True)


def _text(process: str) -> logging.Formatter:
    return logging.Formatter(f"%(asctime)s %(levelname)s {process} %(name)s: %(message)s")


class JsonLines(logging.Formatter):
    """One object per line: ts (UTC), level, logger, process, text; `FIELDS`, traceback if any."""

    def __init__(self, process: str) -> None:
        super().__init__()
        self._process = process

    def format(self, record: logging.LogRecord) -> str:
        """The line of *record*, without its end."""
        line = {
            "ts": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "process": self._process,
            "text": record.getMessage(),
        }
        line |= {name: vars(record)[name] for name in FIELDS if name in vars(record)}
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


class RateLimit:
    """Says whether a line of a kind may be written now: *every_s* apart, how many were held back.

    Time is an argument: seconds of any clock.
    """

    def __init__(self, every_s: float) -> None:
        self._every_s = every_s
        self._kinds: dict[str, tuple[float, int]] = {}

    def allows(self, kind: str, now: float) -> int | None:
        """Lines of *kind* held back since the last one, or None: hold this one back too."""
        last, held = self._kinds.get(kind, (now - self._every_s, 0))
        if now - last < self._every_s:
            self._kinds[kind] = last, held + 1
            return None
        self._kinds[kind] = now, 0
        return held


def held_back(held: int) -> str:
    """What is said of lines that were *held* back, at the end of the next one."""
    return f" ({held} lines like this held back)" if held else ""
