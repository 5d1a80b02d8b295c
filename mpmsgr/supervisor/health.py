"""Breakers: who dies again and again is started less often."""

from __future__ import annotations

from mpmsgr.supervisor.child import Child, Phase
from mpmsgr.supervisor.limits import Limits


def breaker_is_open(child: Child, limits: Limits, now: float) -> bool:
    """Whether the worker *child* died too often in a row before it did any work.

    It is started again only every `backoff_max_s`. Its first completion closes the breaker, so
    does living for `stable_s`, and a reload.
    """
    if child.early_deaths < limits.breaker_limit:
        return False
    return child.phase is not Phase.READY or now < child.since + limits.stable_s
