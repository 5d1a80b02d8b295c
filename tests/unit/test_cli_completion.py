"""What a shell is told."""

from __future__ import annotations

import pytest

from mpmsgr.cli.completion import SHELLS
from mpmsgr.cli.main import VERBS, run


@pytest.mark.parametrize("shell", SHELLS)
def test_every_shell_has_its_script(shell: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert run(["completion", shell]) == 0
    assert "_MPMSGR_COMPLETE" in capfd.readouterr().out


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        ("", list(VERBS)),
        ("ver", ["version"]),
        ("serve --log-f", ["--log-file", "--log-format"]),
        ("sessions --sort s", ["silence"]),
    ],
)
def test_verbs_and_options_are_completed(
    words: str,
    offered: list[str],
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("_MPMSGR_COMPLETE", "bash_complete")
    monkeypatch.setenv("COMP_WORDS", f"mpmsgr {words}")
    monkeypatch.setenv("COMP_CWORD", str(max(1, len(words.split()))))
    with pytest.raises(SystemExit):
        run([])
    said = capfd.readouterr().out.split()
    assert [line.removeprefix("plain,") for line in said] == offered
