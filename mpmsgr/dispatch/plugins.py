"""Loading dispatchers: ``MODULE[:ATTR]``, or the name of an installed one -> a Dispatcher."""

from __future__ import annotations

import importlib
import inspect
import sys
import traceback
from collections.abc import Mapping, Sequence
from importlib import metadata, util
from types import ModuleType
from typing import Any

from mpmsgr.dispatch.chain import Chain
from mpmsgr.dispatch.dispatcher import Dispatcher
from mpmsgr.dispatch.handlers import FunctionDispatcher, is_handler
from mpmsgr.errors import PluginError

#: Entry points of this group are dispatchers: ``NAME = "MODULE[:ATTR]"``.
GROUP = "mpmsgr.dispatchers"


def load_chain(
    specs: Sequence[str], options: Mapping[str, Mapping[str, Any]], app_dir: str
) -> Chain:
    """Load every ``MODULE[:ATTR]`` of *specs*; *options* by the same text. Raises PluginError."""
    if app_dir not in sys.path:
        sys.path.insert(0, app_dir)
    unused = sorted(set(options) - set(specs))
    if unused:
        raise PluginError(unused[0], f"has options, but only {', '.join(specs)} are served")
    chain = Chain()
    for spec in specs:
        chain.add_tail(load(spec, options.get(spec, {})))
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
            raise PluginError(spec, f"there is no module {err.name!r} here") from None
        raise PluginError(spec, traceback.format_exc()) from None
    except (Exception, SystemExit):  # a script that was not meant to be imported
        raise PluginError(spec, traceback.format_exc()) from None


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
