"""Reading the service's configuration file: TOML in, `Settings` out, or every fault of the file at once.

The daemon and `--check-config` call it, as they start. It only reads: it never creates a file, never looks at
what a caller sent, and never fills a faulty key with a default; a file with one fault is refused whole. The
client does not import it.

The keys and their defaults are the fields of the dataclasses in `settings`; what a value may be is said by
`READERS`, one line for each key.
"""

from __future__ import annotations

import dataclasses
import grp
import importlib
import os
import re
import stat
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import Any

from ..core.errors import BuildError
from ..core.settings import GROUPS, LEVELS, PLACEHOLDERS, SCHEMA_VERSION, Settings, Timeouts
from ..core.text import escape

CONFIG_VARIABLE = "BUILD_SERVICE_CONFIG"
LEVEL_VARIABLE = "BUILD_SERVICE_LOG_LEVEL"
DEFAULT_PATH = "/etc/build-service/config.toml"

TOML_READERS = ("tomllib", "tomli", "pip._vendor.tomli")
"""Modules that read TOML, best first; the first is part of Python since 3.11."""

MAX_FILE_BYTES = 64 * 1024
MAX_LINE_BYTES = 4096
"""No sensible file comes near these two. They bound the time of most TOML readers, which grows with the
square of the parts of a dotted key: one key of 64 KiB takes 20 seconds, the worst file in both limits 3."""

MAX_SHOWN_CHARS = 60
"""How much of a faulty name or value a message repeats."""

MAX_REASON_CHARS = 200
"""How much of a TOML reader's own message is shown: some repeat what they could not read."""

MAX_SOCKET_PATH_BYTES = 107
"""sun_path holds 108 bytes with its closing NUL (unix(7))."""

MAX_PREFORK = 64
MAX_CONNECTIONS = 100_000
MAX_TIMEOUT_SEC = 7 * 24 * 3600
MAX_GRACE_SEC = 60
"""Below the 90 s that systemd lets a service stop before it kills it (DefaultTimeoutStopSec)."""

MIN_LOG_BYTES = 4096
MAX_LOG_BYTES = 1 << 40
MAX_LOG_FILES = 1000

OTHERS_WRITE = 0o002
WRITE_BITS = 0o222
"""connect(2) on a Unix socket needs the write permission (unix(7))."""

HINTS = MappingProxyType(
    {"build.make_path": 'list it in build.commands instead: [build.commands] make = "/usr/bin/make"'}
)
"""Keys of earlier formats, and what took their place."""

NO_ENVIRONMENT: Mapping[str, str] = MappingProxyType({})
DEFAULTS = Settings()

Reader = Callable[[object], Any]
"""Takes a value as TOML gives it, returns it as `settings` holds it, raises `_Refused`."""


class ConfigError(BuildError):
    """The configuration cannot be used: `faults` holds a line for each fault, `str()` joins these lines."""

    kind = "config"

    def __init__(self, faults: Iterable[str]) -> None:
        self.faults = tuple(faults)
        super().__init__("\n".join(self.faults))


class _Refused(Exception):
    """A value that a reader refuses: pairs of a name inside it ("" for the whole value) and what is wrong."""

    def __init__(self, *faults: tuple[str, str]) -> None:
        super().__init__(faults)
        self.faults = faults


# Where the configuration comes from


def locate(argument: str | None, environ: Mapping[str, str]) -> str:
    """Return the path of the file to read: `argument` (of --config), else BUILD_SERVICE_CONFIG, else /etc's.

    An empty variable counts as unset. Whether the file exists is for `load` to find out.
    """
    return argument if argument is not None else environ.get(CONFIG_VARIABLE) or DEFAULT_PATH


def load(path: str, environ: Mapping[str, str] | None = None, defaults: Settings = DEFAULTS) -> Settings:
    """Read the file at `path`; variables come from `environ`, or this process's own where it is None.

    Raises `ConfigError` with every fault, each line starting with `path`, whatever the file holds or is: only
    a regular file of at most MAX_FILE_BYTES is read, and nothing waits for it (opening a FIFO would).
    """
    return parse(read(path), path, os.environ if environ is None else environ, defaults)


