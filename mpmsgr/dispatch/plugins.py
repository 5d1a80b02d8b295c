"""Loading dispatchers: ``MODULE[:ATTR]``, or the name of an installed one -> a Dispatcher."""

from __future__ import annotations

import importlib
import inspect
import sys
import traceback
from collections.abc import Mapping, Sequence
from importlib import metadata, util
from pathlib import Path
from types import ModuleType
from typing import Any

from mpmsgr.dispatch.chain import AT_ONCE, Chain, overrides
from mpmsgr.dispatch.dispatcher import Dispatcher
from mpmsgr.dispatch.handlers import FunctionDispatcher, is_handler
from mpmsgr.errors import PLUGIN_FAILURES, PluginError

#: Entry points of this group are dispatchers: ``NAME = "MODULE[:ATTR]"``.
GROUP = "mpmsgr.dispatchers"
#: How files begin whose frames are above a module's own while it is loaded.
_LOADING = (str(Path(__file__).parents[1]), str(importlib.__file__), "<frozen importlib.")
_HEADING = "Traceback (most recent call last):"


def load_chain(
    specs: Sequence[str], options: Mapping[str, Mapping[str, Any]], app_dir: str
) -> Chain:
    """Load every ``MODULE[:ATTR]`` of *specs*; *options* by the same text.

    They are asked by ascending `order`, then as *specs* have them. Raises PluginError, also where
    two that name the same message type have the same order.
    """
    return _chain_of(_load_all(specs, options, app_dir))


def load_io_chain(
    specs: Sequence[str], options: Mapping[str, Mapping[str, Any]], app_dir: str
) -> Chain:
    """The same for the I/O process, where only the callbacks of `AT_ONCE` are called.

    Raises PluginError for a dispatcher that has none of them.
    """
    loaded = _load_all(specs, options, app_dir)
    for spec, dispatcher in loaded:
        if not any(overrides(dispatcher, callback) for callback in AT_ONCE):
            raise PluginError(spec, "has no callback for the I/O process: it belongs to workers")
    return _chain_of(loaded)


def _load_all(
    specs: Sequence[str], options: Mapping[str, Mapping[str, Any]], app_dir: str
) -> list[tuple[str, Dispatcher]]:
    if app_dir not in sys.path:
        sys.path.insert(0, app_dir)
    unused = sorted(set(options) - set(specs))
    if unused:
        raise PluginError(unused[0], f"has options, but only {', '.join(specs)} are served")
    return [(spec, load(spec, options.get(spec, {}))) for spec in specs]


def _chain_of(loaded: list[tuple[str, Dispatcher]]) -> Chain:
    """Raises PluginError for a message type of which nobody has said who is asked first."""
    chain = Chain()
    loaded = sorted(loaded, key=lambda named: named[1].order)
    claims: dict[tuple[int, int], int] = {}
    for i, (spec, dispatcher) in enumerate(loaded):
        for type_ in sorted(set(dispatcher.message_types)):
            first = claims.setdefault((dispatcher.order, type_), i)
            if first != i:
                text = (
                    f"takes message type {type_:#x}, so does {loaded[first][0]}: give them an order"
                )
                raise PluginError(spec, text)
        chain.add_tail(dispatcher)
    return chain


def resolve(spec: str) -> str:
    """The ``MODULE[:ATTR]`` that *spec* stands for.

    A single name that is no module here may be that of an entry point. Raises PluginError when
    several distributions give it to different things.
    """
    if not spec.isidentifier() or _is_module(spec):
        return spec
    points = metadata.entry_points(group=GROUP, name=spec)
    values = sorted({point.value for point in points})
    if len(values) > 1:
        raise PluginError(spec, f"is the name of several plugins: {', '.join(values)}")
    return values[0].partition("[")[0].replace(" ", "") if values else spec


def _is_module(name: str) -> bool:
    try:
        return util.find_spec(name) is not None
    except ValueError:  # a module without a spec, such as __main__
        return True


def load(spec: str, options: Mapping[str, Any]) -> Dispatcher:
    """One dispatcher. Raises PluginError with the traceback when its code fails."""
    module_name, _, attr = resolve(spec).partition(":")
    try:
        module = importlib.import_module(module_name)
        return _dispatcher(spec, module, attr, options)
    except PluginError:
        raise
    except ModuleNotFoundError as err:
        if err.name and (module_name == err.name or module_name.startswith(err.name + ".")):
            said = f"there is no module {err.name!r} here"
            if spec.endswith(".py"):
                said += f"; it is named without .py: {spec.removesuffix('.py')}"
            raise PluginError(spec, said) from None
        raise PluginError(spec, traceback_of(err)) from None
    except PLUGIN_FAILURES as err:  # SystemExit: a script that was not meant to be imported
        raise PluginError(spec, traceback_of(err)) from None


def traceback_of(err: BaseException) -> str:
    """The traceback of a plugin that cannot be loaded, from its own first line on."""
    frames = err.__traceback__
    while frames and frames.tb_frame.f_code.co_filename.startswith(_LOADING):
        frames = frames.tb_next
    text = "".join(traceback.format_exception(type(err), err, frames)).rstrip()
    # Python has no such line above a syntax error, but it is not in the midst of a sentence either.
    return text if text.startswith(_HEADING) else f"{_HEADING}\n{text}"


def _dispatcher(spec: str, module: ModuleType, attr: str, options: Mapping[str, Any]) -> Dispatcher:
    if not attr:
        attr = _only_class(module)
        if not attr:
            return FunctionDispatcher(module, options)
    thing = getattr(module, attr, None)
    if inspect.isclass(thing) and issubclass(thing, Dispatcher):
        return thing(**options)
    if isinstance(thing, Dispatcher):
        if options:
            raise PluginError(spec, "is an instance: options need a class to be given to")
        return thing
    if thing is None:
        raise PluginError(spec, f"module {module.__name__} has no {attr!r}")
    raise PluginError(spec, f"{attr} is neither a Dispatcher class nor an instance of one")


def _only_class(module: ModuleType) -> str:
    """Name of the one Dispatcher class that *module* defines, if it has no @handles functions."""
    members = vars(module).items()
    if any(is_handler(member) for _, member in members):
        return ""
    classes = [
        name
        for name, member in members
        if inspect.isclass(member)
        and issubclass(member, Dispatcher)
        and member.__module__ == module.__name__
    ]
    return classes[0] if len(classes) == 1 else ""
