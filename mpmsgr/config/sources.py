"""Where settings come from: flags over environment over file over defaults."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mpmsgr.config import kinds
from mpmsgr.config.settings import (
    AUTO,
    BY_NAME,
    ENV_PREFIX,
    OPTIONS,
    Option,
    Settings,
    no_such,
)
from mpmsgr.errors import ConfigError

DEFAULT_FILE = "mpmsgr.toml"
# Not ours to read: what the supervisor tells its children, what Kubernetes sets in every container
# of a namespace with a service called mpmsgr, what tests tell each other.
_FOREIGN_ENV = re.compile(r"(SUPERVISOR_PID|SERVICE_(HOST|PORT)(_.*)?|PORT(_.*)?|TEST_.*)")


@dataclass(frozen=True)
class _Said:
    """A raw value, the name it was given under, the directory its relative paths start from."""

    raw: Any
    label: str
    base: Path


def load_settings(
    flags: Mapping[str, Any],
    environ: Mapping[str, str],
    file: Path | None,
    *,
    auto_workers: Callable[[], int],
    cwd: Path | None = None,
) -> Settings:
    """Settings of *flags* (by field name; None, () = not said), *environ* and TOML *file*.

    file None reads ``mpmsgr.toml`` of *cwd* if there is one. Relative paths in a file start from
    the file's directory. Raises ConfigError under the name the user wrote: flag, environment name
    or file and key.
    """
    cwd = cwd or Path.cwd()
    said = {o.name: _Said(o.unset or o.default, o.name, cwd) for o in OPTIONS}
    in_file = _from_file(file, cwd)
    said |= in_file | _from_environ(environ, cwd) | _from_flags(flags, cwd)
    if said["workers"].raw == AUTO:
        said["workers"] = _Said(auto_workers(), said["workers"].label, cwd)
    values = {name: _read(BY_NAME[name], one) for name, one in said.items()}
    values["options"] = _options_in_use(values, in_file)
    return Settings(**values)


def origins_of(
    flags: Mapping[str, Any],
    environ: Mapping[str, str],
    file: Path | None,
    *,
    cwd: Path | None = None,
) -> dict[str, str]:
    """Who said each setting that was said: the flag, the environment name, or the file and key."""
    cwd = cwd or Path.cwd()
    said = _from_file(file, cwd) | _from_environ(environ, cwd) | _from_flags(flags, cwd)
    return {name: one.label for name, one in said.items()}


def _read(option: Option, said: _Said) -> Any:
    raw = said.raw
    if isinstance(option.kind, kinds.Folder) and isinstance(raw, str) and raw:
        path = Path(raw).expanduser()
        try:
            return option.kind.read(str(said.base / path))
        except ValueError as exc:
            raise ConfigError(said.label, raw, str(exc)) from None
    return option.read(raw, said.label)


def _options_in_use(values: Mapping[str, Any], in_file: Mapping[str, _Said]) -> dict[str, Any]:
    """Options of the modules served; those the file lists, but flags replaced, may stay in it."""
    keys = ("modules", "io_modules")
    listed = [module for key in keys if key in in_file for module in in_file[key].raw]
    served = [module for key in keys for module in values[key]]
    options = values["options"]
    unused = [module for module in options if module not in served and module in listed]
    return {module: table for module, table in options.items() if module not in unused}


def _from_flags(flags: Mapping[str, Any], cwd: Path) -> dict[str, _Said]:
    return {
        name: _Said(list(raw) if isinstance(raw, tuple) else raw, _flag_label(BY_NAME[name]), cwd)
        for name, raw in flags.items()
        if raw is not None and raw != ()
    }


def _flag_label(option: Option) -> str:
    return option.flag or option.metavar


def _from_environ(environ: Mapping[str, str], cwd: Path) -> dict[str, _Said]:
    known = {option.env: option.name for option in OPTIONS if option.env}
    said = {}
    for env, text in environ.items():
        if not env.startswith(ENV_PREFIX) or _FOREIGN_ENV.fullmatch(env, len(ENV_PREFIX)):
            continue
        if env not in known:
            raise ConfigError(env, text, no_such(env, known))
        if text:
            said[known[env]] = _Said(text, env, cwd)
    return said


def _from_file(file: Path | None, cwd: Path) -> dict[str, _Said]:
    path = cwd / (file or DEFAULT_FILE)
    if file is None and not path.exists():
        return {}
    shown = str(file or DEFAULT_FILE)
    said = {}
    for key, raw in _parse_toml(path, shown).items():
        if key not in BY_NAME:
            raise ConfigError(f"{shown}: {key}", raw, no_such(key, BY_NAME))
        said[key] = _Said(raw, f"{shown}: {key}", path.absolute().parent)
    return said


def _parse_toml(path: Path, shown: str) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
        return tomllib.loads(text)
    except OSError as exc:
        raise ConfigError("config file", shown, f"cannot be read: {exc.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigError("config file", shown, "must be UTF-8 text") from None
    except tomllib.TOMLDecodeError as exc:
        raise ConfigError("config file", shown, f"must be TOML: {exc}") from None