def read(path: str) -> str:
    """Return the text of the file at `path`; raises `ConfigError` as `load` does."""
    try:
        # A byte order mark is what some editors leave in front; it means nothing.
        return _read_file(path).decode("utf-8-sig")
    except UnicodeDecodeError as exc:
        raise ConfigError([f"{escape(path)}: not UTF-8 (byte {exc.start})"]) from exc


def parse(
    text: str,
    source: str = "config",
    environ: Mapping[str, str] = NO_ENVIRONMENT,
    defaults: Settings = DEFAULTS,
) -> Settings:
    """Return the settings that `text`, a TOML document, describes; what it does not name is as in `defaults`.

    `source` names the text in messages; `defaults` are not checked. A non-empty BUILD_SERVICE_LOG_LEVEL in
    `environ` takes the place of `logging.level`. Raises `ConfigError` with every fault, the variable's too.
    """
    faults: list[str] = []
    settings: Settings = _read_table(defaults, _read_toml(text, source), "", faults)
    if not any(fault.startswith("build.timeouts.") for fault in faults):
        faults.extend(_faults_between(settings.build.timeouts))
    faults = [f"{escape(source)}: {fault}" for fault in faults]
    level = environ.get(LEVEL_VARIABLE)
    if level:
        try:
            settings = _with_level(settings, READERS["logging.level"](level))
        except _Refused as exc:
            faults.extend(f"{LEVEL_VARIABLE}: {reason}" for _, reason in exc.faults)
    if faults:
        raise ConfigError(faults)
    return settings


