"""Load: many clients at once, every reply checked."""

from __future__ import annotations

from mpmsgr.load.plan import LoadPlan
from mpmsgr.load.report import LoadReport
from mpmsgr.load.runner import Interrupted, Progress, run

__all__ = ["Interrupted", "LoadPlan", "LoadReport", "Progress", "run"]
