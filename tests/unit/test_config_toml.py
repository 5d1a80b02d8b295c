"""The printed configuration is one that can be read."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mpmsgr.config import OPTIONS, Settings, load_settings, origins_of
from mpmsgr.config.toml import config_text

VALUES = st.recursive(
    st.booleans() | st.integers(-(1 << 63), (1 << 63) - 1) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=10,
)


@pytest.mark.parametrize(
    "settings",
    [
        Settings(),
        Settings(
            modules=["a.b:C", "d"],
            options={"a.b:C": {"path": 'C:\\"x"\n', "deep": {"n": [1, 2.5, True]}}, "d": {}},
            policy={"client": {"preset": "stateful_server", "standby_timeout_s": 5.0}},
            inject={"seed": 7},
            nonce=7,
        ),
    ],
    ids=["defaults", "tables"],
)
def test_it_reads_back_as_the_same(settings: Settings) -> None:
    assert Settings.from_dict(tomllib.loads(config_text(settings, {}))) == settings


@given(st.dictionaries(st.text(max_size=8), VALUES))
def test_any_options_read_back(table: dict[str, Any]) -> None:
    text = config_text(Settings(modules=["m"], options={"m": table}), {})
    assert tomllib.loads(text)["options"]["m"] == table


def test_who_said_it_stands_behind_it(tmp_path: Path) -> None:
    (tmp_path / "mpmsgr.toml").write_text("workers = 2\n")
    flags, environ = {"nonce": 5}, {"MPMSGR_LOG_LEVEL": "debug"}
    origins = origins_of(flags, environ, None, cwd=tmp_path)
    settings = load_settings(flags, environ, None, auto_workers=lambda: 1, cwd=tmp_path)
    lines = config_text(settings, origins).splitlines()
    assert "workers = 2  # mpmsgr.toml: workers" in lines
    assert "nonce = 5  # --nonce" in lines
    assert 'log_level = "debug"  # MPMSGR_LOG_LEVEL' in lines
    assert "# advertise =  # default" in lines


def test_every_option_is_in_it() -> None:
    text = config_text(Settings(), {})
    plain = [o.name for o in OPTIONS if o.name not in ("options", "policy", "inject")]
    assert [name for name in plain if f"{name} =" not in text] == []