def _read_file(path: str) -> bytes:
    """Return the bytes of a regular file; refuse anything else without ever waiting for it."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise ConfigError([f"{escape(path)}: cannot be read: not a regular file"])
            with open(descriptor, "rb", closefd=False) as file:
                data = file.read(MAX_FILE_BYTES + 1)
        finally:
            os.close(descriptor)
    except (OSError, ValueError) as exc:  # ValueError: a NUL in the path
        raise ConfigError([f"{escape(path)}: cannot be read: {_reason(exc)}"]) from exc
    if len(data) > MAX_FILE_BYTES:
        raise ConfigError([f"{escape(path)}: larger than {MAX_FILE_BYTES} bytes"])
    return data


def _reason(exc: OSError | ValueError) -> str:
    return escape(exc.strerror if isinstance(exc, OSError) and exc.strerror else str(exc))


def _read_toml(text: str, source: str) -> Mapping[str, object]:
    """Return the tables of a TOML document."""
    source = escape(source)
    try:
        data = text.encode("utf-8")
    except UnicodeEncodeError as exc:
        raise ConfigError([f"{source}: not UTF-8 (character {exc.start})"]) from exc
    if len(data) > MAX_FILE_BYTES:
        raise ConfigError([f"{source}: larger than {MAX_FILE_BYTES} bytes"])
    for number, line in enumerate(data.split(b"\n"), start=1):
        if len(line) > MAX_LINE_BYTES:
            raise ConfigError([f"{source}: line {number} is longer than {MAX_LINE_BYTES} bytes"])
    loads = _find_toml_reader()
    try:
        tables: Mapping[str, object] = loads(text)
    except RecursionError as exc:
        raise ConfigError([f"{source}: not valid TOML: nested too deeply"]) from exc
    except ValueError as exc:  # TOMLDecodeError, and what int() refuses where its limit was lowered
        raise ConfigError([f"{source}: not valid TOML: {escape(str(exc))[:MAX_REASON_CHARS]}"]) from exc
    return tables


def _find_toml_reader() -> Callable[[str], Mapping[str, object]]:
    """Return the `loads` of the first TOML reader that this Python has."""
    for name in TOML_READERS:
        try:
            loads: Callable[[str], Mapping[str, object]] = importlib.import_module(name).loads
        except ImportError:
            continue
        return loads
    python = sys.executable or "python3"
    raise ConfigError(
        [
            f"{python} (Python {sys.version_info[0]}.{sys.version_info[1]}) cannot read TOML:"
            f" install the package python3-tomli, or run: {python} -m pip install tomli"
        ]
    )


# From tables to settings


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
    values: dict[str, Any] = {}
    for name, value in table.items():
        key = prefix + _bare_or_quoted(name)
        try:
            if name not in known:
                raise _Refused(("", _unknown(key, name, list(known), isinstance(value, Mapping))))
            if not dataclasses.is_dataclass(known[name]):
                values[name] = READERS[key](value)
            elif isinstance(value, Mapping):
                values[name] = _read_table(known[name], value, f"{key}.", faults)
            else:
                raise _must_be(f"a section, [{key}]", value)
        except _Refused as exc:
            faults.extend(f"{key}{'.' if inner else ''}{inner}: {reason}" for inner, reason in exc.faults)
    return dataclasses.replace(defaults, **values)


def _unknown(key: str, name: str, known: list[str], is_section: bool) -> str:
    """Return what to say of a key that no section here has, with the nearest name that there is."""
    what = "unknown section" if is_section else "unknown key"
    if key in HINTS:
        return f"{what}; {HINTS[key]}"
    near = _nearest(name, known)
    if near is None:  # the right name in the wrong place
        paths = [*keys(), *{path.rpartition(".")[0] for path in keys()}]
        near = next((path for path in paths if path.rpartition(".")[2] == name), None)
    return f"{what} (did you mean {near}?)" if near else f"{what} (known here: {', '.join(known)})"


def _nearest(name: str, known: Iterable[str]) -> str | None:
    import difflib  # here, because a sound file never needs it

    return next(iter(difflib.get_close_matches(name[:MAX_SHOWN_CHARS].lower(), known, n=1)), None)


def _faults_between(timeouts: Timeouts) -> Iterator[str]:
    """Yield the faults that no key has alone."""
    if timeouts.default_sec > timeouts.max_sec:
        seconds = f"{timeouts.default_sec} > {timeouts.max_sec}"
        yield f"build.timeouts.default_sec: must not be above build.timeouts.max_sec ({seconds})"


def _with_level(settings: Settings, level: str) -> Settings:
    return dataclasses.replace(settings, logging=dataclasses.replace(settings.logging, level=level))


# What a value may be


def _must_be(wanted: str, value: object) -> _Refused:
    return _Refused(("", f"must be {wanted}, not {_shown(value)}"))


def _read_text(value: object) -> str:
    if not isinstance(value, str):
        raise _must_be("a string", value)
    return value


def _read_boolean(value: object) -> bool:
    if not isinstance(value, bool):
        raise _must_be("true or false", value)
    return value


def _integer(unit: str, minimum: int, maximum: int) -> Reader:
    """Return the reader of a whole number of `unit`, both ends included."""

    def read(value: object) -> int:
        # TOML tells true from 1; Python's bool is an int all the same.
        if not isinstance(value, int) or isinstance(value, bool) or not minimum <= value <= maximum:
            raise _must_be(f"a whole number of {unit} from {minimum} to {maximum}", value)
        return value

    return read


def _choice(*choices: str) -> Reader:
    """Return the reader of one of `choices`, in whatever case it is written."""

    def read(value: object) -> str:
        if isinstance(value, str) and value.lower() in choices:
            return value.lower()
        near = _nearest(value, choices) if isinstance(value, str) else None
        hint = f" (did you mean {near}?)" if near else ""
        raise _Refused(("", f"must be one of {', '.join(choices)}, not {_shown(value)}{hint}"))

    return read


def _read_schema_version(value: object) -> str:
    if value != SCHEMA_VERSION:
        raise _must_be(f'"{SCHEMA_VERSION}", the version that this build-service reads', value)
    return SCHEMA_VERSION


def _read_absolute_path(value: object) -> str:
    path = _read_text(value)
    if not path.startswith("/"):
        raise _must_be("an absolute path", value)
    _refuse_unprintable(path)
    return path


def _refuse_unprintable(path: str) -> None:
    # They end up in log lines and messages, and nobody means them in a path of a configuration file.
    if not path.isprintable():
        raise _Refused(("", f"must not hold control characters: {_shown(path)}"))


def _refuse_parent(path: str) -> None:
    # Workspaces are compared as text before anything is resolved.
    if ".." in path.split("/"):
        raise _Refused(("", f"must not hold a '..': {_shown(path)}"))


def _read_workspace_root(value: object) -> str:
    path = _read_absolute_path(value)
    _refuse_parent(path)
    return path


def _read_socket_path(value: object) -> str:
    path = _read_absolute_path(value)
    size = len(path.encode("utf-8"))
    if size > MAX_SOCKET_PATH_BYTES:
        raise _Refused(("", f"must be at most {MAX_SOCKET_PATH_BYTES} bytes (unix(7)), not {size}"))
    if path.endswith("/"):
        raise _must_be("the path of a socket, not of a directory", value)
    return path


def _read_socket_group(value: object) -> str:
    group = _read_text(value)
    if not group or group != group.strip() or not group.isprintable() or any(c in group for c in ":,/"):
        raise _must_be("the name of a group", value)
    if group.isdigit():
        raise _must_be("the name of a group, not its number", value)
    return group


def _read_octal_mode(value: object) -> int:
    wanted = 'a string of 3 or 4 octal digits, such as "0660"'
    if isinstance(value, int) and not isinstance(value, bool):
        raise _Refused(("", f"must be {wanted}: put the number in quotes"))
    if not isinstance(value, str) or not re.fullmatch(r"[0-7]{3,4}", value):
        raise _must_be(wanted, value)
    mode = int(value, 8)
    if mode & ~0o777:
        raise _Refused(("", f"must not set the set-user-ID, set-group-ID or sticky bit: {_shown(value)}"))
    if not mode & WRITE_BITS:
        raise _Refused(("", f"lets nobody connect, which needs the write bit (unix(7)): {_shown(value)}"))
    return mode


def _read_log_directory(value: object) -> str:
    return "" if value == "" else _read_absolute_path(value)


def _template(*needed: str) -> Reader:
    """Return the reader of a path template that names one of `needed` (placeholders), if any are given."""

    def read(value: object) -> str:
        template = _read_text(value)
        named = re.findall(r"\{([^{}]*)\}", template)
        for name in named:
            if name not in PLACEHOLDERS:
                known = " ".join(map(_braced, PLACEHOLDERS))
                raise _Refused(("", f"unknown placeholder {_shown(_braced(name))} (known: {known})"))
        if not template.count("{") == template.count("}") == len(named):
            raise _Refused(("", f"has a brace without its partner: {_shown(template)}"))
        # A start that is no whole component, as in "{home}x", would mean another directory than it seems to.
        if not re.match(r"/|\{(home|workspace_root)\}(/|\Z)", template):
            raise _Refused(("", f"must start with / or {{home}}/ or {{workspace_root}}/: {_shown(template)}"))
        if needed and not set(needed) & set(named):
            wanted = " or ".join(map(_braced, needed))
            raise _Refused(("", f"must name {wanted}, or all accounts would share it: {_shown(template)}"))
        _refuse_parent(template)
        _refuse_unprintable(template)
        return template

    return read


def _braced(name: str) -> str:
    return "{" + name + "}"


def _read_names(value: object) -> tuple[str, ...]:
    """Read a list of names of environment variables."""
    if not isinstance(value, list):
        raise _must_be("a list of names", value)
    faults = []
    seen: set[object] = set()
    for name in value:
        if not isinstance(name, str) or not _is_variable(name):
            faults.append(("", f"{_shown(name)} is not the name of an environment variable"))
        elif name in seen:
            faults.append(("", f"{_shown(name)} stands there twice"))
        else:
            seen.add(name)
    if faults:
        raise _Refused(*faults)
    return tuple(value)


def _read_variables(value: object) -> Mapping[str, str]:
    """Read a table from names of environment variables to their values."""

    def read(name: str, inner: object) -> str:
        if not _is_variable(name):
            raise _Refused(("", "not the name of an environment variable"))
        text = _read_text(inner)
        if "\0" in text:
            raise _Refused(("", f"must not hold a NUL: {_shown(text)}"))
        return text

    return _read_entries(value, "a table of names and values", read)


def _read_commands(value: object) -> Mapping[str, str]:
    """Read the allowlist, a table from names to absolute paths; `warnings` asks whether these exist."""

    def read(name: str, inner: object) -> str:
        if not name or name.startswith("-") or "/" in name or " " in name or not name.isprintable():
            raise _Refused(("", "a command's name has no slash, space or control character, no '-' in front"))
        return _read_absolute_path(inner)

    commands = _read_entries(value, "a table of names and paths", read)
    if not commands:
        raise _Refused(("", 'must name at least one command, such as make = "/usr/bin/make"'))
    return commands


def _read_entries(value: object, wanted: str, read: Callable[[str, object], str]) -> Mapping[str, str]:
    """Read a table whose names are free; gather the faults of all its entries."""
    if not isinstance(value, Mapping):
        raise _must_be(wanted, value)
    entries: dict[str, str] = {}
    faults: list[tuple[str, str]] = []
    for name, inner in value.items():
        try:
            entries[name] = read(name, inner)
        except _Refused as exc:
            faults.extend((_bare_or_quoted(name), text) for _, text in exc.faults)
    if faults:
        raise _Refused(*faults)
    return MappingProxyType(entries)


def _is_variable(name: str) -> bool:
    return re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name) is not None


READERS: Mapping[str, Reader] = MappingProxyType(
    {
        "schema_version": _read_schema_version,
        "service.socket_path": _read_socket_path,
        "service.socket_group": _read_socket_group,
        "service.socket_mode": _read_octal_mode,
        "service.prefork": _integer("processes", 0, MAX_PREFORK),
        "service.max_connections": _integer("connections", 1, MAX_CONNECTIONS),
        "service.max_connections_per_user": _integer("connections", 1, MAX_CONNECTIONS),
        "build.workspace_root": _read_workspace_root,
        "build.commands": _read_commands,
        "build.groups": _choice(*GROUPS),
        "build.no_new_privs": _read_boolean,
        "build.timeouts.default_sec": _integer("seconds", 1, MAX_TIMEOUT_SEC),
        "build.timeouts.max_sec": _integer("seconds", 1, MAX_TIMEOUT_SEC),
        "build.timeouts.grace_sec": _integer("seconds", 0, MAX_GRACE_SEC),
        "build.environment.allow": _read_names,
        "build.environment.set": _read_variables,
        "build.path_mapping.container_template": _template(),
        "build.path_mapping.host_template": _template("user", "home"),
        "logging.level": _choice(*LEVELS),
        "logging.directory": _read_log_directory,
        "logging.max_bytes": _integer("bytes", MIN_LOG_BYTES, MAX_LOG_BYTES),
        "logging.max_files": _integer("files", 1, MAX_LOG_FILES),
        "logging.console": _read_boolean,
    }
)


# How names and values are shown


def _shown(value: object) -> str:
    """Return a value as a message shows it: on one line, short, in TOML's words."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return repr(value) if len(value) <= MAX_SHOWN_CHARS else repr(value[:MAX_SHOWN_CHARS]) + "..."
    if isinstance(value, Mapping):
        return "a table"
    if isinstance(value, list):
        return "a list"
    if isinstance(value, int) and value.bit_length() > 64:
        return "a number of more than 64 bits"  # Python may refuse to write such a number in decimal
    return str(value)


