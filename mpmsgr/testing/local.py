"""A service in the test's own process: breakpoints, coverage and monkeypatch reach its handlers."""

from __future__ import annotations

import asyncio
import secrets
from asyncio import AbstractEventLoop
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Self

from mpmsgr.config import Settings, load_settings, resolve_ways
from mpmsgr.dispatch.chain import Chain
from mpmsgr.dispatch.dispatcher import Dispatcher
from mpmsgr.dispatch.plugins import load_chain, load_io_chain
from mpmsgr.loop import LoopThread
from mpmsgr.messenger.messenger import Messenger
from mpmsgr.testing.service import Service


class LocalService(Service):
    """What `mpmsgr serve --workers 0` does, on the loop of *thread*; made by `serve_local`.

    messenger: its; to be used on that loop.
    """

    messenger: Messenger

    def __init__(self, thread: LoopThread) -> None:
        super().__init__()
        self._thread = self._stack.enter_context(thread)

    def start(self, settings: Settings, chain: Chain) -> None:
        """Serve *chain*."""
        self._thread.call(self._start(settings, chain))

    async def _start(self, settings: Settings, chain: Chain) -> None:
        ways = resolve_ways(settings, secrets.randbits(32))
        self.messenger = Messenger(
            **vars(ways),
            fast_budget_s=settings.fast_budget_s,
            dispatch_bytes=settings.dispatch_bytes,
            max_sessions=settings.max_sessions,
        )
        try:
            self.messenger.start()
            await self.messenger.use_chain(chain)
            if settings.io_modules:
                options = settings.options_of(settings.io_modules)
                io_chain = load_io_chain(settings.io_modules, options, settings.app_dir)
                await self.messenger.use_io_chain(io_chain)
            await self._listen()
        except BaseException:
            await self.messenger.shutdown(0)
            raise

    async def _listen(self) -> None:
        addr = await self.messenger.bind("127.0.0.1:0")
        self.address = f"{addr.host}:{addr.port}"

    def stop(self) -> None:
        """End it: handlers finish."""
        self._thread.call(self.messenger.shutdown())

    def close(self) -> None:
        """Leave nothing."""
        self._stack.close()

    @classmethod
    @contextmanager
    def serving(
        cls,
        modules: Sequence[str | Dispatcher],
        folder: Path | str,
        config: Path | str | None,
        make_loop: Callable[[], AbstractEventLoop] = asyncio.new_event_loop,
    ) -> Iterator[Self]:
        """A service of *modules* on a loop of its own; stopped at the end of the block."""
        settings = _settings(modules, Path(folder), config)
        chain = _chain(modules, settings)
        service = cls(LoopThread("mpmsgr.testing.service", make_loop()))
        try:
            service.start(settings, chain)
            try:
                with service.visit():
                    yield service
            finally:
                service.stop()
        finally:
            service.close()


@contextmanager
def serve_local(
    *modules: str | Dispatcher, folder: Path | str = ".", config: Path | str | None = None
) -> Iterator[LocalService]:
    """``with serve_local("shop.orders") as service``: a service in this process, without workers.

    Its loop runs in a thread, so that blocking clients can be used; modules are named as for
    `mpmsgr serve`, or dispatchers made by the test. What is not said is as its configuration has
    it, *config* or the ``mpmsgr.toml`` in *folder*. Raises PluginError, ConfigError.
    """
    with LocalService.serving(modules, folder, config) as service:
        yield service


def _settings(
    modules: Sequence[str | Dispatcher], folder: Path, config: Path | str | None
) -> Settings:
    names = tuple(spec for spec in modules if isinstance(spec, str))
    file = None if config is None else Path(config).absolute()
    said = {"modules": names, "workers": 0}
    return load_settings(said, {}, file, auto_workers=lambda: 0, cwd=folder.absolute())


def _chain(modules: Sequence[str | Dispatcher], settings: Settings) -> Chain:
    """The dispatchers of *modules*: those that are named first. Those of *settings* if none is."""
    made = [spec for spec in modules if isinstance(spec, Dispatcher)]
    named = [] if made and len(made) == len(modules) else settings.modules
    chain = load_chain(named, settings.options_of(named), settings.app_dir)
    for dispatcher in made:
        chain.add_tail(dispatcher)
    return chain
