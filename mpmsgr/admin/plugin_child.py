"""``python -m mpmsgr.admin.plugin_child APP_DIR SPEC OPTIONS``: load a plugin, tell what it takes.

A process of its own, since loading runs the plugin's code. One JSON object on stdout; what the
plugin prints goes to stderr.
"""

from __future__ import annotations

import json
import os
import sys
from dataclasses import asdict
from typing import Any

from mpmsgr.dispatch.chain import Chain
from mpmsgr.dispatch.handlers import FunctionDispatcher
from mpmsgr.dispatch.plugins import load_chain, resolve
from mpmsgr.errors import PluginError


def describe(spec: str, chain: Chain) -> dict[str, Any]:
    """What the one dispatcher in *chain* takes: its types; names of functions by type, and how they
    are handled where that is not the ordinary way; what it wants called every so many seconds.
    """
    (dispatcher,) = chain
    names: dict[int, str] = {}
    if isinstance(dispatcher, FunctionDispatcher):
        names = {number: handler.__qualname__ for number, handler in dispatcher.handlers.items()}
    return {
        "spec": spec,
        "module": resolve(spec),
        "kind": "functions" if names else type(dispatcher).__qualname__,
        "order": dispatcher.order,
        "types": sorted(dispatcher.message_types),
        "handlers": {str(number): name for number, name in names.items()},
        "handling": {str(number): asdict(how) for number, how in chain.routes().items()},
        "every": {task.name: task.seconds for task in chain.every()},
        "error": "",
    }


def main() -> int:
    """Answer on the stdout that was given."""
    app_dir, spec, options = sys.argv[1:]
    answer = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    said: dict[str, Any]
    try:
        said = describe(spec, load_chain([spec], {spec: json.loads(options)}, app_dir))
    except PluginError as err:
        said = {"spec": spec, "error": err.text}
    with answer:
        json.dump(said, answer)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