def _bare_or_quoted(name: str) -> str:
    """Return a part of a dotted key about as TOML would write it."""
    bare = len(name) <= MAX_SHOWN_CHARS and re.fullmatch(r"[A-Za-z0-9_-]+", name)
    return name if bare else _shown(name)


# What a sound configuration may still get wrong on this host


def warnings(settings: Settings) -> tuple[str, ...]:
    """Return one line for each setting that this host does not back, or that opens more than it may seem to.

    It looks at the file system and the group database, now and as this process; the file itself is sound.
    """
    found = []
    service, build = settings.service, settings.build
    if os.geteuid() == 0:  # an ordinary user's own service opens its socket to nobody else
        if not _group_exists(service.socket_group):
            group = _shown(service.socket_group)
            found.append(f"service.socket_group: there is no group {group} on this host")
        if service.socket_mode & OTHERS_WRITE:
            found.append(f"service.socket_mode: {service.socket_mode:04o} lets every local user connect")
    if not os.path.isdir(build.workspace_root):
        found.append(f"build.workspace_root: {escape(build.workspace_root)} is not a directory")
    for name, path in build.commands.items():
        problem = _command_problem(path)
        if problem:
            found.append(f"build.commands.{_bare_or_quoted(name)}: {escape(path)} {problem}")
    return tuple(found)


def _group_exists(name: str) -> bool:
    try:
        grp.getgrnam(name)
    except KeyError:
        return False
    return True


def _command_problem(path: str) -> str | None:
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError) as exc:
        return f"cannot be used: {_reason(exc)}"
    if not stat.S_ISREG(mode):
        return "is not a file"
    return None if os.access(path, os.X_OK) else "is not executable"
