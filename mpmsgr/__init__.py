"""mpmsgr: a messenger whose handlers run on all cores."""

from mpmsgr import sync
from mpmsgr.dispatch.codes import ErrorCode
from mpmsgr.dispatch.connection import Connection
from mpmsgr.dispatch.dispatcher import Dispatcher
from mpmsgr.dispatch.group import Group, Service
from mpmsgr.dispatch.handlers import every, handles, on_start, on_stop
from mpmsgr.dispatch.payload import PayloadError, message
from mpmsgr.dispatch.state import StateError
from mpmsgr.dispatch.verdicts import Poison, Reject, Retry, Verdict
from mpmsgr.errors import (
    ConfigError,
    ConnectError,
    HandlerError,
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
from mpmsgr.session.auth import Authorizer, Verification
from mpmsgr.session.policy import Policies, Policy
from mpmsgr.wire.address import EntityAddr
from mpmsgr.wire.message import Message
from mpmsgr.wire.name import EntityName, EntityType

__version__ = "0.1.0"

__all__ = [
    "Authorizer",
    "ConfigError",
    "ConnectError",
    "Connection",
    "Dispatcher",
    "EntityAddr",
    "EntityName",
    "EntityType",
    "ErrorCode",
    "Group",
    "HandlerError",
    "HandshakeRefused",
    "Message",
    "Messenger",
    "MessengerError",
    "OutboxFull",
    "PayloadError",
    "PluginError",
    "Poison",
    "Policies",
    "Policy",
    "ProtocolError",
    "Reject",
    "RemoteError",
    "RequestTimeout",
    "Retry",
    "Service",
    "SessionReset",
    "StateError",
    "Verdict",
    "Verification",
    "WorkerError",
    "connect",
    "every",
    "handles",
    "message",
    "on_start",
    "on_stop",
    "sync",
]
