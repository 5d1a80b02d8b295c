"""Entity names: who an endpoint is, ``osd.3`` (wire spec §5)."""

from __future__ import annotations

import struct
from enum import IntEnum
from typing import NamedTuple

_NAME = struct.Struct("<Bq")
NAME_SIZE = _NAME.size  # 9


class EntityType(IntEnum):
    """Ceph's entity types, and SERVICE for services that are no Ceph daemon."""

    MON = 0x01
    MDS = 0x02
    OSD = 0x04
    CLIENT = 0x08
    MGR = 0x10
    AUTH = 0x20
    SERVICE = 0x40

    @property
    def label(self) -> str:
        """The type's name in text: ``mon``, ``client``, ``svc`` ..."""
        return "svc" if self is EntityType.SERVICE else self.name.lower()


_BY_LABEL = {t.label: t for t in EntityType}
_LABELS = {int(t): t.label for t in EntityType}
TYPE_LABELS = tuple(_BY_LABEL)


def type_label(number: int) -> str:
    """Text of an entity type number, unknown ones as ``type.0x80``."""
    return _LABELS.get(number) or f"type.{number:#x}"


def parse_type(text: str) -> int:
    """Entity type number of *text* (``"mon"``). Raises ValueError naming what is allowed."""
    try:
        return int(_BY_LABEL[text])
    except KeyError:
        raise ValueError(f"entity type {text!r}: must be one of {', '.join(TYPE_LABELS)}") from None


class EntityName(NamedTuple):
    """An entity: type (u8) and number (s64; -1 = not assigned yet)."""

    type: int
    num: int = -1

    def __str__(self) -> str:
        """Ceph's text form: ``osd.3``, unassigned ``client.?``."""
        return f"{type_label(self.type)}.{'?' if self.num < 0 else self.num}"

    @classmethod
    def parse(cls, text: str) -> EntityName:
        """Read ``osd.3`` or ``client.?``; a letter in place of the number (``mon.a``) gives -1.

        Raises ValueError for an unknown type or a missing number.
        """
        label, dot, num = text.partition(".")
        if not dot or not num:
            raise ValueError(
                f"entity name {text!r}: must be TYPE.NUMBER, such as svc.0 or client.?"
            )
        return cls(parse_type(label), int(num) if num.isdecimal() else -1)

    def encode(self) -> bytes:
        """Its 9 bytes."""
        return _NAME.pack(self.type, self.num)

    @classmethod
    def decode(cls, buf: bytes | memoryview, offset: int = 0) -> EntityName:
        """Read 9 bytes at *offset*."""
        return cls(*_NAME.unpack_from(buf, offset))
