"""serve, load, version: what reaches the code behind them, and what comes back."""

from __future__ import annotations

import json
import runpy
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import mpmsgr
from mpmsgr import load, supervisor
from mpmsgr.cli.exit_codes import ExitCode
from mpmsgr.cli.main import run
from mpmsgr.config import OPTIONS, Settings
from mpmsgr.errors import ConnectError, PluginError
from mpmsgr.load import LoadPlan, LoadReport, Progress
from mpmsgr.load.verify import Tally

SCRIPTS = Path(__file__).parents[2] / "scripts"


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[Settings]:
    """Settings the supervisor was given; it ends with 0."""
    seen: list[Settings] = []
    monkeypatch.chdir(tmp_path)

    def note(settings: Settings, *, reread: Callable[[], Settings], origins: dict[str, str]) -> int:
        seen.append(settings)
        assert reread() == settings
        return 0

    monkeypatch.setattr(supervisor, "run", note)
    return seen


# serve


def test_every_flag_reaches_its_setting(served: list[Settings], tmp_path: Path) -> None:
    line = (
        "serve --bind 127.0.0.1:0 --bind [::1]:6800-6810 --advertise 192.0.2.1:6800 --workers 0"
        " --name mon.0 --nonce 7 --auth none --app-dir . --run-dir r --log-level debug"
        " --log-format json --log-file log --metrics-bind [::1]:9 --graceful-timeout 1.5"
        " --max-messages 9 --max-lifetime 60 --max-rss 1GiB --cpu-affinity 0"
        " --io-module d --io-module e:F --max-attempts 5 --quarantine-dir q a b:C"
    )
    assert run(line.split()) == 0
    (settings,) = served
    assert settings == Settings(
        bind=["127.0.0.1:0", "[::1]:6800-6810"],
        advertise="192.0.2.1:6800",
        workers=0,
        name="mon.0",
        nonce=7,
        auth="none",
        app_dir=str(tmp_path),
        run_dir=str(tmp_path / "r"),
        log_level="debug",
        log_format="json",
        log_file=str(tmp_path / "log"),
        metrics_bind="[::1]:9",
        graceful_timeout_s=1.5,
        max_messages=9,
        max_lifetime_s=60.0,
        max_rss_bytes=1 << 30,
        cpu_affinity="0",
        max_attempts=5,
        quarantine_dir=str(tmp_path / "q"),
        modules=["a", "b:C"],
        io_modules=["d", "e:F"],
    )


def test_a_switch_is_a_flag_without_a_value(served: list[Settings], tmp_path: Path) -> None:
    (tmp_path / "mpmsgr.toml").write_text("reload = true\n")
    assert run(["serve", "--workers", "1", "a"]) == 0
    (tmp_path / "mpmsgr.toml").unlink()
    assert run(["serve", "--workers", "1", "a"]) == 0
    assert run(["serve", "--workers", "1", "--reload", "a"]) == 0
    assert [settings.reload for settings in served] == [True, False, True]


def test_serve_reads_its_file(served: list[Settings], tmp_path: Path) -> None:
    (tmp_path / "mpmsgr.toml").write_text('modules = ["a"]\nworkers = 2\n[options.a]\nn = 1\n')
    (tmp_path / "other.toml").write_text('modules = ["z"]\n')
    assert run(["serve", "--workers", "3"]) == 0
    assert run(["serve", "-c", "other.toml"]) == 0
    assert (served[0].modules, served[0].workers, served[0].options) == (["a"], 3, {"a": {"n": 1}})
    assert served[1].modules == ["z"]
    assert served[1].workers >= 1, "auto"


@pytest.mark.parametrize("code", list(supervisor.ExitCode))
def test_serve_ends_as_the_supervisor_does(
    served: list[Settings], monkeypatch: pytest.MonkeyPatch, code: supervisor.ExitCode
) -> None:
    monkeypatch.setattr(supervisor, "run", lambda settings, **_: int(code))
    expected = ExitCode.CRASH_LOOP if code is supervisor.ExitCode.CRASH_LOOP else int(code)
    assert run(["serve", "a"]) == expected


