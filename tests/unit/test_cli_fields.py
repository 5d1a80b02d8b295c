"""FIELD=VALUE: read by the type of the field, refused by its name."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest

from mpmsgr.cli.fields import build, split_fields
from mpmsgr.errors import ConfigError


@dataclass
class Order:
    item: str
    count: int = 1
    price: float = 0.0
    rush: bool = False
    note: str | None = None
    blob: bytes = b""
    tags: list[str] = field(default_factory=list)
    sizes: dict[str, int] = field(default_factory=dict)
    pair: tuple[int, int] = (0, 0)
    code: int | str = 0
    anything: Any = None
    computed: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        if self.count < 0:
            raise ValueError("count below 0")


@pytest.mark.parametrize(
    ("pair", "value"),
    [
        ("item=a=b c", "a=b c"),
        ("count=0x10", 16),
        ("price=2.5", 2.5),
        ("price=2", 2.0),
        ("rush=True", True),
        ("rush=false", False),
        ("note=hello", "hello"),
        ("note=null", None),
        ("blob=abc", b"abc"),
        ('tags=["a", "b"]', ["a", "b"]),
        ('sizes={"a": 1}', {"a": 1}),
        ("pair=[1, 2]", (1, 2)),
        ("code=7", 7),
        ("code=seven", "seven"),
        ("anything=[1, null]", [1, None]),
    ],
)
def test_reads_by_type(pair: str, value: object) -> None:
    pairs = [pair] if pair.startswith("item") else ["item=x", pair]
    assert getattr(build(Order, pairs), pair.partition("=")[0]) == value


@pytest.mark.parametrize(
    ("pairs", "said"),
    [
        ([], r"Order.item = None: must be given: item=VALUE"),
        (["item"], "FIELD=VALUE = 'item': must be a field's name, =, its value"),
        (["=x"], "FIELD=VALUE = '=x'"),
        (["itm=x"], "itm = 'x': is unknown, the nearest is item; fields: item, count"),
        (["computed=1"], "computed = '1': is unknown"),
        (["item=x", "item=y"], "item = 'y': was given before, as 'x'"),
        (["item=x", "count=many"], r"Order.count = 'many': must be a whole number \(int\)"),
        (["item=x", "count=1.5"], "Order.count = '1.5'"),
        (["item=x", "price=cheap"], r"Order.price = 'cheap': must be a number \(float\)"),
        (["item=x", "rush=1"], r"Order.rush = '1': must be true or false \(bool\)"),
        (["item=x", "tags=a,b"], r"Order.tags = 'a,b': must be JSON \(list\)"),
        (["item=x", "tags={}"], r"Order.tags = '{}': must be a JSON array \(list\)"),
        (["item=x", "sizes=[]"], r"Order.sizes = '\[\]': must be a JSON object \(dict\)"),
        (["item=x", "count=-1"], "Order = .*is refused by the class: count below 0"),
    ],
)
def test_refuses_by_name(pairs: list[str], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        build(Order, pairs)


def test_a_message_without_fields() -> None:
    with pytest.raises(ConfigError, match="this message has no fields"):
        split_fields(["a=1"], [])
