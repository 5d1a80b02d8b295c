"""The folder tree is the architecture: imports point down, the pure layers stay pure."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

import mpmsgr

ROOT = Path(mpmsgr.__file__).parent

#: From the bottom up: a module imports its own line and those above it in this list.
#: `mpmsgr.messenger.io` is the main of the I/O process: the one module of its folder that knows the
#: pool; `mpmsgr.supervisor.service` that of the supervisor: it knows `mpmsgr.admin`, which looks at
#: a supervisor from outside. `mpmsgr` alone is the public face in ``__init__``.
LAYERS = [
    "mpmsgr.errors",
    "mpmsgr.process",
    "mpmsgr.logs",
    "mpmsgr.wire",
    "mpmsgr.session",
    "mpmsgr.dispatch",
    "mpmsgr.control",
    "mpmsgr.loop",
    "mpmsgr.messenger",
    "mpmsgr.sync",
    "mpmsgr",
    "mpmsgr.config",
    "mpmsgr.admin.inspect",
    "mpmsgr.pool",
    "mpmsgr.messenger.io",
    "mpmsgr.supervisor",
    "mpmsgr.admin",
    "mpmsgr.supervisor.service",
    "mpmsgr.load",
    "mpmsgr.testing",
    "mpmsgr.cli",
    "mpmsgr.__main__",
]
PURE = ("mpmsgr.wire", "mpmsgr.session", "mpmsgr.dispatch")
#: No I/O, no clock, no randomness of their own.
IMPURE = {
    "asyncio",
    "multiprocessing",
    "random",
    "secrets",
    "select",
    "selectors",
    "signal",
    "socket",
    "ssl",
    "subprocess",
    "threading",
    "time",
    "uvloop",
    "zmq",
}


class Import(NamedTuple):
    """*module* imports *target*; top: when it is imported itself; typing: for annotations only."""

    module: str
    target: str
    line: int
    top: bool
    typing: bool

    def __str__(self) -> str:
        return f"{self.module}, line {self.line}: {self.target}"


def module_name(path: Path) -> str:
    parts = ("mpmsgr", *path.relative_to(ROOT).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports_of(path: Path) -> Iterator[Import]:
    module = module_name(path)

    def visit(node: ast.AST, top: bool, typing: bool) -> Iterator[Import]:
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield from (Import(module, t, node.lineno, top, typing) for t in targets(node))
        top = top and not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        typing = typing or (isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test))
        for child in ast.iter_child_nodes(node):
            yield from visit(child, top, typing)

    return visit(ast.parse(path.read_text()), True, False)


def targets(node: ast.Import | ast.ImportFrom) -> list[str]:
    """Full names; ``from package import module`` names the module."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    base = node.module or ""
    names = [f"{base}.{alias.name}" for alias in node.names]
    return [name if name in MODULES else base for name in names]


FILES = sorted(ROOT.rglob("*.py"))
MODULES = {module_name(path) for path in FILES}
IMPORTS = [found for path in FILES for found in imports_of(path)]


def layer_of(module: str) -> str | None:
    """The longest name in LAYERS that is *module* or a package around it."""
    while module not in LAYERS:
        module, dot, _ = module.rpartition(".")
        if not dot or module == "mpmsgr":
            return None
    return module


def inside(module: str, packages: tuple[str, ...]) -> bool:
    return any(module == package or module.startswith(f"{package}.") for package in packages)


def broken(found: list[Import]) -> str:
    return "\n".join(map(str, found))


def test_every_module_has_its_layer() -> None:
    homeless = sorted(module for module in MODULES if layer_of(module) is None)
    assert not homeless, "give them a place in LAYERS"


def test_imports_point_down() -> None:
    rank = {layer: i for i, layer in enumerate(LAYERS)}

    def is_up(found: Import) -> bool:
        own, other = layer_of(found.module), layer_of(found.target)
        return own is not None and other is not None and rank[other] > rank[own]

    up = [found for found in IMPORTS if found.top and is_up(found)]
    assert not up, broken(up)


def test_pure_layers_import_neither_io_nor_clock_nor_chance() -> None:
    impure = [
        found
        for found in IMPORTS
        if inside(found.module, PURE)
        and not found.typing
        and found.target.partition(".")[0] in IMPURE
    ]
    assert not impure, broken(impure)


def test_byte_layouts_stay_in_wire() -> None:
    """Only the envelope between I/O process and workers has a layout of its own."""
    allowed = ("mpmsgr.wire", "mpmsgr.pool.envelope")
    found = [f for f in IMPORTS if f.target == "struct" and not inside(f.module, allowed)]
    assert not found, broken(found)


def test_zeromq_stays_in_the_pool() -> None:
    zmq = [f for f in IMPORTS if f.target.partition(".")[0] == "zmq" and f.top]
    assert not [f for f in zmq if not inside(f.module, ("mpmsgr.pool",))], broken(zmq)


@pytest.mark.parametrize(
    "module", ["mpmsgr", "mpmsgr.sync", "mpmsgr.cli.main", "mpmsgr.supervisor"]
)
def test_importing_it_loads_no_zeromq(module: str) -> None:
    script = f"import sys, {module}; sys.exit('zmq' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], timeout=60).returncode == 0
