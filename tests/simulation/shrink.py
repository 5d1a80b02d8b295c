"""From a history that fails to a short one that fails as well."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace

from tests.simulation.network import CALM, Weather
from tests.simulation.plan import Op, Plan


def shrink(plan: Plan, fails: Callable[[Plan], bool], tries: int = 400) -> Plan:
    """A plan with fewer operations and better weather for which *fails* still holds.

    Asks *fails* at most *tries* times.
    """
    left = tries

    def still_fails(candidate: Plan) -> bool:
        nonlocal left
        left -= 1
        return left >= 0 and fails(candidate)

    plan = _calmer(plan, still_fails)
    size = max(1, len(plan.ops) // 2)
    while left > 0:
        shorter = _without_some(plan, size, still_fails)
        if len(shorter.ops) == len(plan.ops):
            if size == 1:
                break
            size //= 2
        plan = shorter
    return plan


def _calmer(plan: Plan, fails: Callable[[Plan], bool]) -> Plan:
    """Without each kind of bad weather that does not matter."""
    for field in fields(Weather):
        weather = replace(plan.weather, **{field.name: getattr(CALM, field.name)})
        if weather != plan.weather and fails(replace(plan, weather=weather)):
            plan = replace(plan, weather=weather)
    return plan


def _without_some(plan: Plan, size: int, fails: Callable[[Plan], bool]) -> Plan:
    """Without each run of *size* operations that does not matter."""
    at = 0
    while at < len(plan.ops):
        ops: tuple[Op, ...] = plan.ops[:at] + plan.ops[at + size :]
        if fails(replace(plan, ops=ops)):
            plan = replace(plan, ops=ops)
        else:
            at += size
    return plan
