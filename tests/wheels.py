"""Wheels of what is installed here, for pip where it cannot ask an index."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path
from zipfile import ZipFile

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

#: What pip adds to what was in the wheel.
_OF_PIP = ("INSTALLER", "REQUESTED", "direct_url.json")


def needs(*requirements: str) -> set[str]:
    """Names of the distributions that *requirements* and theirs name."""
    done: set[tuple[str, str]] = set()
    wanted = [(Requirement(text), "") for text in requirements]
    while wanted:
        requirement, of_extra = wanted.pop()
        if requirement.marker and not requirement.marker.evaluate({"extra": of_extra}):
            continue
        name = canonicalize_name(requirement.name)
        for extra in {"", *requirement.extras} - {extra for who, extra in done if who == name}:
            done.add((name, extra))
            theirs = metadata.requires(name) or ()
            wanted += [(Requirement(text), extra) for text in theirs]
    return {name for name, _ in done}


def write_wheels(names: Iterable[str], folder: Path) -> None:
    """Write a wheel of each distribution of *names*, as it lies in this Python, into *folder*."""
    for name in names:
        _write(metadata.distribution(name), folder)


def _write(distribution: metadata.Distribution, folder: Path) -> None:
    files = [
        file
        for file in distribution.files or ()
        if ".." not in file.parts and file.suffix != ".pyc" and file.name not in _OF_PIP
    ]
    about = next(file.parts[0] for file in files if file.parts[0].endswith(".dist-info"))
    name = f"{about.removesuffix('.dist-info')}-{_tag(distribution)}.whl"
    with ZipFile(folder / name, "w") as wheel, io.StringIO() as record:
        for file in files:
            if file.parts != (about, "RECORD"):
                wheel.write(str(distribution.locate_file(file)), str(file))
        csv.writer(record).writerows([str(file), "", ""] for file in files)
        wheel.writestr(f"{about}/RECORD", record.getvalue())


def _tag(distribution: metadata.Distribution) -> str:
    """As it stands in a file's name: ``py2.py3-none-any`` for py2-none-any and py3-none-any."""
    lines = (distribution.read_text("WHEEL") or "").splitlines()
    tags = [line.removeprefix("Tag: ").split("-") for line in lines if line.startswith("Tag: ")]
    return "-".join(".".join(dict.fromkeys(parts)) for parts in zip(*tags, strict=True))
