"""The configuration file: which it is, reading it as TOML, and what of it this host does not back.

The daemon and `--check-config` call it, as they start; `core.keys` says what may stand in it. It only reads: it never
creates a file and never looks at what a caller sent. The client does not import it.
"""

from __future__ import annotations

import grp
import importlib
import os
import stat
import sys
from collections.abc import Callable, Mapping
from types import MappingProxyType

from ..core import keys, variables
from ..core.faults import ConfigError, bare_or_quoted, shown
from ..core.settings import Settings
from ..core.text import escape

CONFIG_VARIABLE = "BUILD_SERVICE_CONFIG"
DEFAULT_PATH = "/etc/build-service/config.toml"

TOML_READERS = ("tomllib", "tomli", "pip._vendor.tomli")
"""Modules that read TOML, best first; the first is part of Python since 3.11."""

MAX_FILE_BYTES = 64 * 1024
MAX_LINE_BYTES = 4096
"""No sensible file comes near these two. They bound the time of most TOML readers, which grows with the
square of the parts of a dotted key: one key of 64 KiB takes 20 seconds, the worst file in both limits 3."""

MAX_REASON_CHARS = 200
"""How much of a TOML reader's own message is shown: some repeat what they could not read."""

OTHERS_WRITE = 0o002

NO_ENVIRONMENT: Mapping[str, str] = MappingProxyType({})


def locate(argument: str | None, environ: Mapping[str, str]) -> str:
    """Return the path of the file to read: `argument` (of --config), else BUILD_SERVICE_CONFIG, else /etc's.

    An empty variable counts as unset. Whether the file exists is for `load` to find out.
    """
    return argument if argument is not None else environ.get(CONFIG_VARIABLE) or DEFAULT_PATH


def load(path: str, environ: Mapping[str, str] | None = None, defaults: Settings = keys.DEFAULTS) -> Settings:
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
    defaults: Settings = keys.DEFAULTS,
) -> Settings:
    """Return the settings that `text`, a TOML document, describes: see `keys.read`. Raises `ConfigError`."""
    return keys.read(_read_toml(text, source), source, environ, defaults)


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


def warnings(settings: Settings) -> tuple[str, ...]:
    """Return one line for each setting that this host does not back, or that opens more than it may seem to.

    It looks at the file system and the group database, now and as this process; the file itself is sound.
    """
    found = []
    service, build = settings.service, settings.build
    if os.geteuid() == 0:  # an ordinary user's own service opens its socket to nobody else
        if not _group_exists(service.socket_group):
            group = shown(service.socket_group)
            found.append(f"service.socket_group: there is no group {group} on this host")
        if service.socket_mode & OTHERS_WRITE:
            found.append(f"service.socket_mode: {service.socket_mode:04o} lets every local user connect")
    if not os.path.isdir(build.workspace_root):
        found.append(f"build.workspace_root: {escape(build.workspace_root)} is not a directory")
    for pattern in build.environment.allow:
        loaders = [name for name in variables.LOADERS if name.startswith(variables.prefixes((pattern,)))]
        if loaders:
            found.append(f"build.environment.allow: {pattern} lets in what loads code into tools: {', '.join(loaders)}")
    for name, path in build.commands.items():
        problem = _command_problem(path)
        if problem:
            found.append(f"build.commands.{bare_or_quoted(name)}: {escape(path)} {problem}")
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
