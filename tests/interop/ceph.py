"""A real Ceph on loopback for as long as a test needs it, and the real ``ceph`` command line.

The cluster speaks msgr v1 only, without authentication. It lives under a directory of its own that
goes away with it, and its daemons die with the process that started them, whatever kills that.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import tempfile
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mpmsgr.wire.address import EntityAddr
from tests.interop.ports import free_port

MONITOR_PROGRAMS = ("ceph", "ceph-mon", "ceph-authtool", "monmaptool")
OSD_PROGRAMS = (*MONITOR_PROGRAMS, "ceph-osd")
START_S = 30.0
STOP_S = 15.0
CLI_S = 30.0


def _needs(programs: tuple[str, ...], packages: str) -> pytest.MarkDecorator:
    missing = [program for program in programs if not shutil.which(program)]
    reason = f"no {', '.join(missing)}: apt-get install {packages}"
    return pytest.mark.skipif(bool(missing), reason=reason)


needs_ceph_cli = _needs(("ceph",), "ceph-common")
needs_ceph_mon = _needs(MONITOR_PROGRAMS, "ceph-mon ceph-common")
needs_ceph_osd = _needs(OSD_PROGRAMS, "ceph-mon ceph-osd ceph-common")

# What the daemons and the command line must agree on, one reason per group.
CONF = """\
[global]
fsid = {fsid}
mon_host = [v1:127.0.0.1:{port}]
mon_initial_members = a
# peers that speak v1 and take everybody
ms_bind_msgr2 = false
ms_bind_ipv6 = false
auth_cluster_required = none
auth_service_required = none
auth_client_required = none
# a legal cluster on one machine
public_addr = 127.0.0.1
cluster_addr = 127.0.0.1
mon_allow_pool_size_one = true
osd_pool_default_size = 1
osd_pool_default_min_size = 1
osd_crush_chooseleaf_type = 0
osd_objectstore = memstore
mon_data_avail_crit = 0
# nothing outside its own directory
run_dir = {home}
mon_data = {home}/$name
osd_data = {home}/$name
keyring = {home}/keyring
crash_dir = {home}/crash
log_file = {home}/$name.log
pid_file =
admin_socket = {home}/$name.asok

{more}

