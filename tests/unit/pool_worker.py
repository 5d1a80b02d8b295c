"""A worker of a pool under test, as far as tests look into it."""

from __future__ import annotations

from typing import Any

from mpmsgr import Connection
from mpmsgr.pool.mapping import Mapping
from mpmsgr.pool.runtime import Runtime
from mpmsgr.pool.worker_memory import WorkerMemory
from tests.unit.pool_site import Site


class PoolWorker:
    """A worker that is linked to the front."""

    def __init__(
        self, slot: int, generation: int, site: Site, runtime: Runtime, memory: WorkerMemory | None
    ) -> None:
        self.slot, self.generation, self.site = slot, generation, site
        self.runtime = runtime
        self.memory = memory

    @property
    def cons(self) -> dict[int, Connection]:
        """The connections it was told of, by id."""
        return dict(self.runtime._cons)

    @property
    def page(self) -> Any:
        """Its counters page."""
        assert self.memory is not None
        return self.memory.page

    @property
    def timed(self) -> set[int]:
        """Numbers of the items that it is to tell the times of."""
        return set(self.runtime._timed)

    def place_of(self, view: Any) -> tuple[str, int] | None:
        """Arena and offset where *view* lies in this worker; None: in no arena."""
        assert self.memory is not None
        assert self.memory._ingress is not None
        mappings = {"ingress": self.memory._ingress, "egress": self.memory._egress._mapping}
        return place_in(mappings, view)

    @property
    def egress_used(self) -> int:
        """Bytes of its arena in use."""
        return self.memory._egress.used if self.memory is not None else 0


def place_in(mappings: dict[str, Mapping], view: Any) -> tuple[str, int] | None:
    """Name and offset of the mapping that *view* lies in."""
    for name, mapping in mappings.items():
        offset = mapping.offset_of(view)
        if offset is not None:
            return name, offset
    return None
