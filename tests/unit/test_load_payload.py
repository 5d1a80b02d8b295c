from __future__ import annotations

import pytest

from mpmsgr.load.payload import Payloads, noise


@pytest.mark.parametrize("size", [0, 1, 3, 4, 64, 5000])
def test_an_echo_request_has_its_size_in_three_parts(size: int) -> None:
    payloads = Payloads(size, 1, echo=True, block=noise(size))
    for serial in (1, 2, 4093, 100_000):
        front, middle, data = payloads.parts(serial)
        assert len(front) + len(middle) + len(data) == size
        assert size < 4 or (front and middle and data)


@pytest.mark.parametrize(("size", "lengths"), [(64, (16, 0, 48)), (5, (5, 0, 0))])
def test_other_requests_have_their_bulk_in_data(size: int, lengths: tuple[int, ...]) -> None:
    parts = Payloads(size, 1, echo=False, block=noise(size)).parts(1)
    assert tuple(map(len, parts)) == lengths


def test_requests_in_flight_differ_within_and_between_clients() -> None:
    block = noise(64)
    clients = [Payloads(64, number, echo=True, block=block) for number in (1, 2, 3)]
    seen = {client.parts(serial) for client in clients for serial in range(500)}
    assert len(seen) > 3 * 500 * 0.8
    assert len({clients[0].parts(serial) for serial in range(4000)}) == 4000


def test_the_block_is_the_same_in_every_process() -> None:
    assert noise(64) == noise(64)
