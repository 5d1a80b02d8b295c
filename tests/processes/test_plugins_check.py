"""`plugins check` and `serve --check-config`: modules are loaded in processes of their own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from mpmsgr.cli.exit_codes import ExitCode

MODULES = {
    "good": """
import os
from mpmsgr import handles

print("noise on stdout")
os.write(1, b"more of it")

@handles(0x8001, 0x8002)
def greet(con, m): ...
""",
    "classy": """
from mpmsgr import Dispatcher

class Classy(Dispatcher):
    message_types = {0x8003}

    def __init__(self, n=0):
        self.n = 10 // n
""",
    "twin": "from mpmsgr import handles\n@handles(0x8002)\ndef other(con, m): ...\n",
    "special": """
from mpmsgr import every, handles

@handles(0x8005, key=slice(0, 4), deadline=(1, 2.5), max_attempts=5)
def keyed(con, m): ...

@handles(0x8006, ordering="none", streaming=True)
def free(con, m): ...

@handles(0x8007, max_attempts=0)
def plain(con, m): ...

@every(30)
def tidy(service): ...
""",
    "broken": "import nothing_of_this_name\n",
    "leaves": "import os\nos._exit(7)\n",
    "crashes": "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)\n",
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, text in MODULES.items():
        (tmp_path / f"{name}.py").write_text(text)
    return tmp_path


def mpmsgr(folder: Path, line: str) -> subprocess.CompletedProcess[str]:
    environ = {k: v for k, v in os.environ.items() if not k.startswith("MPMSGR_")}
    return subprocess.run(
        [sys.executable, "-m", "mpmsgr", *line.split()],
        capture_output=True,
        text=True,
        cwd=folder,
        timeout=60,
        env=environ,
    )


def test_a_good_plugin(folder: Path) -> None:
    ran = mpmsgr(folder, "plugins check good")
    assert (ran.returncode, ran.stdout) == (
        0,
        "good: functions, takes 0x8001 greet, 0x8002 greet\n",
    )


def test_options_reach_the_class(folder: Path) -> None:
    (folder / "mpmsgr.toml").write_text('modules = ["classy"]\n[options.classy]\nn = 5\n')
    ran = mpmsgr(folder, "plugins check")
    assert (ran.returncode, ran.stdout) == (0, "classy: Classy, takes 0x8003\n")


def test_a_clash(folder: Path) -> None:
    ran = mpmsgr(folder, "plugins check good twin --json")
    assert ran.returncode == ExitCode.FAILED
    said = json.loads(ran.stdout)
    assert said["clashes"] == [
        "type 0x8002 is taken by good and twin, each of order 0: give them an order"
    ]
    assert [row["types"] for row in said["plugins"]] == [[0x8001, 0x8002], [0x8002]]


def test_how_types_are_handled(folder: Path) -> None:
    ran = mpmsgr(folder, "plugins check special")
    assert (ran.returncode, ran.stdout.splitlines()) == (
        0,
        [
            "special: functions, takes 0x8005 keyed, 0x8006 free, 0x8007 plain",
            "    0x8005: in order of front[0:4], stacks after 1 s, killed after 2.5 s,"
            " max_attempts 5",
            "    0x8006: in no order, streaming",
            "    0x8007: max_attempts without limit",
            "    special.tidy every 30 s",
        ],
    )
    (row,) = json.loads(mpmsgr(folder, "plugins check special --json").stdout)["plugins"]
    assert row["handling"]["32773"]["hard_s"] == 2.5
    assert row["every"] == {"special.tidy": 30.0}


@pytest.mark.parametrize(
    ("module", "why"),
    [
        ("broken", "No module named 'nothing_of_this_name'"),
        ("classy", "ZeroDivisionError"),
        ("leaves", "ended its process (exit 7) while it was loaded"),
        ("crashes", "ended its process (signal 9) while it was loaded"),
        ("nowhere", "there is no module 'nowhere' here"),
    ],
)
def test_what_cannot_be_loaded(folder: Path, module: str, why: str) -> None:
    ran = mpmsgr(folder, f"plugins check good {module}")
    assert (ran.returncode, why in ran.stdout) == (ExitCode.PLUGIN, True)
    assert ran.stdout.startswith("good: functions"), "the others are checked all the same"


def test_a_configuration_whose_modules_cannot_be_loaded(folder: Path) -> None:
    ran = mpmsgr(folder, "serve --check-config good broken")
    assert (ran.returncode, "nothing_of_this_name" in ran.stderr) == (ExitCode.PLUGIN, True)


def test_a_configuration_whose_modules_take_the_same_type(folder: Path) -> None:
    ran = mpmsgr(folder, "serve --check-config good twin")
    assert (ran.returncode, "give them an order" in ran.stderr) == (ExitCode.PLUGIN, True)


def test_a_configuration_that_is_good(folder: Path) -> None:
    ran = mpmsgr(folder, "serve --check-config --print-config good --workers 2")
    assert (ran.returncode, "workers = 2  # --workers" in ran.stdout) == (0, True)
    assert "the configuration is good" in ran.stderr
