"""The auth-none authorizer against those real clients sent (wire spec §13)."""

from __future__ import annotations

import pytest

from mpmsgr.errors import ProtocolError
from mpmsgr.wire.authorizer import (
    PROTOCOL_CEPHX,
    PROTOCOL_NONE,
    PROTOCOL_UNKNOWN,
    NoneAuthorizer,
)

ADMIN = "01 08000000 05000000 61646d696e 3d10000000000000"


@pytest.mark.parametrize(
    ("encoded", "authorizer"),
    [
        (ADMIN, NoneAuthorizer(8, "admin", 0x103D)),
        ("01 04000000 01000000 30 0910000000000000", NoneAuthorizer(4, "0", 0x1009)),
        ("01 08000000 00000000 0000000000000000", NoneAuthorizer(8, "")),
        ("01 08000000 02000000 c3a9 ffffffffffffffff", NoneAuthorizer(8, "é", (1 << 64) - 1)),
    ],
)
def test_bytes(encoded: str, authorizer: NoneAuthorizer) -> None:
    wanted = bytes.fromhex(encoded)
    assert authorizer.encode() == wanted
    assert NoneAuthorizer.decode(wanted) == authorizer


def test_a_clients_is_22_bytes() -> None:
    assert len(NoneAuthorizer(8, "admin").encode()) == 22


def test_protocol_numbers() -> None:
    assert (PROTOCOL_UNKNOWN, PROTOCOL_NONE, PROTOCOL_CEPHX) == (0, 1, 2)


@pytest.mark.parametrize(
    ("encoded", "field", "value", "offset"),
    [
        ("", "authorizer.length", 0, 0),
        ("01 08000000 00000000 00000000000000", "authorizer.length", 16, 0),
        ("02" + ADMIN[2:], "authorizer.version", 2, 0),
        (ADMIN + "00", "authorizer.id_len", 5, 5),
        ("01 08000000 ffffffff 61 3d10000000000000", "authorizer.id_len", 0xFFFFFFFF, 5),
        ("01 08000000 01000000 ff 3d10000000000000", "authorizer.id", b"\xff", 9),
    ],
)
def test_errors(encoded: str, field: str, value: object, offset: int) -> None:
    with pytest.raises(ProtocolError) as caught:
        NoneAuthorizer.decode(bytes.fromhex(encoded))
    err = caught.value
    assert (err.field, err.value, err.offset, err.fault) == (field, value, offset, "peer")
