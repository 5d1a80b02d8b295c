"""mpmsgr: a messenger whose handlers run on all cores."""

from mpmsgr import sync
from mpmsgr.dispatch.codes import ErrorCode
from mpmsgr.dispatch.connection import Connection
from mpmsgr.dispatch.dispatcher import Dispatcher
from mpmsgr.dispatch.handlers import handles, on_start, on_stop
from mpmsgr.dispatch.payload import PayloadError, message
from mpmsgr.errors import (
    ConfigError,
    ConnectError,
    HandshakeRefused,
    MessengerError,
    OutboxFull,
    PluginError,
    ProtocolError,
    RemoteError,
    RequestTimeout,
    SessionReset,
    WorkerError,
)
from mpmsgr.messenger.client import connect
from mpmsgr.messenger.messenger import Messenger
from mpmsgr.session.policy import Policies, Policy
from mpmsgr.wire.address import EntityAddr
from mpmsgr.wire.message import Message
from mpmsgr.wire.name import EntityName, EntityType

__version__ = "0.1.0"

__all__ = [
    "ConfigError",
    "ConnectError",
    "Connection",
    "Dispatcher",
    "EntityAddr",
    "EntityName",
    "EntityType",
    "ErrorCode",
    "HandshakeRefused",
    "Message",
    "Messenger",
    "MessengerError",
    "OutboxFull",
    "PayloadError",
    "PluginError",
    "Policies",
    "Policy",
    "ProtocolError",
    "RemoteError",
    "RequestTimeout",
    "SessionReset",
    "WorkerError",
    "connect",
    "handles",
    "message",
    "on_start",
    "on_stop",
    "sync",
]
