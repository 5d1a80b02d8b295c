"""Entity names: 9 bytes, text, types (wire spec §5)."""

from __future__ import annotations

import pytest

from mpmsgr.wire.name import NAME_SIZE, EntityName, EntityType, parse_type, type_label


@pytest.mark.parametrize(
    ("name", "encoded", "text"),
    [
        (EntityName(EntityType.CLIENT, 4242), "08 9210000000000000", "client.4242"),
        (EntityName(EntityType.OSD, 3), "04 0300000000000000", "osd.3"),
        (EntityName(EntityType.CLIENT), "08 ffffffffffffffff", "client.?"),
        (EntityName(EntityType.MON, 0), "01 0000000000000000", "mon.0"),
        (EntityName(EntityType.SERVICE, 0), "40 0000000000000000", "svc.0"),
        (EntityName(0x80, 1 << 62), "80 0000000000000040", "type.0x80.4611686018427387904"),
    ],
)
def test_bytes_and_text(name: EntityName, encoded: str, text: str) -> None:
    wanted = bytes.fromhex(encoded)
    assert name.encode() == wanted
    assert len(wanted) == NAME_SIZE == 9
    assert EntityName.decode(b"?" + wanted, 1) == name
    assert str(name) == text


@pytest.mark.parametrize(
    ("label", "number"),
    [
        ("mon", 0x01),
        ("mds", 0x02),
        ("osd", 0x04),
        ("client", 0x08),
        ("mgr", 0x10),
        ("auth", 0x20),
        ("svc", 0x40),
    ],
)
def test_types(label: str, number: int) -> None:
    assert parse_type(label) == number
    assert type_label(number) == label


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("osd.3", EntityName(4, 3)),
        ("client.?", EntityName(8, -1)),
        ("mon.a", EntityName(1, -1)),
        ("svc.0", EntityName(0x40, 0)),
    ],
)
def test_text_read(text: str, name: EntityName) -> None:
    assert EntityName.parse(text) == name


@pytest.mark.parametrize("text", ["", "osd", "osd.", "rgw.1", ".1"])
def test_text_errors(text: str) -> None:
    with pytest.raises(ValueError, match=r"entity (name|type) '.*': must be"):
        EntityName.parse(text)
