"""The starter itself: a real monitor comes up, answers, and leaves nothing behind."""

from __future__ import annotations

import os

import pytest

from tests.interop.ceph import CephError, Cluster, needs_ceph_mon, needs_ceph_osd


@needs_ceph_mon
def test_a_monitor_answers_and_goes() -> None:
    with Cluster() as cluster:
        pid = cluster.daemons["mon.a"].pid
        assert cluster.dump("status")["fsid"] == str(cluster.fsid)
        (mon,) = cluster.dump("mon", "dump")["mons"]
        assert [addr["type"] for addr in mon["public_addrs"]["addrvec"]] == ["v1"]
        with pytest.raises(CephError, match="EINVAL"):
            cluster.ceph("no", "such", "command")
    assert not cluster.home.exists()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


@needs_ceph_osd
def test_an_osd_comes_up() -> None:
    with Cluster() as cluster:
        public, private = cluster.start_osd(0)
        assert public.host == private.host == "127.0.0.1"
        assert public.port != private.port
