"""Verdicts: what they carry, and what they do not take."""

from __future__ import annotations

import math

import pytest

from mpmsgr import HandlerError
from mpmsgr.dispatch.codes import ErrorCode
from mpmsgr.dispatch.verdicts import Poison, Reject, Retry, Verdict


def test_they_are_one_family() -> None:
    assert all(issubclass(verdict, Verdict) for verdict in (Retry, Reject, Poison))
    assert not issubclass(Verdict, HandlerError)


@pytest.mark.parametrize(("after", "text"), [(0, "again in 0 s"), (1.5, "again in 1.5 s")])
def test_retry(after: float, text: str) -> None:
    verdict = Retry(after)
    assert (verdict.after, str(verdict)) == (after, text)
    assert type(verdict.after) is float
    assert Retry().after == 1.0


@pytest.mark.parametrize("after", [-1, -0.001, math.nan])
def test_never_into_the_past(after: float) -> None:
    with pytest.raises(ValueError, match=f"after is {after}: must be 0 seconds or more"):
        Retry(after)


def test_reject() -> None:
    assert (Reject("no").reason, Reject("no").code) == ("no", ErrorCode.REJECTED)
    assert Reject("no", 1001).code == 1001
    assert str(Reject("no")) == "no"


def test_poison() -> None:
    assert (Poison("bad").reason, str(Poison("bad"))) == ("bad", "bad")
