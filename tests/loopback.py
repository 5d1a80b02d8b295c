"""An address of the loopback that no other process has while this one runs.

Servers that are bound to it find every port of Ceph's range free, and a port that one of them has
left stays free: other servers of the machine, those of tests in other processes as well, are at
127.0.0.1 or at addresses of their own. Linux answers at all of 127.0.0.0/8.
"""

from __future__ import annotations

import os
import sys
from ipaddress import IPv4Address

#: pids have 22 bits at the most (proc(5), pid_max).
HOST = str(IPv4Address("127.64.0.0") + os.getpid()) if sys.platform == "linux" else "127.0.0.1"
#: Where a server is bound that takes the first free port of Ceph's range.
ANY_PORT = f"{HOST}:0"
