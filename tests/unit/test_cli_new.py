"""new: a project one can run at once."""

from __future__ import annotations

import ast
import tomllib
from pathlib import Path

import pytest

from mpmsgr.cli.main import run
from mpmsgr.cli.new import FILES, render
from mpmsgr.config import load_settings


@pytest.fixture
def project(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Path:
    monkeypatch.chdir(tmp_path)
    assert run(["new", "tally"]) == 0
    assert capfd.readouterr().out == (
        "tally/: tally.py, mpmsgr.toml, test_tally.py, README.md\nTry: cd tally && mpmsgr serve\n"
    )
    return tmp_path / "tally"


def test_makes_its_files(project: Path) -> None:
    made = {path.name for path in project.iterdir()}
    assert made == {"tally.py", "mpmsgr.toml", "test_tally.py", "README.md"}
    assert not [path.name for path in project.iterdir() if "NAME" in path.read_text()]


def test_the_configuration_is_allowed(project: Path) -> None:
    settings = load_settings({}, {}, None, auto_workers=lambda: 1, cwd=project)
    assert settings.modules == ["tally"]


def test_modules_are_python(project: Path) -> None:
    for name in ("tally.py", "test_tally.py"):
        ast.parse((project / name).read_text())
    tomllib.loads((project / "mpmsgr.toml").read_text())


def test_never_overwrites(project: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert run(["new", "tally"]) == 2
    assert "must be new, there is such a file or folder" in capfd.readouterr().err


@pytest.mark.parametrize("template", FILES)
def test_every_template_renders(template: str) -> None:
    assert "tally" in render(template, "tally")
