"""`Settings`: what a server can be told; its fields are the table of options."""

# ruff: noqa: RUF009 (`_option` returns a dataclass field, like `field` itself)

from __future__ import annotations

import copy
import dataclasses
import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from mpmsgr.config import kinds
from mpmsgr.config.kinds import KIB, MIB, U32_MAX
from mpmsgr.config.policies import POLICY_FIELDS, PolicyTables
from mpmsgr.errors import ConfigError
from mpmsgr.logs import FORMATS
from mpmsgr.session.inject import Injection
from mpmsgr.session.policy import PRESETS

ENV_PREFIX = "MPMSGR_"
AUTO = "auto"


@dataclass(frozen=True)
class Option:
    """One row of the table.

    name: the field of `Settings` and the TOML key. flag: the command line's spelling, "" if it has
    none. unset: what stands for a value nobody gave, where it is not `default` (``auto``). by_name:
    the entity name decides when nothing is said (see `resolve_ways`). live: a reload gives a
    running server a new value; of_workers: if it has workers (see `take_over`).
    """

    kind: kinds.Kind
    default: Any
    help: str
    flag: str = ""
    metavar: str = ""
    repeats: bool = False
    unset: str = ""
    by_name: str = ""
    live: bool = False
    of_workers: bool = False
    name: str = ""

    @property
    def env(self) -> str:
        """Its name in the environment, "" if no text can hold its value."""
        return (
            ""
            if isinstance(self.kind, (kinds.Tables, kinds.Faults))
            else ENV_PREFIX + self.name.upper()
        )

    @property
    def shown_default(self) -> str:
        """What holds when nothing is said, as text; "" for nothing."""
        if self.by_name:
            return f"by name: {self.by_name}"
        if self.unset or self.default in (None, [], {}):
            return self.unset
        return self.kind.show(self.default)

    def read(self, raw: Any, label: str) -> Any:
        """The value of *raw*. Raises ConfigError naming *label*, the value and what is allowed."""
        if raw is None and self.default is None:
            return None
        try:
            return self.kind.read(raw)
        except ValueError as exc:
            raise ConfigError(label, raw, str(exc)) from None


def _option(default: Any, kind: kinds.Kind, help_: str, flag: str = "", **more: Any) -> Any:
    row = Option(kind, default, help_, flag, **more)
    return field(default_factory=lambda: copy.deepcopy(default), metadata={"option": row})


