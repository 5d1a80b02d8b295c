"""Installed plugins: found by the name of their entry point."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from mpmsgr.admin.plugins import clashes, installed
from mpmsgr.dispatch.plugins import load, resolve
from mpmsgr.errors import PluginError

MODULE = "from mpmsgr import handles\n@handles(0x8001)\ndef f(con, m): ...\n"


def install(folder: Path, distribution: str, points: str, module: str = "") -> None:
    """A distribution, as pip leaves it; *points*: lines of its entry points."""
    info = folder / f"{distribution}-1.2.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.2\n")
    (info / "entry_points.txt").write_text(f"[mpmsgr.dispatchers]\n{points}\n")
    if module:
        (folder / f"{module}.py").write_text(MODULE)


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory of installed things."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    return tmp_path


def test_a_plugin_by_its_name(site: Path) -> None:
    install(site, "shop", "orders_x = shop_orders_x", "shop_orders_x")
    assert resolve("orders_x") == "shop_orders_x"
    assert load("orders_x", {}).message_types == {0x8001}
    assert installed() == [
        {"name": "orders_x", "module": "shop_orders_x", "distribution": "shop", "version": "1.2"}
    ]


def test_a_module_comes_before_a_plugin_of_its_name(site: Path) -> None:
    install(site, "shop", "orders_y = elsewhere:Thing")
    assert resolve("orders_y") == "elsewhere:Thing"
    (site / "orders_y.py").write_text(MODULE)
    assert resolve("orders_y") == "orders_y"


@pytest.mark.parametrize("spec", ["a.b", "a:B", "nowhere_at_all", "__main__"])
def test_anything_else_stays_what_it_is(spec: str, site: Path) -> None:
    assert resolve(spec) == spec


def test_extras_are_not_part_of_the_module(site: Path) -> None:
    install(site, "shop", "orders_z = shop.orders:Orders [fast]")
    assert resolve("orders_z") == "shop.orders:Orders"


def test_two_plugins_of_one_name(site: Path) -> None:
    install(site, "shop", "orders_w = shop:Orders")
    install(site, "bank", "orders_w = bank:Orders")
    with pytest.raises(PluginError, match="several plugins: bank:Orders, shop:Orders"):
        resolve("orders_w")


def test_clashes_name_the_type_and_the_plugins() -> None:
    rows: list[dict[str, Any]] = [
        {"spec": "a", "types": [1, 2], "order": 0},
        {"spec": "broken", "error": "..."},
        {"spec": "b", "types": [2, 3], "order": 0},
        {"spec": "later", "types": [1], "order": 1},
        {"spec": "c", "types": [], "order": 0},
    ]
    assert list(clashes(rows)) == [
        "type 0x2 is taken by a and b, each of order 0: give them an order"
    ]
