"""Latencies in logarithmic buckets: fixed in size, exact to 1.6 %, mergeable between processes."""

from __future__ import annotations

_MANTISSA_BITS = 6
_EXACT = 1 << (_MANTISSA_BITS + 1)


class Histogram:
    """Counts of durations, in microseconds.

    Up to 127 us a bucket is one microsecond wide; above, each octave has 64 buckets.
    """

    def __init__(self) -> None:
        self.count = 0
        self.max_s = 0.0
        self._buckets: dict[int, int] = {}

    def record(self, duration_s: float) -> None:
        """Count one duration, in seconds."""
        index = int(duration_s * 1e6)
        if index >= _EXACT:
            shift = index.bit_length() - _MANTISSA_BITS - 1
            index = (shift << _MANTISSA_BITS) + (index >> shift)
        self._buckets[index] = self._buckets.get(index, 0) + 1
        self.count += 1
        if duration_s > self.max_s:
            self.max_s = duration_s

    def merge(self, other: Histogram) -> None:
        """Add everything *other* counted."""
        for index, count in other._buckets.items():
            self._buckets[index] = self._buckets.get(index, 0) + count
        self.count += other.count
        self.max_s = max(self.max_s, other.max_s)

    def percentile(self, percent: float) -> float:
        """The duration in seconds that *percent* of all do not exceed; 0 if nothing was counted."""
        wanted = self.count * percent / 100
        seen = 0
        for index in sorted(self._buckets):
            seen += self._buckets[index]
            if seen >= wanted:
                return min(_upper_edge_us(index) / 1e6, self.max_s)
        return self.max_s

    def as_dict(self) -> dict[str, object]:
        """The form that travels between processes as JSON."""
        return {"max_s": self.max_s, "buckets": sorted(self._buckets.items())}

    @classmethod
    def from_dict(cls, form: dict[str, object]) -> Histogram:
        """The histogram `as_dict` was made of."""
        histogram = cls()
        max_s, buckets = form["max_s"], form["buckets"]
        assert isinstance(max_s, float)
        assert isinstance(buckets, list)
        histogram.max_s = max_s
        histogram._buckets = dict(buckets)
        histogram.count = sum(histogram._buckets.values())
        return histogram


def _upper_edge_us(index: int) -> int:
    """The smallest number of microseconds beyond bucket *index*."""
    if index < _EXACT:
        return index + 1
    shift = (index >> _MANTISSA_BITS) - 1
    return (index - (shift << _MANTISSA_BITS) + 1) << shift
