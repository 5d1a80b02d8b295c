"""What a page says a terminal prints, against what it printed: equal but for what must vary."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

_TIME = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3}"
_AMOUNT = r"\d+(?:\.\d+)? ?(?:s|m\d\ds|ms|us|MiB)"
_VARIES = rf"""(?x)
    (?P<time>{_TIME.replace(" ", "[ ]")})
    | (?P<amount>(?<![\w.]){_AMOUNT.replace(" ", "[ ]")}(?!\w))
    | (?P<number>(?<![\w.])\d{{4,}}(?![\w.]))
    | (?P<gap>[ ]{{2,}})
"""
LEFT_OUT = "..."


class Transcript:
    """Compares lines; what may vary is

    * times of the log, and amounts with a unit (s, ms, us, MiB): any other;
    * numbers of four and more digits (ports, pids, counts): any other, but the same one wherever
      the page has the same one, there and in later commands;
    * the width of columns: two spaces and more are one or more;
    * ``...`` alone in a line: any lines, or none.

    texts: what is to be typed, and printed, in place of something on the page; numbers: the same of
    numbers, to which those of the transcript are added.
    """

    def __init__(self, texts: Mapping[str, str], numbers: Mapping[str, str]) -> None:
        self._texts, self._numbers = texts, dict(numbers)
        named = "|".join(map(re.escape, texts)) or "(?!)"
        self._varies = re.compile(f"{_VARIES} | (?P<text>{named})")

    def typed(self, line: str) -> str:
        """*line* of the page, as it is to be typed."""
        known = {**self._texts, **self._numbers}
        return self._varies.sub(lambda varies: known.get(varies[0], varies[0]), line)

    def read(self, printed: str, shown: Sequence[str], prompt: str = "") -> int:
        """How many characters of *printed* are what the lines *shown* say, -1 if it is not so.

        prompt: what comes then, and nothing after it.
        """
        groups: dict[str, str] = {}
        pattern = "".join(self._line(line, groups) for line in shown)
        pattern += rf"{re.escape(prompt)}\Z" if prompt else ""
        found = re.match(pattern, printed)
        if not found:
            return -1
        self._numbers |= {number: found[group] for number, group in groups.items()}
        return found.end()

    def _line(self, line: str, groups: dict[str, str]) -> str:
        return r"(?:.*\n)*?" if line == LEFT_OUT else "".join(self._parts(line, groups)) + r"\n"

    def _parts(self, line: str, groups: dict[str, str]) -> Iterator[str]:
        at = 0
        for varies in self._varies.finditer(line):
            yield re.escape(line[at : varies.start()])
            yield self._pattern(varies, groups)
            at = varies.end()
        yield re.escape(line[at:])

    def _pattern(self, varies: re.Match[str], groups: dict[str, str]) -> str:
        """groups: of the pattern, by the numbers of the page that it finds."""
        match varies.lastgroup, varies[0]:
            case "time", _:
                return _TIME
            case "amount", _:
                return _AMOUNT
            case "gap", _:
                return " +"
            case "text", text:
                return re.escape(self._texts[text])
            case _, number if number in self._numbers:
                return self._numbers[number]
            case _, number if number in groups:
                return f"(?P={groups[number]})"
            case _, number:
                groups[number] = f"n{len(groups)}"
                return rf"(?P<{groups[number]}>\d+)"
