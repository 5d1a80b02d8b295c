"""Peers that are refused come again at once: what that leaves in the log, and when they get in."""

from __future__ import annotations

import logging

import pytest

from tests.support import eventually_async
from tests.unit.messenger_peers import both_loops, client, connected, peer, place, serving


@both_loops
async def test_refusals_are_logged_seldom(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lines() -> list[logging.LogRecord]:
        return [record for record in caplog.records if "lame_duck" in record.getMessage()]

    async with serving() as server, client() as messenger, client() as other:
        server.endpoint.lame_duck = True
        counters = server.endpoint.counters
        for one in (messenger, other):
            peer(one, place(server))
        await eventually_async(lambda: counters.faults >= 7)
        (first,) = lines()
        assert first.levelno == logging.WARNING
        assert first.getMessage().endswith(" asks for a new session")
        before, now = counters.faults, server.driver.now
        monkeypatch.setattr(server.driver, "now", lambda: now() + 5.0)
        await eventually_async(lambda: counters.faults >= before + 3)
        _, second = lines()
        assert second.getMessage().endswith(f"({before - 1} lines like this held back)")


@both_loops
async def test_who_finds_no_room_gets_in_by_itself_when_there_is() -> None:
    async with serving(max_sessions=1) as server, client() as messenger:
        refused = server.endpoint.counters.sessions_refused
        async with client() as first:
            await connected(first, place(server))
            con = peer(messenger, place(server))
            await eventually_async(lambda: refused["max_sessions"] >= 2)
            assert not con.is_connected
        await con.wait_connected(5.0)
