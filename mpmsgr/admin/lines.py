"""What travels on the admin socket: one JSON object per line, UTF-8.

request   {"verb": "sessions", "args": {"limit": 10}}
answer    {"more": true, "value": [row, ...]}      any number of these, for long lists
          {"more": false, "value": ...}            the last line, or the only one
          {"error": "unknown", "text": "..."}      in its place

A request is answered before the next one of the same connection is looked at.
"""

from __future__ import annotations

import json
from typing import Any, NamedTuple

#: A longer request is none.
MAX_REQUEST_BYTES = 1 << 16
#: Name of the socket in the run directory.
SOCKET_NAME = "admin.sock"


class Request(NamedTuple):
    """A verb and what goes with it."""

    verb: str
    args: dict[str, Any]


def encode(**fields: Any) -> bytes:
    """One line. What JSON cannot hold is shown as Python would."""
    return json.dumps(fields, separators=(",", ":"), default=repr).encode() + b"\n"


def decode_request(line: bytes) -> Request:
    """The request of one line. Raises ValueError saying what is wrong with it."""
    try:
        said = json.loads(line)
    except (ValueError, RecursionError):
        raise ValueError("a request must be one line of JSON") from None
    if not isinstance(said, dict) or not isinstance(said.get("verb"), str):
        raise ValueError('a request must be an object with the text "verb"')
    args = said.get("args", {})
    if not isinstance(args, dict):
        raise ValueError('"args" must be an object')
    return Request(said["verb"], args)