@dataclass(frozen=True)
class Settings:
    """Everything a server can be told, checked: durations in seconds, sizes in bytes.

    Raises ConfigError for a value that is not allowed, by itself or together with another.
    """

    bind: list[str] = _option(
        ["127.0.0.1:6800-7300"],
        kinds.Binds(note="HOST:PORT, HOST an IPv4 address, [IPv6] or a name, PORT a number or A-B"),
        "Listen here; port 0 picks a free one, A-B the first free one of a range.",
        "--bind",
        metavar="HOST:PORT",
        repeats=True,
    )
    advertise: str | None = _option(
        None,
        kinds.Address(note="HOST:PORT, HOST an IPv4 address or [IPv6], PORT from 1 to 65535"),
        "Address announced to peers, where they reach this server through NAT or a port map.",
        "--advertise",
        metavar="HOST:PORT",
    )
    workers: int = _option(
        1,
        kinds.Workers(),
        "Worker processes; auto: one per CPU this container may use; 0: handlers run in the"
        " I/O process, where breakpoints work.",
        "--workers",
        metavar="N|auto",
        unset=AUTO,
        of_workers=True,
    )
    name: str = _option(
        "svc.0",
        kinds.Name(),
        "Entity name of this server; a Ceph name (mon.0, osd.3) takes Ceph's ways.",
        "--name",
        metavar="NAME",
    )
    nonce: int | None = _option(
        None,
        kinds.Whole(high=U32_MAX),
        "Number that tells this server from an earlier one at its address.",
        "--nonce",
        metavar="N",
        by_name="0 for mon, else random",
    )
    auth: str | None = _option(
        None,
        kinds.Choice(words=("none",)),
        "Who may connect: none lets anyone in. Must be said to listen off loopback.",
        "--auth",
        metavar="none",
    )
    app_dir: str = _option(
        ".",
        kinds.Folder(exists=True),
        "Directory modules are found in.",
        "--app-dir",
        metavar="DIR",
        of_workers=True,
    )
    run_dir: str | None = _option(
        None,
        kinds.Folder(),
        "Private directory for sockets while running; default: one under the temporary directory.",
        "--run-dir",
        metavar="DIR",
    )
    log_level: str = _option(
        "info",
        kinds.Choice(words=("debug", "info", "warning", "error")),
        "Least severe log lines that are written.",
        "--log-level",
        metavar="LEVEL",
        live=True,
    )
    log_file: str | None = _option(
        None,
        kinds.File(),
        "File that log lines are appended to, instead of stderr; USR1 opens it anew.",
        "--log-file",
        metavar="FILE",
    )
    log_format: str = _option(
        "text",
        kinds.Choice(words=FORMATS),
        "Log lines for people, or one JSON object each.",
        "--log-format",
        metavar="text|json",
    )
    metrics_bind: str | None = _option(
        None,
        kinds.Endpoint(note="HOST:PORT, HOST an IPv4 address, [IPv6] or a name; or PORT alone"),
        "Serve /metrics, /livez, /readyz and /healthz here by HTTP; PORT alone is on loopback."
        " Needs the extra `metrics`.",
        "--metrics-bind",
        metavar="HOST:PORT",
    )
    graceful_timeout_s: float = _option(
        30.0,
        kinds.Seconds(),
        "How long a stop waits for messages in work and for the acks of replies.",
        "--graceful-timeout",
        metavar="S",
        live=True,
    )
    modules: list[str] = _option(
        [],
        kinds.Modules(note="MODULE or MODULE:ATTR, such as counter or workers.echo:Echo"),
        "Dispatcher modules, in the order messages are offered to them.",
        metavar="MODULE[:ATTR]",
        repeats=True,
        of_workers=True,
    )
    io_modules: list[str] = _option(
        [],
        kinds.Modules(note="MODULE or MODULE:ATTR"),
        "Dispatcher modules of the I/O process, for fast dispatch and authorizers: their code holds"
        " up all peers, so it must be quick and must not block.",
        "--io-module",
        metavar="MODULE[:ATTR]",
        repeats=True,
    )
    fast_budget_s: float = _option(
        0.001,
        kinds.Seconds(),
        "A callback of an I/O module that takes longer is counted and logged; 0: none is.",
        live=True,
    )
    options: dict[str, dict[str, Any]] = _option(
        {},
        kinds.Tables(note='tables such as [options."workers.echo:Echo"], one per module'),
        "Per module, the keyword arguments of its dispatcher class or on_start.",
        of_workers=True,
    )
    policy: dict[str, dict[str, Any]] = _option(
        {},
        PolicyTables(
            note="tables such as [policy.client] with preset = "
            + kinds.one_of(tuple(PRESETS))
            + ", and of "
            + ", ".join(POLICY_FIELDS)
        ),
        "Per peer type (or default), its session policy: see mpmsgr.session.policy.Policy.",
        by_name="stateful_server for svc, Ceph's for Ceph's names",
    )
    inject: dict[str, Any] = _option(
        {},
        kinds.Faults(note="a table [inject] of " + ", ".join(f.name for f in fields(Injection))),
        "Faults on purpose, for tests: see mpmsgr.session.inject.Injection.",
    )
    features: int | None = _option(
        None,
        kinds.Whole(),
        "Feature bits offered to peers.",
        by_name="what this messenger acts on for svc, all of Ceph 16.2 for and towards Ceph",
    )
    required_features: int = _option(0, kinds.Whole(), "Feature bits a peer must offer.")
    send_priority: int | None = _option(
        None,
        kinds.Whole(low=1, high=0xFFFF),
        "Priority of what is sent and names none; a reply has that of its request.",
        by_name="196 for mon, else 127",
    )
    protocol_version: int = _option(
        0,
        kinds.Whole(high=U32_MAX),
        "Protocol number both sides must name; 0: by their entity types (mon 15, osd 24, mds 32;"
        " among themselves 13, 10, 35; else 0).",
    )
    keepalive_period_s: float | None = _option(
        None,
        kinds.Seconds(),
        "Silence after which a peer is sent a keepalive; 0: never.",
        by_name="10 for svc, 0 for Ceph's names",
    )
    keepalive_timeout_s: float | None = _option(
        None,
        kinds.Seconds(),
        "Silence that counts as a lost connection where keepalives are sent; 0: never.",
        by_name="30 for svc, 0 for Ceph's names",
    )
    handshake_timeout_s: float = _option(
        10.0,
        kinds.Seconds(low=0.1),
        "A connection not open after this is closed.",
        live=True,
    )
    idle_timeout_s: float = _option(
        900.0, kinds.Seconds(), "A connection silent for this long is lost; 0: never."
    )
    standby_timeout_s: float = _option(
        300.0, kinds.Seconds(), "A session without a connection ends after this; 0: never."
    )
    max_sessions: int = _option(
        0,
        kinds.Whole(),
        "Sessions, with or without a connection, above which new peers are refused; 0: no limit.",
        "--max-sessions",
        metavar="N",
        live=True,
    )
    max_front_bytes: int = _option(
        16 * MIB, kinds.Size(high=U32_MAX), "Longest front accepted from a peer."
    )
    max_middle_bytes: int = _option(
        16 * MIB, kinds.Size(high=U32_MAX), "Longest middle accepted from a peer."
    )
    max_data_bytes: int = _option(
        64 * MIB, kinds.Size(high=U32_MAX), "Longest data accepted from a peer."
    )
    max_authorizer_bytes: int = _option(
        4096, kinds.Size(high=MIB), "Longest authorizer accepted from a peer."
    )
    worker_credit: int = _option(
        1024, kinds.Whole(low=1, high=2000), "Messages one worker holds at a time."
    )
    dispatch_bytes: int = _option(
        100 * MIB,
        kinds.Size(low=1),
        "Bytes of messages in work at once; reading pauses above. An eighth is left to peers whose"
        " policy is urgent, if there are any.",
        live=True,
    )
    arena_bytes: int = _option(
        64 * MIB,
        kinds.Size(),
        "Shared memory that large payloads are received into; 0: no shared memory at all.",
    )
    worker_arena_bytes: int = _option(
        32 * MIB,
        kinds.Size(low=4 * KIB),
        "Per worker, shared memory for the large payloads it sends.",
    )
    ring_bytes: int = _option(
        2 * MIB,
        kinds.Size(low=4 * KIB),
        "Per worker and direction, shared memory that batches travel through.",
    )
    arena_threshold_bytes: int = _option(
        64 * KIB, kinds.Size(), "Payloads longer than this go to an arena of their own."
    )
    lease_max_age_s: float = _option(
        300.0,
        kinds.Seconds(),
        "A worker that keeps a received payload for this long is replaced; 0: never.",
        live=True,
    )
    max_attempts: int = _option(
        3,
        kinds.Whole(high=U32_MAX),
        "Deaths of workers after which the message they were running is quarantined; 0: never.",
        "--max-attempts",
        metavar="N",
        live=True,
    )
    quarantine_dir: str | None = _option(
        None,
        kinds.Folder(),
        "Directory quarantined messages are kept in; without it they are only answered.",
        "--quarantine-dir",
        metavar="DIR",
    )
    quarantine_bytes: int = _option(
        64 * MIB, kinds.Size(low=1), "Quarantined messages that are kept, altogether."
    )
    state_bytes: int = _option(
        64 * KIB, kinds.Size(low=1), "Longest state of a session or key, encoded.", of_workers=True
    )
    held_bytes: int = _option(
        128 * MIB,
        kinds.Size(low=1),
        "What one handler may send before it completes.",
        of_workers=True,
    )

    reload: bool = _option(
        False,
        kinds.Switch(),
        "Reload when a Python or TOML file below app_dir changes, for development; needs the extra"
        " mpmsgr[reload].",
        "--reload",
    )
    max_messages: int = _option(
        0,
        kinds.Whole(),
        "Messages after which a worker is replaced, or up to a tenth earlier; 0: never.",
        "--max-messages",
        metavar="N",
        live=True,
    )
    max_lifetime_s: float = _option(
        0.0,
        kinds.Seconds(),
        "Age at which a worker is replaced, or up to a tenth earlier; 0: never.",
        "--max-lifetime",
        metavar="S",
        live=True,
    )
    max_rss_bytes: int = _option(
        0,
        kinds.Size(),
        "Resident memory of its own above which a worker is replaced, or up to a tenth below; at"
        " least what it had when it was ready and 32 MiB; 0: never.",
        "--max-rss",
        metavar="SIZE",
        live=True,
    )
    cpu_affinity: str = _option(
        "none",
        kinds.Cpus(),
        "CPUs that workers are bound to, one each, taking turns; auto: those we may use.",
        "--cpu-affinity",
        metavar="auto|none|LIST",
        live=True,
    )

    def __post_init__(self) -> None:
        """Read every field by its kind, then check fields against each other."""
        for option in OPTIONS:
            value = option.read(getattr(self, option.name), option.name)
            object.__setattr__(self, option.name, value)
        self._check_loopback()
        self._check_options()
        self._check_keepalive()
        if self.reload and not self.workers:
            raise ConfigError(
                "reload", True, "renews workers, there are none: handlers run in the I/O process"
            )

    def _check_loopback(self) -> None:
        for bind in self.bind:
            if self.auth is None and not kinds.is_loopback(bind):
                raise ConfigError(
                    "bind",
                    bind,
                    "is reachable from other hosts, so --auth must be said: none, the only"
                    " value now, lets anyone connect",
                )

    def _check_options(self) -> None:
        served = self.modules + self.io_modules
        for module in self.options:
            if self.modules and module not in served:
                raise ConfigError(
                    f'[options."{module}"]', self.options[module], no_such(module, served)
                )

    def _check_keepalive(self) -> None:
        period, timeout = self.keepalive_period_s, self.keepalive_timeout_s
        if period and timeout and timeout <= period:
            raise ConfigError(
                "keepalive_timeout_s", timeout, f"must exceed keepalive_period_s, {period:g}"
            )

    def options_of(self, modules: Iterable[str]) -> dict[str, dict[str, Any]]:
        """Of `options`, those of *modules*."""
        return {name: self.options[name] for name in modules if name in self.options}

    def as_dict(self) -> dict[str, Any]:
        """Every field as plain values (what msgpack and JSON carry)."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Settings:
        """The record of what `as_dict` returned; missing fields take their default.

        Raises ConfigError for an unknown key, naming the nearest known one.
        """
        for key in values:
            if key not in BY_NAME:
                raise ConfigError(key, values[key], no_such(key, BY_NAME))
        return cls(**values)


def no_such(name: str, known: Iterable[str]) -> str:
    """What is wrong with an unknown *name*: it, and the nearest of the *known* ones."""
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.0)
    return f"is unknown, the nearest known name is {near[0]}" if near else "is unknown"


OPTIONS: tuple[Option, ...] = tuple(
    dataclasses.replace(f.metadata["option"], name=f.name) for f in fields(Settings)
)
BY_NAME: dict[str, Option] = {option.name: option for option in OPTIONS}
