"""A section of a memfd in this process, handed out as memoryviews that say when the last one ends.

    memory of the section  <──  exporter, one per view handed out  <──  views, slices, numpy arrays

Whoever looks at the bytes keeps the exporter, and the exporter keeps the memory mapped: no view can
outlive its bytes, and an ended lease is one nobody can look at any more. The exporter is a ctypes
array over the whole section (a header object of its own, no memory), because ctypes also exports
what is mapped read-only, and because all exporters of a section then share one type: ctypes keeps
every array type it ever made, so that a type per length would be a leak. Views are what is sliced
from it. Source of the calls: mmap(2), munmap(2).

The end of an exporter is seen by its finalizer, not by a weak reference to it. The garbage
collector clears weak references first and then runs the finalizers, in no order: a ``__del__``, or
the ``finally`` of a coroutine, could still read a view whose lease was reported over, or store it
away. `_Ending` waits for such views. A lease costs 0.8 us of CPU from begin to end (``python -m
bench.shared_memory``), most of it for the three memoryviews; with a weak reference it was 0.9 us.
"""

from __future__ import annotations

import ctypes
import gc
import mmap
import os
from collections import deque
from collections.abc import Callable
from functools import cache
from sys import getrefcount
from typing import Any

from mpmsgr.wire.crc import Bytes

_libc = ctypes.CDLL(None, use_errno=True)
_mmap, _munmap = _libc.mmap, _libc.munmap
_mmap.restype = ctypes.c_void_p
_mmap.argtypes = [
    ctypes.c_void_p,
    ctypes.c_size_t,
    ctypes.c_int,
    ctypes.c_int,
    ctypes.c_int,
    ctypes.c_long,
]
_munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
_MAP_FAILED = ctypes.c_void_p(-1).value


class Mapping:
    """*size* bytes of *fd* from *offset* on (a multiple of the page size), shared and populated.

    Read-only unless *writable*. *fd* may be closed afterwards. Raises OSError as mmap(2) does.
    """

    def __init__(self, fd: int, size: int, *, offset: int = 0, writable: bool = False) -> None:
        self.size = size
        self.writable = writable
        self._memory: _Memory | None = _Memory(fd, size, offset, writable)
        self._exporter = _exporter(size)

    def raw(self, offset: int, length: int) -> memoryview:
        """*length* bytes from *offset* on, for headers and rings; writable if the mapping is.

        Raises ValueError outside of the mapping, or when it is closed.
        """
        return self.lease(offset, length, _nobody_waits, writable=self.writable)

    def lease(
        self,
        offset: int,
        length: int,
        ended: Callable[[Any], None],
        about: object = None,
        *,
        writable: bool = False,
    ) -> memoryview:
        """*length* bytes from *offset* on; ``ended(about)`` once the last view of them is gone.

        *about* is the offset where nothing else is said.

        Slices, casts and whatever else was made from the view without a copy count as views.
        *ended* may run in any thread and inside of the garbage collector: it must be short, take
        no lock that anybody holds for long, and not raise. Raises ValueError outside of the
        mapping, when it is closed, or for a writable lease of a read-only mapping.
        """
        end = offset + length
        if not 0 <= offset <= end <= self.size:
            raise ValueError(f"{length} bytes at {offset} of a mapping of {self.size}")
        if (memory := self._memory) is None:
            raise ValueError("the mapping is closed")
        if writable and not self.writable:
            raise ValueError("the mapping is read-only")
        exporter = self._exporter.from_address(memory.address)
        exporter.memory, exporter.ended = memory, ended
        exporter.about = offset if about is None else about
        view = memoryview(exporter).cast("B")[offset:end]
        return view if writable else view.toreadonly()

    def about(self, view: memoryview) -> Any:
        """What the lease is about that *view* is one of; None: it is none of this mapping."""
        exporter: Any = view.obj
        if type(exporter) is not self._exporter or exporter.memory is not self._memory:
            return None
        return exporter.about

    def offset_of(self, view: Bytes) -> int | None:
        """Where the first byte of *view* lies in the mapping; None: elsewhere.

        Whatever made the view: a slice, or an array over one. 1.2 us.
        """
        memory = self._memory
        if memory is None or type(view) is bytes:
            return None
        offset = address_of(view) - memory.address
        return offset if 0 <= offset < self.size else None

    def close(self) -> None:
        """No more views; unmapped as soon as there is none left, now or when the last one ends."""
        self._memory = None


