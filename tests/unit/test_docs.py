"""The documents: generated pages are up to date, and what they refer to exists."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from docs.generate import DOCS, PAGES

REPOSITORY = DOCS.parent
DOCUMENTS = sorted([*REPOSITORY.glob("*.md"), *DOCS.glob("*.md")])
#: Files of this repository that a text names in backquotes.
NAMED = re.compile(r"`((?:tests|docs|workers|bench|scripts|requirements|mpmsgr)/[\w./-]+)`")


@pytest.mark.parametrize("name", PAGES)
def test_generated_page_is_up_to_date(name: str) -> None:
    assert (DOCS / name).read_text(encoding="utf-8") == PAGES[name](), "run: make docs"


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(document: Path) -> None:
    text = document.read_text(encoding="utf-8")
    targets = [link.partition("#")[0] for link in re.findall(r"\]\(([^)]+)\)", text)]
    missing = [t for t in targets if "://" not in t and not (document.parent / t).exists()]
    missing += [name for name in NAMED.findall(text) if not (REPOSITORY / name).exists()]
    assert not missing


def test_every_target_of_make_that_a_document_names_exists() -> None:
    makefile = (REPOSITORY / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z]+):", makefile, re.MULTILINE))
    named = {
        target
        for document in DOCUMENTS
        for target in re.findall(r"`make ([a-z]+)", document.read_text(encoding="utf-8"))
    }
    assert named <= targets
