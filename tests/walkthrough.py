"""A page of the docs that is followed to the letter: what it has one type, write and read."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support import eventually
from tests.terminal import INTERRUPT, Terminal
from tests.transcript import LEFT_OUT, Transcript

_FENCED = re.compile(r"(.*?)^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_WHERE = re.compile(r"the (first|second|third) terminal", re.IGNORECASE)
_FILE = re.compile(r"`(\w+\.py)`")
_INTERRUPTED = "^C"
_LEFT_BY_INTERRUPT = "# Ctrl-C ends it"
_PATIENCE_S = 60.0


@dataclass(frozen=True)
class Block:
    """A fenced block: its language; lines; *prose*: what stands between it and the one before."""

    language: str
    lines: list[str]
    prose: str


def blocks(page: str) -> Iterator[Block]:
    """The fenced blocks of *page*."""
    for prose, language, content in _FENCED.findall(page):
        yield Block(language, content.splitlines(), prose)


class Walkthrough:
    """Follows blocks, by these rules:

    * a block without a language is what a terminal shows, the one that prose has named last; what
      stands after a prompt in it is typed, and so is ``^C``;
    * ``python`` is a file that the prose before it names, or what is added at its end;
    * ``diff`` changes such a file; lines of ``@@`` are between changes.

    home: where terminals begin; project: where the files are, below it; prompts: of the shell and
    of all programs.
    """

    def __init__(
        self,
        home: Path,
        project: str,
        environment: Mapping[str, str],
        prompts: Sequence[str],
        transcript: Transcript,
    ) -> None:
        self._home, self._project = home, home / project
        self._environment = environment
        self._prompts = prompts
        self._transcript = transcript
        self._terminals: dict[str, Terminal] = {}
        self._carried: dict[str, list[str]] = {}
        self._where = ""

    def follow(self, block: Block) -> None:
        """Do what *block* says. AssertionError where something else is printed, or nothing."""
        match block.language:
            case "":
                self._where = [self._where, *_WHERE.findall(block.prose.lower())][-1]
                self._talk(block.lines)
            case "python":
                self._write(block)
            case "diff":
                self._change(block)
            case other:
                raise AssertionError(f"what is to be done with {other}?")

    def end(self) -> None:
        """AssertionError where a terminal shows more than the page, or one is not at its prompt."""
        for where in self._terminals:
            self._where = where
            self._read(self._carried.pop(where, []), "$ ")

    def close(self) -> None:
        """Kill what still runs."""
        for terminal in self._terminals.values():
            terminal.close()

    @property
    def _terminal(self) -> Terminal:
        if self._where not in self._terminals:
            self._terminals[self._where] = Terminal(self._home, self._environment)
        return self._terminals[self._where]

    def _talk(self, lines: Iterable[str]) -> None:
        shown = self._carried.pop(self._where, [])
        for line in lines:
            prompt = next((p for p in self._prompts if line.startswith(p)), "")
            if prompt or line.startswith(_INTERRUPTED):
                self._read(shown, prompt)
                keys = self._transcript.typed(line.removeprefix(prompt)) + "\n"
                self._terminal.type(keys if prompt else INTERRUPT)
                shown = []
            shown.append(line.removeprefix(prompt))
            if prompt and line.endswith(_LEFT_BY_INTERRUPT):
                self._look_and_leave()
        if shown[-1:] == [LEFT_OUT]:  # until whatever comes next
            self._carried[self._where] = [shown.pop()]
        self._read(shown)

    def _read(self, shown: Sequence[str], prompt: str = "") -> None:
        """Wait for the lines *shown*, and the prompt if there is one, and take them."""

        def count() -> int:
            return self._transcript.read(self._terminal.printed, shown, prompt)

        def is_over() -> bool:
            return count() >= 0 or self._terminal.printed.endswith("\n$ ")

        with suppress(AssertionError):
            eventually(is_over, _PATIENCE_S)
        found = count()
        if found < 0:
            pytest.fail(self._difference(shown, prompt), pytrace=False)
        self._terminal.take(found)

    def _difference(self, shown: Sequence[str], prompt: str) -> str:
        page = "".join(f"{line}\n" for line in shown) + prompt
        return (
            f"In the {self._where} terminal.\nThe page:\n{page}\nIt is:\n{self._terminal.printed}"
        )

    def _look_and_leave(self) -> None:
        """End what has a screen of its own, once there is something on that."""
        eventually(lambda: "\n" in self._terminal.printed.strip(), _PATIENCE_S)
        self._terminal.type(INTERRUPT)

    def _write(self, block: Block) -> None:
        file = self._file(block)
        at_its_end = re.search(r"at the end of `", block.prose)
        before = file.read_text("utf-8") if at_its_end else ""
        lines = map(self._transcript.typed, block.lines)
        _save(file, before + "".join(f"{line}\n" for line in lines))

    def _change(self, block: Block) -> None:
        file = self._file(block)
        text = file.read_text("utf-8")
        for hunk in "\n".join(block.lines).split("\n@@\n"):
            before, after = (_side(hunk, mark) for mark in "-+")
            assert text.count(before) == 1, f"{file.name} has it {text.count(before)} times: {hunk}"
            text = text.replace(before, after)
        _save(file, text)

    def _file(self, block: Block) -> Path:
        name: str = _FILE.findall(block.prose)[-1]
        return self._project / name


def _side(hunk: str, mark: str) -> str:
    """The lines of one side of *hunk*, "-" or "+"."""
    return "".join(f"{line[1:]}\n" for line in hunk.splitlines() if line[:1] in ("", " ", mark))


def _save(file: Path, text: str) -> None:
    """At once, as editors do: nobody sees half of it."""
    draft = file.with_suffix(".new")
    draft.write_text(text, "utf-8")
    os.replace(draft, file)
