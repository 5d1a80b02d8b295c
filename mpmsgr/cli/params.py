"""Parameters of the command line, read by the same kinds of values as the configuration."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click
from click.decorators import FC
from click.shell_completion import CompletionItem

from mpmsgr.config import kinds
from mpmsgr.errors import ConfigError
from mpmsgr.wire.address import split_address
from mpmsgr.wire.name import TYPE_LABELS

if TYPE_CHECKING:
    _ParamType = click.ParamType[Any]
else:
    _ParamType = click.ParamType  # generic in the stubs of click 8.4 and later only


class Value(_ParamType):
    """A parameter of a `Kind`; a value that is not allowed raises ConfigError."""

    def __init__(self, kind: kinds.Kind) -> None:
        self.kind = kind
        self.name = kind.metavar

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> object:
        """The value of what was typed, or of the default."""
        try:
            return self.kind.read(value)
        except ValueError as exc:
            raise ConfigError(label_of(param), value, str(exc)) from None

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """The words that may follow, where only a few may."""
        words = self.kind.words if isinstance(self.kind, kinds.Choice) else ()
        return [CompletionItem(word) for word in words if word.startswith(incomplete)]


class PeerAddress(kinds.Kind):
    """``[v1:]HOST:PORT[/NONCE]`` of a peer to connect to, kept as text."""

    def read(self, raw: Any) -> str:
        """*raw* without its prefix. Raises ValueError saying what is allowed."""
        if raw.startswith("v2:"):
            raise ValueError("is an address of protocol v2, only v1 is spoken here")
        try:
            host, port, _ = split_address(raw)
        except ValueError as exc:
            raise ValueError(str(exc).removeprefix(f"address {raw!r}: ")) from None
        if not host or not port:
            raise ValueError(self.must)
        return str(raw).removeprefix("v1:").removeprefix("legacy:")


ADDRESS = Value(PeerAddress(note="HOST:PORT or HOST:PORT/NONCE, HOST a name, IPv4 or [IPv6]"))
SECONDS = Value(kinds.Seconds(low=0.001))
PEER_TYPE = Value(kinds.Choice(words=TYPE_LABELS))

address = click.argument("address", metavar="ADDR", type=ADDRESS)
as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
app_dir = click.option(
    "--app-dir",
    metavar="DIR",
    type=Value(kinds.Folder(exists=True)),
    default=".",
    help="Directory modules are found in; default: the current one.",
)
peer_type = click.option(
    "--peer-type",
    metavar="T",
    type=PEER_TYPE,
    default="svc",
    show_default=True,
    help=f"Entity type of the peer: {kinds.one_of(TYPE_LABELS)}.",
)


def choice(*words: str) -> dict[str, Any]:
    """What makes a parameter one of *words*."""
    return {"type": Value(kinds.Choice(words=words)), "metavar": "|".join(words)}


def timeout(default_s: float) -> Callable[[FC], FC]:
    """The option ``--timeout S``."""
    return click.option(
        "--timeout",
        "timeout_s",
        metavar="S",
        type=SECONDS,
        default=default_s,
        show_default=True,
        help="Seconds to wait.",
    )


def label_of(param: click.Parameter | None) -> str:
    """A parameter as its user types it: ``--count``, ``ADDR``."""
    if isinstance(param, click.Option):
        return max(param.opts, key=len)
    return (param.metavar or param.human_readable_name) if param else "value"