def test_a_plugin_that_cannot_be_loaded(
    served: list[Settings], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def fail(settings: Settings, **_: object) -> int:
        raise PluginError("a", "Traceback ...\n  line 1\nNameError: no b")

    monkeypatch.setattr(supervisor, "run", fail)
    assert run(["serve", "a"]) == ExitCode.PLUGIN
    assert capfd.readouterr().err.splitlines()[-1] == "mpmsgr serve: a: NameError: no b"


def test_help_shows_every_flag_of_the_table(capfd: pytest.CaptureFixture[str]) -> None:
    assert run(["serve", "--help"]) == 0
    shown = capfd.readouterr().out
    assert [o.flag for o in OPTIONS if o.flag and o.flag not in shown] == []


@pytest.mark.parametrize(("script", "verb"), [("supervisor", "serve"), ("loadtest", "load")])
def test_scripts_are_verbs(
    script: str,
    verb: str,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(sys, "argv", [script, "--help"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(SCRIPTS / script), run_name="__main__")
    assert ended.value.code == 0
    assert capfd.readouterr().out.startswith(f"Usage: mpmsgr {verb} ")


# load


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Plan and progress callback of each run; every request is answered."""
    seen: list[Any] = []

    def fake(plan: LoadPlan, progress: Callable[[Progress], None] | None = None) -> LoadReport:
        seen.append((plan, progress))
        if progress:
            progress(Progress(elapsed_s=1.0, fraction=0.5, sent=10, answered=5, errors=0))
        return LoadReport(plan, Tally(sent=10, answered=10), duration_s=2.0)

    monkeypatch.setattr(load, "run", fake)
    return seen


def test_load_makes_a_plan(loaded: list[Any], capfd: pytest.CaptureFixture[str]) -> None:
    line = (
        "load v1:gate:6800/7 --clients 20 --in-flight 4 --size 2KiB --duration 1.5 --type 0x8002"
        " --processes 2 --timeout 3"
    )
    assert run(line.split()) == 0
    ((plan, progress),) = loaded
    assert plan == LoadPlan(
        "gate:6800/7",
        clients=20,
        in_flight=4,
        size=2048,
        duration_s=1.5,
        type=0x8002,
        processes=2,
        connect_timeout_s=3.0,
        reply_timeout_s=3.0,
    )
    assert progress is None, "stderr is no terminal here"
    out, err = capfd.readouterr()
    assert "sent 10, answered 10" in out
    assert err == ""


def test_load_prints_json(loaded: list[Any], capfd: pytest.CaptureFixture[str]) -> None:
    assert run(["load", "gate:1", "--count", "10", "--json"]) == 0
    report = json.loads(capfd.readouterr().out)
    assert (report["sent"], report["violations"]) == (10, [])


def test_load_shows_progress_on_a_terminal(
    loaded: list[Any], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    assert run(["load", "gate:1", "--count", "10"]) == 0
    err = capfd.readouterr().err
    assert "5 answered" in err
    assert "100%" in err


def test_load_fails_on_a_violation(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    report = LoadReport(LoadPlan("gate:1", count=3), Tally(sent=3, answered=2, lost=1))
    monkeypatch.setattr(load, "run", lambda plan, progress=None: report)
    assert run(["load", "gate:1", "--count", "3"]) == ExitCode.FAILED
    assert capfd.readouterr().err == "mpmsgr load: 1 lost\n"


def test_load_without_a_server(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def refuse(plan: LoadPlan, progress: object = None) -> LoadReport:
        raise ConnectError(plan.address, 3, "refused")

    monkeypatch.setattr(load, "run", refuse)
    assert run(["load", "gate:1", "--count", "3"]) == ExitCode.NO_CONNECTION
    assert (
        capfd.readouterr().err == "mpmsgr load: no session with gate:1 after 3 attempts: refused\n"
    )


# version


@pytest.mark.parametrize("line", ["version", "--version"])
def test_version_is_one_line(line: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert run([line]) == 0
    assert capfd.readouterr().out == f"mpmsgr {mpmsgr.__version__}\n"


def test_version_as_json(capfd: pytest.CaptureFixture[str]) -> None:
    assert run(["version", "--json"]) == 0
    details = json.loads(capfd.readouterr().out)
    assert details["mpmsgr"] == mpmsgr.__version__
    assert {"python", "platform", "pyzmq", "libzmq", "uvloop"} <= set(details)
