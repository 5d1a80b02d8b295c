"""Wrong use: exit 2, one line on stderr that says what is wrong and what is allowed."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from mpmsgr.cli.exit_codes import ExitCode, exit_code_of, reference_page
from mpmsgr.cli.main import VERBS, run
from mpmsgr.errors import ConfigError, ConnectError, MessengerError, PluginError, RequestTimeout

REPOSITORY = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("", "a verb is missing, one of serve, new, ping, send, load, status"),
        ("sevre x", "'sevre' is no verb, the nearest is serve; verbs: serve, new"),
        ("--versoin", "no such option --versoin, the nearest is --version; usage: mpmsgr"),
        ("serve", "must name at least one dispatcher module"),
        ("serve --wrkers 4 a", "no such option --wrkers, the nearest is --workers; usage"),
        ("serve --workers", "option '--workers' requires an argument"),
        ("serve --workers x a", "--workers = 'x': must be a whole number from 0 to 1024, or auto"),
        ("serve --bind 127.0.0.1 a", "--bind = .* must be HOST:PORT"),
        ("serve --bind 0.0.0.0:1 a", "bind = '0.0.0.0:1': .* --auth must be said: none"),
        ("serve --bind 0.0.0.0:1 --auth cephx a", "--auth = 'cephx': must be none"),
        ("serve --name foo.1 a", "--name = 'foo.1': must be TYPE.NUMBER .* one of mon, mds"),
        ("serve --check-config --cpu-affinity 4095 a", "cpu_affinity = .* is none of ours: "),
        ("serve --nonce -1 a", r"--nonce = '-1': .* from 0 to 2\^32-1"),
        ("serve --advertise gate a", "--advertise = 'gate': must be HOST:PORT"),
        ("serve --app-dir /nowhere a", "--app-dir = '/nowhere': must be a directory that exists"),
        ("serve --log-level loud a", "--log-level = 'loud': must be one of debug, info, warning"),
        ("serve --graceful-timeout soon a", "--graceful-timeout = 'soon': must be seconds"),
        ("serve -c none.toml a", "config file = 'none.toml': cannot be read: No such file"),
        ("serve --log-format xml a", "--log-format = 'xml': must be text or json"),
        ("serve --log-file . a", "--log-file = '.': must be a file, not a directory"),
        ("serve --metrics-bind gate a", "--metrics-bind = 'gate': must be HOST:PORT, HOST an IPv4"),
        ("serve --metrics-bind gate:1-2 a", "--metrics-bind = 'gate:1-2': must be HOST:PORT"),
        ("config", "missing command"),
        ("config shwo", "'shwo' is no verb, the nearest is show; verbs: show, get, diff, set"),
        ("config get", "NAME is missing"),
        ("config get wrokers", "NAME = 'wrokers': is unknown, the nearest known name is workers"),
        ("config set dispatch_bytes 0", "dispatch_bytes = '0': must be bytes from 1 to"),
        ("log level loud", "LEVEL = 'loud': must be one of debug, info, warning, error"),
        ("kick all", "SESSION = 'all': must be a whole number"),
        ("scale 0", "N = '0': must be a whole number from 1 to 1024"),
        ("scale -1", "no such option -1; options: --run-dir, --config, .*--help; usage: .* N"),
        ("sessions --sort colour", "--sort = 'colour': must be one of outbox, traffic, silence"),
        ("sessions --limit 0", "--limit = '0': must be a whole number from 1"),
        ("sessions --peer-type x", "--peer-type = 'x': must be one of mon, mds, osd"),
        ("top --sessions 0", "--sessions = '0': must be a whole number from 1 to 100"),
        ("top --width 39", "--width = '39': must be a whole number from 40"),
        ("completion csh", "SHELL = 'csh': must be one of bash, zsh, fish"),
        ("plugins check", "must name at least one dispatcher module"),
        ("serve a/b.py", r"'a/b.py' must be MODULE or MODULE:ATTR"),
        ("new", "NAME is missing; usage: mpmsgr new"),
        ("new a-b", "NAME = 'a-b': must be a Python module's name"),
        ("new class", "NAME = 'class': must be a Python module's name"),
        ("new json", "NAME = 'json': must not be the name of a module that Python has already"),
        ("new click", "NAME = 'click': must not be the name"),
        ("new a b", "got unexpected extra argument"),
        ("ping", "ADDR is missing; usage: mpmsgr ping"),
        ("ping gate", "ADDR = 'gate': must be HOST:PORT or HOST:PORT/NONCE"),
        ("ping gate:0", "ADDR = 'gate:0': must be HOST:PORT"),
        ("ping gate:70000", "ADDR = 'gate:70000': port '70000' must be a number below 65536"),
        ("ping gate:1/x", "nonce 'x' must be a number"),
        ("ping ::1:6800", r"IPv6 must be written \[ip\]:port"),
        ("ping v2:gate:1", "is an address of protocol v2, only v1 is spoken here"),
        ("ping gate:1 --peer-type x", "--peer-type = 'x': must be one of mon, mds, osd"),
        ("ping gate:1 --timeout 0", "--timeout = '0': must be seconds from 0.001"),
        ("send gate:1", "TYPE is missing; usage: mpmsgr send"),
        ("send gate:1 0x10000", "TYPE = '0x10000': must be 1 to 0xffff, or MODULE:CLASS"),
        ("send gate:1 0", "TYPE = '0': must be 1 to 0xffff"),
        ("send gate:1 Add", "TYPE = 'Add': must be a number, MODULE:CLASS or MODULE.CLASS"),
        ("send gate:1 json.dumps", "TYPE = 'json.dumps': must be a class with @message in json"),
        ("send gate:1 5 frnt=x", "frnt = 'x': is unknown, the nearest is front"),
        ("send gate:1 5 --data a --file b", "--file = 'b': must not be given together with --data"),
        ("send gate:1 5 --file /nowhere", "--file = '/nowhere': cannot be read: No such file"),
        ("load gate:1", "--count, --duration = 'neither': exactly one of them must be given"),
        ("load gate:1 --count 1 --duration 1", "'both': exactly one of them"),
        ("load gate:1 --count 0", "--count = '0': must be a whole number from 1"),
        ("load gate:1 --clients many --count 1", "--clients = 'many': must be a whole number"),
        ("load gate:1 --count 1 --size 17MiB", "--size = '17MiB': must be bytes from 0 to"),
        ("load gate:1 --duration -1", "--duration = '-1': must be seconds from"),
        ("load --count 1", "ADDR is missing"),
        ("version 3", "got unexpected extra argument"),
    ],
)
def test_one_line_and_exit_2(
    line: str,
    said: str,
    capfd: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", sys.path[:])
    assert run(line.split()) == ExitCode.USAGE
    out, err = capfd.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    verb = line.split()[0] if line.split() and line.split()[0] in VERBS else ""
    assert err.startswith(f"mpmsgr {verb}".strip() + ": ")
    assert re.search(said, err), err


@pytest.mark.parametrize("verb", ["", *VERBS])
def test_help_goes_to_stdout(verb: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert run([*verb.split(), "--help"]) == ExitCode.OK
    out, err = capfd.readouterr()
    assert out.startswith("Usage: mpmsgr")
    assert err == ""


def test_help_lists_the_verbs(capfd: pytest.CaptureFixture[str]) -> None:
    run(["-h"])
    listed = [line.split()[0] for line in capfd.readouterr().out.split("Verbs:\n")[1].splitlines()]
    assert listed == list(VERBS)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ConfigError("a", 1, "must be 2"), 2),
        (PluginError("m", "no"), 3),
        (ConnectError("gate:1", 2, "refused"), 5),
        (RequestTimeout("gate:1", 1, 2, 3.0, "open"), 6),
        (MessengerError("else"), 1),
    ],
)
def test_every_error_has_its_code(error: MessengerError, code: int) -> None:
    assert exit_code_of(error) == code


def test_exit_codes_page_in_docs_is_the_table() -> None:
    written = (REPOSITORY / "docs/reference-exit-codes.md").read_text(encoding="utf-8")
    assert written == reference_page(), (
        "run: python -m mpmsgr.cli.exit_codes > docs/reference-exit-codes.md"
    )


def test_interrupted(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    def interrupt(**flags: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("mpmsgr.cli.version.command.callback", interrupt)
    assert run(["version"]) == ExitCode.INTERRUPTED
    assert capfd.readouterr().err.strip() == "mpmsgr version: interrupted"
