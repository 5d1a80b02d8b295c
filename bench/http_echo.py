"""The baseline's application: `python -m uvicorn --factory bench.http_echo:create_app`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from bench.children import end_with_parent

Event = dict[str, Any]
App = Callable[
    [Event, Callable[[], Awaitable[Event]], Callable[[Event], Awaitable[None]]], Awaitable[None]
]


def create_app() -> App:
    """The application, in a process that ends with the benchmark."""
    end_with_parent()
    return _echo


async def _echo(
    scope: Event,
    receive: Callable[[], Awaitable[Event]],
    send: Callable[[Event], Awaitable[None]],
) -> None:
    """Read the whole body of the request and send it back."""
    body = await _body(receive)
    length = str(len(body)).encode()
    headers = [(b"content-length", length)]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def _body(receive: Callable[[], Awaitable[Event]]) -> bytes:
    pieces: list[bytes] = []
    more = True
    while more:
        event = await receive()
        if event["type"] == "http.disconnect":
            raise ConnectionError("the client left before its request was complete")
        pieces.append(event["body"])
        more = event["more_body"]
    return b"".join(pieces)
