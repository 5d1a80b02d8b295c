"""What a page says a terminal prints, against what it printed: equal but for what must vary."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

_VARIES = re.compile(
    r"(?P<time>\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3})"
    r"|(?P<amount>(?<![\w.])\d+(?:\.\d+)? ?(?:s|m\d\ds|ms|us|MiB)(?!\w))"
    r"|(?P<number>(?<![\w.])\d{4,}(?![\w.]))"
    r"|(?P<gap> {2,})"
)
_TIME = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3}"
_AMOUNT = r"\d+(?:\.\d+)? ?(?:s|m\d\ds|ms|us|MiB)"
LEFT_OUT = "..."


class Transcript:
    """Compares lines; what may vary, and is learnt from, is

    * times of the log, and amounts with a unit (s, ms, us, MiB): any other;
    * numbers of four and more digits (ports, pids, counts): any other, but the same one each time
      the page says the same one, here and in later commands;
    * the width of columns: two spaces and more are one or more;
    * ``...`` alone in a line: any lines, or none.

    known: what is printed in place of a text of the page, and typed.
    """

    def __init__(self, known: dict[str, str]) -> None:
        self.known = known

    def typed(self, line: str) -> str:
        """*line* of the page, with what is known in place of what is shown."""
        return re.sub("|".join(map(re.escape, self.known)), lambda m: self.known[m[0]], line)

    def read(self, printed: str, shown: Sequence[str], prompt: str = "") -> int:
        """How many characters of *printed* are what the lines *shown* say, -1 if it is not so.

        prompt: what comes then, and nothing after it.
        """
        numbers: dict[str, str] = {}
        pattern = "".join(self._line(line, numbers) for line in shown)
        found = re.match(f"{pattern}{re.escape(prompt)}{prompt and chr(92) + 'Z'}", printed)
        if not found:
            return -1
        self.known |= {number: found[group] for number, group in numbers.items()}
        return found.end()

    def _line(self, line: str, numbers: dict[str, str]) -> str:
        if line == LEFT_OUT:
            return r"(?:.*\n)*?"
        return "".join(self._parts(self.typed(line), numbers)) + r"\n"

    def _parts(self, line: str, numbers: dict[str, str]) -> Iterator[str]:
        at = 0
        for varies in _VARIES.finditer(line):
            yield re.escape(line[at : varies.start()])
            yield self._pattern(varies, numbers)
            at = varies.end()
        yield re.escape(line[at:])

    def _pattern(self, varies: re.Match[str], numbers: dict[str, str]) -> str:
        match varies.lastgroup, varies[0]:
            case "time", _:
                return _TIME
            case "amount", _:
                return _AMOUNT
            case "gap", _:
                return " +"
            case _, number if number in self.known.values():
                return number
            case _, number if number in numbers:
                return f"(?P={numbers[number]})"
            case _, number:
                numbers[number] = f"n{len(numbers)}"
                return rf"(?P<{numbers[number]}>\d+)"