[client]
log_file =
admin_socket =
"""


class CephError(Exception):
    """A Ceph program failed or did not come up in time; the text holds what it said."""


#: What the real client says when, without authentication, it sent its first command before it
#: knew the cluster's fsid: 1 call in 40 on a busy machine.
FSID_FLAW = ("wrong fsid", "problem getting command descriptions")
#: Without this it asks a monitor for settings first and then forgets the fsid in its ceph.conf.
KEEP_FSID = ("--no-mon-config",)


def ceph(conf: Path | None, *words: str, timeout_s: float = CLI_S) -> str:
    """Run the real command line and return what it printed.

    Its one known flaw is retried once. Raises CephError for any other failure.
    """
    command = ["ceph", "--conf", str(conf or os.devnull), "--connect-timeout", "10", *words]
    try:
        return _run(command, timeout_s)
    except CephError as err:
        if "EPERM" not in str(err) or not any(words in str(err) for words in FSID_FLAW):
            raise
    return _run(command, timeout_s)


def ceph_at(address: str, *words: str, timeout_s: float = CLI_S) -> str:
    """Run the real command line against the monitor at *address* (``v1:HOST:PORT/NONCE``)."""
    services = ("cluster", "service", "client")
    nobody = [word for who in services for word in (f"--auth-{who}-required", "none")]
    return ceph(None, "--mon-host", address, *nobody, *words, timeout_s=timeout_s)


class Cluster:
    """One monitor ``mon.a`` in a context, OSDs on demand.

    settings: lines of ceph.conf beyond what the tests cannot do without.
    """

    def __init__(self, *settings: str) -> None:
        """Choose names only; the context starts and stops the daemons."""
        self.settings = settings
        self.fsid = uuid.uuid4()
        self.home = Path()
        self.port = 0
        self.daemons: dict[str, subprocess.Popen[bytes]] = {}

    @property
    def conf(self) -> Path:
        """The configuration file that ``ceph -c`` takes."""
        return self.home / "ceph.conf"

    @property
    def address(self) -> str:
        """The monitor's address with the prefix Ceph's tools want."""
        return f"v1:127.0.0.1:{self.port}/0"

    @property
    def entity_addr(self) -> EntityAddr:
        """The monitor's address, nonce 0."""
        return EntityAddr.of("127.0.0.1", self.port)

    def __enter__(self) -> Cluster:
        """Start the monitor and wait until it answers."""
        self.home = Path(tempfile.mkdtemp(prefix="ceph-"))  # short: a socket lives in it
        try:
            self._start_monitor()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *exc: object) -> None:
        """Stop the daemons and remove the directory."""
        self.stop()

    def ceph(self, *words: str) -> str:
        """Run the command line in this cluster."""
        return ceph(self.conf, *KEEP_FSID, *words)

    def dump(self, *words: str) -> Any:
        """Run a command that can answer in JSON."""
        return json.loads(self.ceph(*words, "--format", "json"))

    def admin(self, daemon: str, prefix: str, **arguments: Any) -> str:
        """Tell a daemon something through its admin socket, whatever its messengers suffer."""
        with socket.socket(socket.AF_UNIX) as admin:
            admin.settimeout(START_S)
            admin.connect(str(self.home / f"{daemon}.asok"))
            admin.sendall(json.dumps({"prefix": prefix, **arguments}).encode() + b"\0")
            said = b"".join(iter(lambda: admin.recv(65536), b""))
        return said[4:].decode()

    def kill(self, daemon: str) -> None:
        """End a daemon without a word to anyone."""
        process = self.daemons.pop(daemon)
        process.kill()
        process.wait(STOP_S)

    def start_osd(self, number: int) -> list[EntityAddr]:
        """Start OSD *number* (in memory) and return its public and its cluster address."""
        name, osd_uuid = f"osd.{number}", str(uuid.uuid4())
        (self.home / name).mkdir()
        self.ceph("osd", "new", osd_uuid, str(number))
        program = ["ceph-osd", "--conf", str(self.conf), *KEEP_FSID, "--id", str(number)]
        _run([*program, "--mkfs", "--osd-uuid", osd_uuid], START_S)
        self._spawn(name, [*program, "--foreground"])
        self._wait(name, lambda: self._osd(number)["up"] == 1)
        osd = self._osd(number)
        texts = [osd[net]["addrvec"][0] for net in ("public_addrs", "cluster_addrs")]
        return [EntityAddr.parse(f"{text['addr']}/{text['nonce']}") for text in texts]

    def stop(self) -> None:
        """End every daemon, the youngest first, and remove everything it wrote."""
        for daemon in reversed(self.daemons.values()):
            daemon.terminate()
            try:
                daemon.wait(STOP_S)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait(STOP_S)
        self.daemons.clear()
        shutil.rmtree(self.home, ignore_errors=True)

    def _start_monitor(self) -> None:
        self.port = free_port()
        more = "\n".join(self.settings)
        self.conf.write_text(CONF.format(fsid=self.fsid, port=self.port, home=self.home, more=more))
        keyring, monmap = str(self.home / "keyring"), str(self.home / "monmap")
        program = ["ceph-mon", "--conf", str(self.conf), "--id", "a"]
        # Creating a monitor's store asks for its key, with authentication or without.
        make_key = ["ceph-authtool", "--create-keyring", keyring, "--gen-key", "--name", "mon."]
        _run([*make_key, "--cap", "mon", "allow *"], START_S)
        # The map decides what a monitor binds: a lone v1 address keeps it off v2.
        make_map = ["monmaptool", "--create", "--fsid", str(self.fsid), "--set-min-mon-release"]
        _run([*make_map, "16", "--addv", "a", f"[v1:127.0.0.1:{self.port}]", monmap], START_S)
        _run([*program, "--mkfs", "--monmap", monmap, "--keyring", keyring], START_S)
        self._spawn("mon.a", [*program, "--foreground"])
        self._wait("mon.a", self._has_quorum)

    def _has_quorum(self) -> bool:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", self.port)):
                return False
        return self.ceph("fsid").strip() == str(self.fsid)

    def _osd(self, number: int) -> dict[str, Any]:
        osds = self.dump("osd", "dump")["osds"]
        return next(osd for osd in osds if osd["osd"] == number)

    def _spawn(self, name: str, command: list[str]) -> None:
        with (self.home / f"{name}.out").open("wb") as out:
            self.daemons[name] = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", *command],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                cwd=self.home,
            )

    def _wait(self, name: str, is_up: Callable[[], bool]) -> None:
        deadline = time.monotonic() + START_S
        while not is_up():
            status = self.daemons[name].poll()
            if status is not None or time.monotonic() > deadline:
                said = (self.home / f"{name}.out").read_text(errors="replace")
                how = "still starting" if status is None else f"ended with {status}"
                raise CephError(f"{name}: {how}\n{said}")
            time.sleep(0.02)


def _run(command: list[str], timeout_s: float) -> str:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("CEPH_")}
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=timeout_s, env=environment
        )
    except subprocess.TimeoutExpired as err:
        raise CephError(f"{' '.join(command)}: no end within {timeout_s:g} s") from err
    if done.returncode:
        said = done.stdout + done.stderr
        raise CephError(f"{' '.join(command)}: exit {done.returncode}\n{said}")
    return done.stdout
