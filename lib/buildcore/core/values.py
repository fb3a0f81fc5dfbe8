"""What a value of the configuration may be: readers, one for each kind of value.

A reader takes a value as TOML gives it and returns it as `settings` holds it, or raises `Refused`. `keys` says which
key has which reader.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from . import variables
from .faults import Refused, bare_or_quoted, must_be, nearest, shown
from .settings import PLACEHOLDERS, SCHEMA_VERSION

Reader = Callable[[object], Any]

MAX_SOCKET_PATH_BYTES = 107
"""sun_path holds 108 bytes with its closing NUL (unix(7))."""

WRITE_BITS = 0o222
"""connect(2) on a Unix socket needs the write permission (unix(7))."""


def _read_text(value: object) -> str:
    if not isinstance(value, str):
        raise must_be("a string", value)
    return value


def read_boolean(value: object) -> bool:
    if not isinstance(value, bool):
        raise must_be("true or false", value)
    return value


def integer(unit: str, minimum: int, maximum: int) -> Reader:
    """Return the reader of a whole number of `unit`, both ends included."""

    def read(value: object) -> int:
        # TOML tells true from 1; Python's bool is an int all the same.
        if not isinstance(value, int) or isinstance(value, bool) or not minimum <= value <= maximum:
            raise must_be(f"a whole number of {unit} from {minimum} to {maximum}", value)
        return value

    return read


def uid_or(word: str, maximum: int) -> Reader:
    """Return the reader of a uid, `maximum` at most, or of `word`."""

    def read(value: object) -> int | str:
        if value == word:
            return word
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= maximum:
            raise must_be(f'a uid from 0 to {maximum}, or "{word}"', value)
        return value

    return read


def choice(*choices: str) -> Reader:
    """Return the reader of one of `choices`, in whatever case it is written."""

    def read(value: object) -> str:
        if isinstance(value, str) and value.lower() in choices:
            return value.lower()
        near = nearest(value, choices) if isinstance(value, str) else None
        hint = f" (did you mean {near}?)" if near else ""
        raise Refused(("", f"must be one of {', '.join(choices)}, not {shown(value)}{hint}"))

    return read


def read_schema_version(value: object) -> str:
    if value != SCHEMA_VERSION:
        raise must_be(f'"{SCHEMA_VERSION}", the version that this build-service reads', value)
    return SCHEMA_VERSION


def _read_absolute_path(value: object) -> str:
    path = _read_text(value)
    if not path.startswith("/"):
        raise must_be("an absolute path", value)
    _refuse_unprintable(path)
    return path


def _refuse_unprintable(path: str) -> None:
    # They end up in log lines and messages, and nobody means them in a path of a configuration file.
    if not path.isprintable():
        raise Refused(("", f"must not hold control characters: {shown(path)}"))


def _refuse_parent(path: str) -> None:
    # Workspaces are compared as text before anything is resolved.
    if ".." in path.split("/"):
        raise Refused(("", f"must not hold a '..': {shown(path)}"))


def read_workspace_root(value: object) -> str:
    path = _read_absolute_path(value)
    _refuse_parent(path)
    return path


def read_socket_path(value: object) -> str:
    path = _read_absolute_path(value)
    size = len(path.encode("utf-8"))
    if size > MAX_SOCKET_PATH_BYTES:
        raise Refused(("", f"must be at most {MAX_SOCKET_PATH_BYTES} bytes (unix(7)), not {size}"))
    if path.endswith("/"):
        raise must_be("the path of a socket, not of a directory", value)
    return path


def read_socket_group(value: object) -> str:
    group = _read_text(value)
    if not group or group != group.strip() or not group.isprintable() or any(c in group for c in ":,/"):
        raise must_be("the name of a group", value)
    if group.isdigit():
        raise must_be("the name of a group, not its number", value)
    return group


def read_octal_mode(value: object) -> int:
    wanted = 'a string of 3 or 4 octal digits, such as "0660"'
    if isinstance(value, int) and not isinstance(value, bool):
        raise Refused(("", f"must be {wanted}: put the number in quotes"))
    if not isinstance(value, str) or not re.fullmatch(r"[0-7]{3,4}", value):
        raise must_be(wanted, value)
    mode = int(value, 8)
    if mode & ~0o777:
        raise Refused(("", f"must not set the set-user-ID, set-group-ID or sticky bit: {shown(value)}"))
    if not mode & WRITE_BITS:
        raise Refused(("", f"lets nobody connect, which needs the write bit (unix(7)): {shown(value)}"))
    return mode


def read_log_directory(value: object) -> str:
    return "" if value == "" else _read_absolute_path(value)


def template(*needed: str) -> Reader:
    """Return the reader of a path template that names one of `needed` (placeholders), if any are given."""

    def read(value: object) -> str:
        template = _read_text(value)
        named = re.findall(r"\{([^{}]*)\}", template)
        for name in named:
            if name not in PLACEHOLDERS:
                known = " ".join(map(_braced, PLACEHOLDERS))
                raise Refused(("", f"unknown placeholder {shown(_braced(name))} (known: {known})"))
        if not template.count("{") == template.count("}") == len(named):
            raise Refused(("", f"has a brace without its partner: {shown(template)}"))
        # A start that is no whole component, as in "{home}x", would mean another directory than it seems to.
        if not re.match(r"/|\{(home|workspace_root)\}(/|\Z)", template):
            raise Refused(("", f"must start with / or {{home}}/ or {{workspace_root}}/: {shown(template)}"))
        if needed and not set(needed) & set(named):
            wanted = " or ".join(map(_braced, needed))
            raise Refused(("", f"must name {wanted}, or all accounts would share it: {shown(template)}"))
        _refuse_parent(template)
        _refuse_unprintable(template)
        return template

    return read


def _braced(name: str) -> str:
    return "{" + name + "}"


def read_names(value: object) -> tuple[str, ...]:
    """Read a list of names of environment variables, and of patterns for them."""
    if not isinstance(value, list):
        raise must_be("a list of names", value)
    faults = []
    seen: set[object] = set()
    for name in value:
        if isinstance(name, str) and "*" in name and not variables.is_pattern(name):
            faults.append(("", f"{shown(name)} is no pattern: one is the beginning of a name and _*, such as KBUILD_*"))
        elif not isinstance(name, str) or not (variables.is_name(name) or variables.is_pattern(name)):
            faults.append(("", f"{shown(name)} is not the name of an environment variable"))
        elif name in seen:
            faults.append(("", f"{shown(name)} stands there twice"))
        else:
            seen.add(name)
    if faults:
        raise Refused(*faults)
    return tuple(value)


def read_variables(value: object) -> Mapping[str, str]:
    """Read a table from names of environment variables to their values."""

    def read(name: str, inner: object) -> str:
        if not variables.is_name(name):
            raise Refused(("", "not the name of an environment variable"))
        text = _read_text(inner)
        if "\0" in text:
            raise Refused(("", f"must not hold a NUL: {shown(text)}"))
        return text

    return _read_entries(value, "a table of names and values", read)


def read_commands(value: object) -> Mapping[str, str]:
    """Read the allowlist, a table from names to absolute paths; `config.warnings` asks whether these exist."""

    def read(name: str, inner: object) -> str:
        if not name or name.startswith("-") or "/" in name or " " in name or not name.isprintable():
            raise Refused(("", "a command's name has no slash, space or control character, no '-' in front"))
        return _read_absolute_path(inner)

    commands = _read_entries(value, "a table of names and paths", read)
    if not commands:
        raise Refused(("", 'must name at least one command, such as make = "/usr/bin/make"'))
    return commands


def read_workspace_commands(value: object) -> tuple[str, ...]:
    """Read a list of names of programs, or of the last parts of their paths."""
    if not isinstance(value, list):
        raise must_be("a list of names and paths", value)
    faults = []
    seen: set[object] = set()
    for entry in value:
        if not isinstance(entry, str) or not entry or entry.startswith("-") or " " in entry or not entry.isprintable():
            faults.append(f"{shown(entry)} is no program: its path has no space or control character, no '-' in front")
        elif {"", ".", ".."} & set(entry.split("/")):
            faults.append(f"{shown(entry)} is no path below a directory: that has no / at its ends, no //, . or ..")
        elif entry in seen:
            faults.append(f"{shown(entry)} stands there twice")
        seen.add(entry if isinstance(entry, str) else "")
    if faults:
        raise Refused(*(("", fault) for fault in faults))
    return tuple(value)


def _read_entries(value: object, wanted: str, read: Callable[[str, object], str]) -> Mapping[str, str]:
    """Read a table whose names are free; gather the faults of all its entries."""
    if not isinstance(value, Mapping):
        raise must_be(wanted, value)
    entries: dict[str, str] = {}
    faults: list[tuple[str, str]] = []
    for name, inner in value.items():
        try:
            entries[name] = read(name, inner)
        except Refused as exc:
            faults.extend((bare_or_quoted(name), text) for _, text in exc.faults)
    if faults:
        raise Refused(*faults)
    return MappingProxyType(entries)
