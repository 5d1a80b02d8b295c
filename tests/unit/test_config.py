"""Settings: one table, four sources in order, errors under the name the user wrote."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import msgpack
import pytest

from mpmsgr.config import OPTIONS, Settings, load_settings, resolve_ways
from mpmsgr.config.reference import reference_page
from mpmsgr.errors import ConfigError
from mpmsgr.session.policy import STATELESS_SERVER
from mpmsgr.wire.features import CEPH_PACIFIC, SUPPORTED
from mpmsgr.wire.name import EntityName, EntityType

REPOSITORY = Path(__file__).parents[2]


def load(
    tmp_path: Path,
    toml: str | None = None,
    env: dict[str, str] | None = None,
    **flags: Any,
) -> Settings:
    if toml is not None:
        (tmp_path / "mpmsgr.toml").write_text(toml, encoding="utf-8")
    return load_settings(flags, env or {}, None, auto_workers=lambda: 3, cwd=tmp_path)


# the table


def test_every_field_is_an_option() -> None:
    assert [o.name for o in OPTIONS] == [f.name for f in dataclasses.fields(Settings)]
    assert len({o.flag for o in OPTIONS if o.flag}) == sum(bool(o.flag) for o in OPTIONS)


def test_every_default_is_allowed() -> None:
    settings = Settings()
    for option in OPTIONS:
        assert option.read(getattr(settings, option.name), option.name) == getattr(
            settings, option.name
        )


def test_reference_page_in_docs_is_the_table() -> None:
    written = (REPOSITORY / "docs/reference-options.md").read_text(encoding="utf-8")
    assert written == reference_page(), "run: python -m mpmsgr.config > docs/reference-options.md"


def test_roundtrip_through_msgpack() -> None:
    settings = Settings(
        bind=["[::1]:0"], name="mon.0", modules=["a:B"], options={"a:B": {"n": 1}}, nonce=7
    )
    assert Settings.from_dict(msgpack.unpackb(msgpack.packb(settings.as_dict()))) == settings


def test_from_dict_names_the_nearest_key() -> None:
    with pytest.raises(ConfigError, match=r"worker_credits = 3: is unknown.*worker_credit"):
        Settings.from_dict({"worker_credits": 3})


def test_settings_are_frozen_and_defaults_are_not_shared() -> None:
    Settings().modules.append("x")
    assert Settings().modules == []
    with pytest.raises(dataclasses.FrozenInstanceError):
        Settings().workers = 2  # type: ignore[misc]


# sources


def test_defaults(tmp_path: Path) -> None:
    settings = load(tmp_path)
    assert settings.bind == ["127.0.0.1:6800-7300"]
    assert settings.workers == 3, "auto is the default"
    assert settings.app_dir == str(tmp_path)
    assert settings.nonce is None


def test_order_of_sources(tmp_path: Path) -> None:
    toml = "workers = 1\nname = 'svc.1'\nlog_level = 'error'\nnonce = 5\n"
    env = {"MPMSGR_WORKERS": "2", "MPMSGR_NAME": "svc.2", "MPMSGR_NONCE": "", "OTHER": "x"}
    settings = load(tmp_path, toml, env, workers="auto", name=None, modules=())
    assert (settings.workers, settings.name, settings.log_level, settings.nonce) == (
        3,
        "svc.2",
        "error",
        5,
    )


def test_lists_from_everywhere(tmp_path: Path) -> None:
    assert load(tmp_path, "modules = ['a', 'b:C']").modules == ["a", "b:C"]
    assert load(tmp_path, "modules = 'a'").modules == ["a"]
    assert load(tmp_path, "", {"MPMSGR_MODULES": "a, b"}).modules == ["a", "b"]
    assert load(tmp_path, "", {}, modules=("z",)).modules == ["z"]


def test_relative_paths_start_where_they_are_written(tmp_path: Path) -> None:
    (tmp_path / "conf/app").mkdir(parents=True)
    (tmp_path / "conf/my.toml").write_text("app_dir = 'app'\nrun_dir = '/tmp/r'\n")
    settings = load_settings({}, {}, Path("conf/my.toml"), auto_workers=lambda: 1, cwd=tmp_path)
    assert settings.app_dir == str(tmp_path / "conf/app")
    assert settings.run_dir == "/tmp/r"
    assert load(tmp_path, "", {}, app_dir="conf").app_dir == str(tmp_path / "conf")


def test_foreign_environment_is_left_alone(tmp_path: Path) -> None:
    kubernetes = {
        "MPMSGR_SERVICE_HOST": "10.0.0.1",
        "MPMSGR_PORT": "tcp://10.0.0.1:6800",
        "MPMSGR_PORT_6800_TCP_ADDR": "10.0.0.1",
        "MPMSGR_SUPERVISOR_PID": "12",
    }
    assert load(tmp_path, "", kubernetes).bind == ["127.0.0.1:6800-7300"]


@pytest.mark.parametrize(
    ("toml", "env", "flags", "said"),
    [
        ("wrokers = 4", {}, {}, "mpmsgr.toml: wrokers = 4: is unknown, .* is workers"),
        ("workers = -1", {}, {}, "mpmsgr.toml: workers = -1: must be a whole number .* or auto"),
        ("workers = 1.5", {}, {}, "workers = 1.5: must be"),
        ("workers = ", {}, {}, r"must be TOML: Invalid value \(at .*\)"),
        ("app_dir = 'gone'", {}, {}, "mpmsgr.toml: app_dir = 'gone': must be a directory"),
        ("[policy.client]\npreset = 'x'", {}, {}, "policy = .*stateful_server"),
        ("", {"MPMSGR_WORKER": "4"}, {}, "MPMSGR_WORKER = '4': is unknown, .* MPMSGR_WORKERS"),
        ("", {"MPMSGR_LOG_LEVEL": "x"}, {}, "MPMSGR_LOG_LEVEL = 'x': must be one of debug"),
        ("", {}, {"log_level": "x"}, "--log-level = 'x': must be one of debug, info"),
        ("", {}, {"graceful_timeout_s": "-1"}, "--graceful-timeout = '-1': must be seconds"),
        ("", {}, {"modules": ("a b",)}, "MODULE.* = .*'a b' must be MODULE or MODULE:ATTR"),
        ("", {}, {"bind": ("0.0.0.0:1",)}, "bind = '0.0.0.0:1': .*--auth must be said"),
        ("", {}, {"auth": "cephx"}, "--auth = 'cephx': must be none"),
        (
            "keepalive_period_s = 9\nkeepalive_timeout_s = 5",
            {},
            {},
            "keepalive_timeout_s = 5.0: must exceed keepalive_period_s, 9",
        ),
        (
            "modules = ['counter']\n[options.conter]\nn = 1",
            {},
            {},
            "conter.*is unknown, .* is counter",
        ),
    ],
)
def test_errors_name_what_was_written(
    tmp_path: Path, toml: str, env: dict[str, str], flags: dict[str, Any], said: str
) -> None:
    with pytest.raises(ConfigError, match=said) as caught:
        load(tmp_path, toml, env, **flags)
    assert "\n" not in str(caught.value)


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    for name, said in (("gone.toml", "No such file"), (".", "Is a directory")):
        with pytest.raises(ConfigError, match=f"config file = '{name}'.*{said}"):
            load_settings({}, {}, Path(name), auto_workers=lambda: 1, cwd=tmp_path)
    (tmp_path / "latin.toml").write_bytes(b"name = '\xe4'")
    with pytest.raises(ConfigError, match="must be UTF-8 text"):
        load_settings({}, {}, Path("latin.toml"), auto_workers=lambda: 1, cwd=tmp_path)


def test_off_loopback_with_auth_said(tmp_path: Path) -> None:
    assert load(tmp_path, "", {}, bind=("0.0.0.0:0",), auth="none").auth == "none"


def test_options_of_modules_that_flags_replaced_are_dropped(tmp_path: Path) -> None:
    toml = "modules = ['a', 'b']\n[options.a]\nn = 1\n[options.b]\nn = 2\n"
    assert load(tmp_path, toml).options == {"a": {"n": 1}, "b": {"n": 2}}
    assert load(tmp_path, toml, {}, modules=("b",)).options == {"b": {"n": 2}}


# what the name decides


def test_a_service_has_its_own_ways() -> None:
    ways = resolve_ways(Settings(), 77)
    assert (ways.name, ways.nonce) == (EntityName(EntityType.SERVICE, 0), 77)
    client = ways.policies.of(EntityType.CLIENT)
    assert client.server
    assert not client.lossy
    assert client.features_supported == SUPPORTED
    assert client.keepalive_period_s > 0


def test_a_monitor_has_cephs_ways() -> None:
    ways = resolve_ways(Settings(name="mon.0"), 77)
    client = ways.policies.of(EntityType.CLIENT)
    assert ways.nonce == 0
    assert client.features_supported == CEPH_PACIFIC
    assert (client.lossy, client.server) == (STATELESS_SERVER.lossy, STATELESS_SERVER.server)
    assert client.keepalive_period_s == 0


def test_an_osd_has_a_nonce_of_its_own() -> None:
    assert resolve_ways(Settings(name="osd.3"), 77).nonce == 77


def test_each_way_can_be_said() -> None:
    settings = Settings(
        name="mon.0",
        nonce=5,
        features=0x42,
        required_features=2,
        protocol_version=9,
        keepalive_period_s=1,
        idle_timeout_s=3,
        max_front_bytes=10,
        handshake_timeout_s=2,
        policy={"client": {"preset": "stateful_server"}, "default": {"preset": "lossy_client"}},
    )
    ways = resolve_ways(settings, 77)
    client, osd = ways.policies.of(EntityType.CLIENT), ways.policies.of(EntityType.OSD)
    assert (ways.nonce, ways.protocol_version) == (5, 9)
    assert (client.features_supported, client.features_required) == (0x42, 2)
    assert (client.keepalive_period_s, client.idle_timeout_s) == (1.0, 3.0)
    assert (client.lossy, client.server, osd.lossy, osd.server) == (False, True, True, False)
    assert ways.policies.of(EntityType.MON).standby, "others keep their own"
    assert (ways.limits.max_front, ways.timing.handshake_timeout_s) == (10, 2.0)
