"""Watching source files, for ``--reload``: a development aid, needs the extra ``reload``."""

from __future__ import annotations

import logging
import os
import socket
import threading
from pathlib import Path

from mpmsgr.errors import ConfigError

#: How long changes are collected, which is also how often the watcher looks, in milliseconds.
#: Nothing else here polls; idle, it costs 0.03 % of a CPU.
_STEP_MS = 200


class SourceWatch:
    """While entered, changes of Python and TOML files below *folder* arrive at `read`.

    Raises ConfigError where watchfiles is not installed.
    """

    def __init__(self, folder: str) -> None:
        try:
            import watchfiles
        except ImportError:
            needs = "needs watchfiles, which comes with the extra: pip install 'mpmsgr[reload]'"
            raise ConfigError("reload", True, needs) from None
        # It says how many changes it has seen; which ones is for whoever reads them here to say.
        logging.getLogger("watchfiles").setLevel(logging.WARNING)
        self._watchfiles = watchfiles
        self._folder = Path(folder)
        self._stop = threading.Event()
        self._changed: set[str] = set()
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="source-watch", daemon=True)

    def __enter__(self) -> SourceWatch:
        """Begin."""
        self._reader, self._writer = socket.socketpair()
        self._reader.setblocking(False)
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        """End."""
        self._stop.set()
        self._thread.join()
        self._reader.close()
        self._writer.close()

    def fileno(self) -> int:
        """The descriptor that is readable when something changed."""
        return self._reader.fileno()

    def read(self) -> list[str]:
        """The files that changed, relative to the folder, sorted."""
        try:
            self._reader.recv(4096)
        except BlockingIOError:
            pass
        with self._lock:
            changed, self._changed = self._changed, set()
        return sorted(changed)

    def _run(self) -> None:
        changes = self._watchfiles.watch(
            self._folder,
            watch_filter=self._watchfiles.PythonFilter(extra_extensions=(".toml",)),
            step=_STEP_MS,
            stop_event=self._stop,
            ignore_permission_denied=True,
        )
        for changed in changes:
            with self._lock:
                self._changed |= {os.path.relpath(path, self._folder) for _, path in changed}
            self._writer.send(b".")
