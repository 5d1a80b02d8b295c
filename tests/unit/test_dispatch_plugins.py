"""Loading ``MODULE[:ATTR]``: what is found, and what is said when it is not."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from mpmsgr import Dispatcher, PluginError
from mpmsgr.dispatch import payload
from mpmsgr.dispatch.handlers import FunctionDispatcher
from mpmsgr.dispatch.plugins import load, load_chain, load_io_chain

Write = Callable[..., str]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Write]:
    """Writes a module ``p_NAME``; returns the folder, which is not on sys.path yet."""
    monkeypatch.setattr(sys, "path", sys.path[:])
    monkeypatch.setattr(payload, "_classes", {})

    def write(**modules: str) -> str:
        for name, text in modules.items():
            (tmp_path / f"{name}.py").write_text(textwrap.dedent(text))
        return str(tmp_path)

    yield write
    for name in [n for n in sys.modules if n.split(".")[0].startswith("p_")]:
        del sys.modules[name]


def only(folder: str, spec: str, **options: Any) -> Dispatcher:
    """The one dispatcher of *spec*."""
    (dispatcher,) = load_chain([spec], {spec: options}, folder)
    return dispatcher


def trouble(folder: str, *specs: str, **options: dict[str, Any]) -> str:
    with pytest.raises(PluginError) as raised:
        load_chain(list(specs), options, folder)
    return str(raised.value)


CLASSES = """
    from mpmsgr import Dispatcher

    class Sum(Dispatcher):
        message_types = {0x9001}

        def __init__(self, start=0):
            self.start = start

    ready = Sum(7)
    ready.message_types = {0x9003}
    nothing = 5
"""
FUNCTIONS = """
    from mpmsgr import Dispatcher, handles

    class Helper(Dispatcher):
        pass

    @handles(0x9002)
    def two(con, m):
        return 2
"""


def test_a_class_an_instance_and_functions(write: Write) -> None:
    folder = write(p_classes=CLASSES, p_functions=FUNCTIONS)
    specs = ["p_classes:Sum", "p_functions", "p_classes:ready"]
    chain = load_chain(specs, {"p_classes:Sum": {"start": 3}}, folder)
    made, functions, instance = chain
    assert vars(made) == {"start": 3}
    assert isinstance(functions, FunctionDispatcher)
    assert functions.name == "p_functions"
    assert vars(instance) == {"start": 7, "message_types": {0x9003}}


def test_the_only_class_of_a_module_needs_no_name(write: Write) -> None:
    assert type(only(write(p_classes=CLASSES), "p_classes")).__name__ == "Sum"


def test_an_imported_class_is_not_the_module_s_own(write: Write) -> None:
    two = "class Other(Dispatcher): pass"
    folder = write(
        p_classes=CLASSES,
        p_borrows="from p_classes import Sum",
        p_two=CLASSES + f"    {two}\n",
    )
    assert "has neither functions with @handles nor one Dispatcher" in trouble(folder, "p_borrows")
    assert "has neither functions with @handles nor one Dispatcher" in trouble(folder, "p_two")
    assert type(only(folder, "p_borrows:Sum")).__name__ == "Sum"


def test_a_module_in_a_package(write: Write, tmp_path: Path) -> None:
    folder = write(p_classes=CLASSES)
    (tmp_path / "p_pack").mkdir()
    (tmp_path / "p_pack/deep.py").write_text("from p_classes import ready")
    assert vars(only(folder, "p_pack.deep:ready"))["start"] == 7


def test_the_folder_goes_first_and_once(write: Write) -> None:
    folder = write(p_classes=CLASSES)
    only(folder, "p_classes")
    only(folder, "p_classes")
    assert (sys.path[0], sys.path.count(folder)) == (folder, 1)


# what is wrong


@pytest.mark.parametrize("spec", ["p_gone", "p_gone.sub:X"])
def test_no_such_module(write: Write, spec: str) -> None:
    assert trouble(write(), spec) == f"{spec}: there is no module 'p_gone' here"


def test_a_file_name_is_no_module(write: Write) -> None:
    text = trouble(write(p_classes=CLASSES), "p_classes.py")
    assert text.endswith(
        "there is no module 'p_classes.py' here; it is named without .py: p_classes"
    )


def test_a_submodule_that_is_not_there(write: Write) -> None:
    text = trouble(write(p_classes=CLASSES), "p_classes.sub")
    assert text == "p_classes.sub: there is no module 'p_classes.sub' here"


def test_a_module_that_misses_another_shows_where(write: Write) -> None:
    text = trouble(write(p_needs="import p_gone"), "p_needs")
    assert 'p_needs.py", line 1' in text
    assert "ModuleNotFoundError: No module named 'p_gone'" in text


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("1 / 0", "ZeroDivisionError: division by zero"),
        ("def f(:", "SyntaxError"),
        ("raise SystemExit(3)", "SystemExit: 3"),
    ],
)
def test_a_module_that_fails_shows_its_traceback(write: Write, source: str, said: str) -> None:
    text = trouble(write(p_fails=source), "p_fails")
    first, second, *_ = text.splitlines()
    assert first == "p_fails: Traceback (most recent call last):"
    assert second.endswith(('p_fails.py", line 1', 'p_fails.py", line 1, in <module>'))
    assert said in text


def test_a_constructor_that_fails(write: Write) -> None:
    folder = write(p_classes=CLASSES)
    text = trouble(folder, "p_classes:Sum", **{"p_classes:Sum": {"begin": 1}})
    assert "TypeError" in text
    assert "'begin'" in text


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("p_classes:Gone", "p_classes:Gone: module p_classes has no 'Gone'"),
        ("p_classes:nothing", "nothing is neither a Dispatcher class nor an instance of one"),
    ],
)
def test_an_attribute_that_is_no_dispatcher(write: Write, spec: str, said: str) -> None:
    assert said in trouble(write(p_classes=CLASSES), spec)


def test_options_for_an_instance(write: Write) -> None:
    text = trouble(write(p_classes=CLASSES), "p_classes:ready", **{"p_classes:ready": {"a": 1}})
    assert "is an instance: options need a class to be given to" in text


def test_options_for_nobody(write: Write) -> None:
    text = trouble(write(p_classes=CLASSES), "p_classes", p_other={"a": 1})
    assert text == "p_other: has options, but only p_classes are served"


def test_load_takes_one_spec(write: Write) -> None:
    sys.path.insert(0, write(p_classes=CLASSES))
    assert vars(load("p_classes:Sum", {"start": 1})) == {"start": 1}


# who is asked first

RIVALS = """
    from mpmsgr import Dispatcher

    class First(Dispatcher):
        message_types = {0x9001, 0x9005}

    class Second(Dispatcher):
        message_types = {0x9004, 0x9005}

        def __init__(self, order=0):
            self.order = order

    class Sorted(Dispatcher):
        message_types = {0x9005}
        order = -1

    class All(Dispatcher):
        pass