class _Buffer(ctypes.Structure):
    """Py_buffer of the C API."""

    _fields_ = (
        ("buf", ctypes.c_void_p),
        ("obj", ctypes.py_object),
        ("len", ctypes.c_ssize_t),
        ("itemsize", ctypes.c_ssize_t),
        ("readonly", ctypes.c_int),
        ("ndim", ctypes.c_int),
        ("format", ctypes.c_char_p),
        ("shape", ctypes.c_void_p),
        ("strides", ctypes.c_void_p),
        ("suboffsets", ctypes.c_void_p),
        ("internal", ctypes.c_void_p),
    )


_get_buffer = ctypes.pythonapi.PyObject_GetBuffer
_get_buffer.argtypes = [ctypes.py_object, ctypes.POINTER(_Buffer), ctypes.c_int]
_release_buffer = ctypes.pythonapi.PyBuffer_Release
_release_buffer.argtypes = [ctypes.POINTER(_Buffer)]
_release_buffer.restype = None
_SIMPLE = 0  # PyBUF_SIMPLE: contiguous bytes, read-only will do


def address_of(view: Bytes) -> int:
    """Address of the first byte of *view*. Raises BufferError if it is not contiguous."""
    buffer = _Buffer()
    _get_buffer(view, ctypes.byref(buffer), _SIMPLE)
    address = buffer.buf or 0
    _release_buffer(ctypes.byref(buffer))
    return address


def _nobody_waits(about: object) -> None:
    pass


class _Probe:
    """How many references `getrefcount` sees in a finalizer that runs because there are none."""

    seen: int

    def __del__(self, refs: Callable[[object], int] = getrefcount) -> None:
        _Probe.seen = refs(self)


_Probe()

#: Found by the garbage collector in a cycle of garbage that it was about to take apart.
_suspects: deque[_Ending] = deque()


class _Ending:
    """`end` is called once, when there is no reference any more, wherever it had been."""

    __slots__ = ()

    def __del__(
        self,
        # Bound here: at the end of the interpreter a module's names go before its objects.
        refs: Callable[[object], int] = getrefcount,
        none: int = _Probe.seen,
        suspect: Callable[[_Ending], None] = _suspects.append,
    ) -> None:
        if refs(self) > none:
            suspect(self)
        else:
            self.end()

    def end(self) -> None:
        raise NotImplementedError


def _after_collection(phase: str, info: dict[str, int]) -> None:
    """Finalizers have run and garbage is gone: who is still referenced was stored away by one."""
    if phase == "stop":
        while _suspects and _end_some():
            pass  # an exporter that ended may have been the last to refer to its memory


def _end_some() -> bool:
    """End the suspects that nobody refers to; returns whether there were any."""
    before = len(_suspects)
    for _ in range(before):
        suspect = _suspects.popleft()
        if getrefcount(suspect) > _ONE_NAME:
            _suspects.append(suspect)
        else:
            suspect.end()
    return len(_suspects) < before


def _refs_of_one_name() -> int:
    """What `getrefcount` says in a function of an object that only one local name refers to."""
    alone = object()
    return getrefcount(alone)


_ONE_NAME = _refs_of_one_name()
gc.callbacks.append(_after_collection)


class _Memory(_Ending):
    """What mmap returned, until nobody refers to it."""

    __slots__ = ("address", "size")

    def __init__(self, fd: int, size: int, offset: int, writable: bool) -> None:
        self.size = 0
        protection = mmap.PROT_READ | (mmap.PROT_WRITE if writable else 0)
        flags = mmap.MAP_SHARED | mmap.MAP_POPULATE
        address = _mmap(None, size, protection, flags, fd, offset)
        if address == _MAP_FAILED:
            error = ctypes.get_errno()
            raise OSError(error, os.strerror(error))
        self.address, self.size = address, size

    def end(self, munmap: Callable[[int, int], int] = _munmap) -> None:
        if self.size:
            munmap(self.address, self.size)


class _Lease(_Ending):
    """What an exporter knows beside its bytes."""

    __slots__ = ()
    memory: _Memory
    ended: Callable[[Any], None]
    about: object

    def end(self) -> None:
        self.ended(self.about)


@cache
def _exporter(size: int) -> Any:
    """The ctypes type of all exporters of sections of *size* bytes."""
    slots = {"__slots__": ("memory", "ended", "about")}
    return type("Exporter", (_Lease, ctypes.c_ubyte * size), slots)
