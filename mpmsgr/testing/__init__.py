"""For tests of plugins: a service under test, and what goes wrong around it.

`serve` starts the real thing, `serve_local` serves in the test's own process, `serve_virtual` does
so with a clock that the test advances. The fixtures of the same names, with ``mpmsgr_`` before
them, are in `pytest_mpmsgr`; docs/testing.md has examples.
"""

from mpmsgr.errors import ServiceError
from mpmsgr.testing.cut import Cut
from mpmsgr.testing.kill import Kill
from mpmsgr.testing.local import LocalService, serve_local
from mpmsgr.testing.mishap import Mishap
from mpmsgr.testing.server import Server, serve
from mpmsgr.testing.service import Service
from mpmsgr.testing.virtual import VirtualService, serve_virtual

__all__ = [
    "Cut",
    "Kill",
    "LocalService",
    "Mishap",
    "Server",
    "Service",
    "ServiceError",
    "VirtualService",
    "serve",
    "serve_local",
    "serve_virtual",
]