"""
ORDERED = """
    from mpmsgr import handles
    mpmsgr_order = 7

    @handles(0x9005)
    def five(con, m):
        return 5
"""


def test_two_that_take_a_type_need_an_order(write: Write) -> None:
    folder = write(p_rivals=RIVALS)
    text = trouble(folder, "p_rivals:First", "p_rivals:Second")
    assert text.startswith("p_rivals:Second: takes message type 0x9005, so does p_rivals:First: ")
    assert "p_rivals:First: takes message type 0x9001, so does p_rivals:First" in trouble(
        folder, "p_rivals:First", "p_rivals:First"
    )


def test_with_an_order_they_are_asked_in_it(write: Write) -> None:
    folder = write(p_rivals=RIVALS, p_ordered=ORDERED)
    specs = ["p_ordered", "p_rivals:First", "p_rivals:Second", "p_rivals:All", "p_rivals:Sorted"]
    chain = load_chain(specs, {"p_rivals:Second": {"order": 3}}, folder)
    names = ["Sorted", "First", "All", "Second", "FunctionDispatcher"]
    assert [type(d).__name__ for d in chain] == names, "ascending, then as they were named"
    assert [d.order for d in chain] == [-1, 0, 0, 3, 7]
    assert [type(d).__name__ for d in chain.takers(0x9005)] == names


def test_who_takes_everything_claims_nothing(write: Write) -> None:
    folder = write(p_rivals=RIVALS)
    assert len(load_chain(["p_rivals:All", "p_rivals:First", "p_rivals:All"], {}, folder)) == 3


# modules of the I/O process

QUICK = """
    from mpmsgr import Dispatcher

    class Quick(Dispatcher):
        message_types = {0x9005}

        def __init__(self, any=True):
            self.any = any

        def can_fast_dispatch_any(self):
            return self.any

    class Guard(Dispatcher):
        def verify_authorizer(self, *args):
            return None

    class Late(Dispatcher):
        async def fast_dispatch(self, con, m):
            pass
"""


def test_modules_of_the_io_process(write: Write) -> None:
    folder = write(p_quick=QUICK)
    chain = load_io_chain(["p_quick:Quick", "p_quick:Guard"], {"p_quick:Quick": {}}, folder)
    assert [type(d).__name__ for d in chain] == ["Quick", "Guard"]
    assert [type(d).__name__ for d in chain.fast] == ["Quick"]


@pytest.mark.parametrize(
    ("specs", "said"),
    [
        (["p_functions"], "p_functions: has no callback for the I/O process"),
        (["p_quick:Guard", "p_classes:Sum"], "p_classes:Sum: has no callback for the I/O process"),
        (["p_quick:Late"], "Late: fast_dispatch is async"),
        (["p_quick:Quick", "p_quick:Quick"], "takes message type 0x9005, so does p_quick:Quick"),
    ],
)
def test_what_cannot_be_one(write: Write, specs: list[str], said: str) -> None:
    folder = write(p_quick=QUICK, p_functions=FUNCTIONS, p_classes=CLASSES)
    with pytest.raises(PluginError, match=said):
        load_io_chain(specs, {}, folder)
