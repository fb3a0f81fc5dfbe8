"""The keys of the configuration file: which there are, and the rule of each; tables in, `Settings` or every fault out.

The keys and their defaults are the fields of the dataclasses in `settings`; what a value may be is said by `READERS`,
one line for each key. A faulty key is never filled with a default: a file with one fault is refused whole.
`config` reads the file and calls this.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any

from . import values
from .faults import ConfigError, Refused, bare_or_quoted, must_be, nearest
from .settings import GROUPS, LEVELS, MAPPING_MODES, MIN_UID_OF_HOST, Settings, Timeouts
from .text import escape
from .values import Reader

LEVEL_VARIABLE = "BUILD_SERVICE_LOG_LEVEL"

MAX_PREFORK = 64
MAX_CONNECTIONS = 100_000
MAX_TIMEOUT_SEC = 7 * 24 * 3600
MAX_GRACE_SEC = 60
"""Below the 90 s that systemd lets a service stop before it kills it (DefaultTimeoutStopSec)."""

MIN_LOG_BYTES = 4096
MAX_LOG_BYTES = 1 << 40
MAX_LOG_FILES = 1000
MAX_UID = (1 << 32) - 2
"""The number after it means none (setuid(2))."""

HINTS = MappingProxyType(
    {"build.make_path": 'list it in build.commands instead: [build.commands] make = "/usr/bin/make"'}
)
"""Keys of earlier formats, and what took their place."""

DEFAULTS = Settings()

READERS: Mapping[str, Reader] = MappingProxyType(
    {
        "schema_version": values.read_schema_version,
        "service.socket_path": values.read_socket_path,
        "service.socket_group": values.read_socket_group,
        "service.socket_mode": values.read_octal_mode,
        "service.prefork": values.integer("processes", 0, MAX_PREFORK),
        "service.max_connections": values.integer("connections", 1, MAX_CONNECTIONS),
        "service.max_connections_per_user": values.integer("connections", 1, MAX_CONNECTIONS),
        "build.workspace_root": values.read_workspace_root,
        "build.commands": values.read_commands,
        "build.workspace_commands": values.read_workspace_commands,
        "build.groups": values.choice(*GROUPS),
        "build.min_uid": values.uid_or(MIN_UID_OF_HOST, MAX_UID),
        "build.no_new_privs": values.read_boolean,
        "build.timeouts.default_sec": values.integer("seconds", 1, MAX_TIMEOUT_SEC),
        "build.timeouts.max_sec": values.integer("seconds", 1, MAX_TIMEOUT_SEC),
        "build.timeouts.grace_sec": values.integer("seconds", 0, MAX_GRACE_SEC),
        "build.environment.allow": values.read_names,
        "build.environment.set": values.read_variables,
        "build.path_mapping.container_template": values.template(),
        "build.path_mapping.host_template": values.template("user", "home"),
        "build.path_mapping.mode": values.choice(*MAPPING_MODES),
        "logging.level": values.choice(*LEVELS),
        "logging.directory": values.read_log_directory,
        "logging.max_bytes": values.integer("bytes", MIN_LOG_BYTES, MAX_LOG_BYTES),
        "logging.max_files": values.integer("files", 1, MAX_LOG_FILES),
        "logging.console": values.read_boolean,
    }
)


def read(tables: Mapping[str, object], source: str, environ: Mapping[str, str], defaults: Settings) -> Settings:
    """Return the settings that `tables`, those of a TOML document, describe; what they do not name is as in `defaults`.

    `source` names the document in messages; `defaults` are not checked. A non-empty BUILD_SERVICE_LOG_LEVEL in
    `environ` takes the place of `logging.level`. Raises `ConfigError` with every fault, the variable's too.
    """
    faults: list[str] = []
    settings: Settings = _read_table(defaults, tables, "", faults)
    if not any(fault.startswith("build.timeouts.") for fault in faults):
        faults.extend(_faults_between(settings.build.timeouts))
    faults = [f"{escape(source)}: {fault}" for fault in faults]
    level = environ.get(LEVEL_VARIABLE)
    if level:
        try:
            settings = _with_level(settings, READERS["logging.level"](level))
        except Refused as exc:
            faults.extend(f"{LEVEL_VARIABLE}: {reason}" for _, reason in exc.faults)
    if faults:
        raise ConfigError(faults)
    return settings


def keys() -> tuple[str, ...]:
    """Return the dotted name of every key of the file, in the order of the settings."""
    return tuple(_keys(DEFAULTS, ""))


def _keys(section: Any, prefix: str) -> Iterator[str]:
    for name, value in _fields(section).items():
        if dataclasses.is_dataclass(value):
            yield from _keys(value, f"{prefix}{name}.")
        else:
            yield prefix + name


def _fields(section: Any) -> dict[str, object]:
    return {field.name: getattr(section, field.name) for field in dataclasses.fields(section)}


def _read_table(defaults: Any, table: Mapping[str, object], prefix: str, faults: list[str]) -> Any:
    """Return the dataclass `defaults` with what `table` says; append a line to `faults` for each refusal."""
    known = _fields(defaults)
    read_values: dict[str, Any] = {}
    for name, value in table.items():
        key = prefix + bare_or_quoted(name)
        try:
            if name not in known:
                raise Refused(("", _unknown(key, name, list(known), isinstance(value, Mapping))))
            if not dataclasses.is_dataclass(known[name]):
                read_values[name] = READERS[key](value)
            elif isinstance(value, Mapping):
                read_values[name] = _read_table(known[name], value, f"{key}.", faults)
            else:
                raise must_be(f"a section, [{key}]", value)
        except Refused as exc:
            faults.extend(f"{key}{'.' if inner else ''}{inner}: {reason}" for inner, reason in exc.faults)
    return dataclasses.replace(defaults, **read_values)


def _unknown(key: str, name: str, known: list[str], is_section: bool) -> str:
    """Return what to say of a key that no section here has, with the nearest name that there is."""
    what = "unknown section" if is_section else "unknown key"
    if key in HINTS:
        return f"{what}; {HINTS[key]}"
    near = nearest(name, known)
    if near is None:  # the right name in the wrong place
        paths = [*keys(), *{path.rpartition(".")[0] for path in keys()}]
        near = next((path for path in paths if path.rpartition(".")[2] == name), None)
    return f"{what} (did you mean {near}?)" if near else f"{what} (known here: {', '.join(known)})"


def _faults_between(timeouts: Timeouts) -> Iterator[str]:
    """Yield the faults that no key has alone."""
    if timeouts.default_sec > timeouts.max_sec:
        seconds = f"{timeouts.default_sec} > {timeouts.max_sec}"
        yield f"build.timeouts.default_sec: must not be above build.timeouts.max_sec ({seconds})"


def _with_level(settings: Settings, level: str) -> Settings:
    return dataclasses.replace(settings, logging=dataclasses.replace(settings.logging, level=level))
