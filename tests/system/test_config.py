"""The configuration: what a file may say, how each fault of it is told, and where it is looked for.

All against real files and the real TOML readers; the shipped etc/config.toml is held to the defaults here.
"""

from __future__ import annotations

import dataclasses
import grp
import json
import os
import stat
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from buildcore.core import keys
from buildcore.core.errors import BuildError
from buildcore.core.faults import ConfigError
from buildcore.core.settings import (
    PLACEHOLDERS,
    Build,
    Environment,
    Logging,
    PathMapping,
    Service,
    Settings,
    TemplateError,
    Timeouts,
    expand_template,
)
from buildcore.system import config
from buildcore.system.config import load, locate, parse
from harness_world import ROOT

SHIPPED = ROOT / "etc" / "config.toml"
LIBRARY = ROOT / "lib"

NO_VARIABLES: Mapping[str, str] = {}
NOBODY_UID = 65534
QUICK_SEC = 15
"""Far above what the worst file takes, far below what it would take without the limits."""

LITERALS = {
    "string": '"text"',
    "integer": "7",
    "float": "7.5",
    "boolean": "true",
    "date": "2026-01-14",
    "list": "[[]]",
    "table": "{ inner = {} }",
}
"""A value of each kind that TOML has."""


def faults_of(text: str, environ: Mapping[str, str] = NO_VARIABLES) -> tuple[str, ...]:
    """The faults of a text; there has to be one."""
    with pytest.raises(ConfigError) as caught:
        parse(text, "file", environ)
    return caught.value.faults


def the_fault(text: str) -> str:
    faults = faults_of(text)
    assert len(faults) == 1, faults
    return faults[0]


def fault_of_file(path: Path | str) -> str:
    with pytest.raises(ConfigError) as caught:
        load(str(path), NO_VARIABLES)
    assert len(caught.value.faults) == 1
    return caught.value.faults[0]


def value_at(settings: object, key: str) -> object:
    for name in key.split("."):
        settings = getattr(settings, name)
    return settings


def kind_in_file(key: str) -> str:
    if key == "service.socket_mode":
        return "string"  # octal
    value = value_at(Settings(), key)
    kinds = {bool: "boolean", int: "integer", str: "string", tuple: "list"}
    return kinds.get(type(value), "table")


def is_one_line(text: str) -> bool:
    return text.isprintable() and text != ""


# --- what a file says -------------------------------------------------------------------------------------


def test_an_empty_file_means_the_defaults() -> None:
    assert parse("") == Settings()


def test_the_shipped_file_says_what_the_defaults_are() -> None:
    assert load(str(SHIPPED), NO_VARIABLES) == Settings()


@pytest.mark.parametrize("key", keys.keys())
def test_the_shipped_file_explains_every_key(key: str) -> None:
    lines = SHIPPED.read_text(encoding="utf-8").splitlines()
    section, _, name = key.rpartition(".")
    headers = [f"[{key}]"] if kind_in_file(key) == "table" else [f"[{section}]"]
    first = lines.index(headers[0]) if section else 0
    ends = [number for number, line in enumerate(lines) if line.startswith("[") and number > first]
    inside = lines[first : min(ends, default=len(lines))]
    names = [line.split(" ")[0] for line in inside]
    found = first if kind_in_file(key) == "table" else first + names.index(name)
    assert lines[found - 1].startswith("#")


def test_every_key_has_a_rule_for_its_value_and_no_rule_is_left_over() -> None:
    assert set(keys.READERS) == set(keys.keys())


def test_every_key_can_be_set() -> None:
    settings = parse(
        """
        schema_version = "1"
        [service]
        socket_path = "/run/other.sock"
        socket_group = "builders"
        socket_mode = "0600"
        prefork = 0
        [build]
        workspace_root = "/srv"
        groups = "login"
        no_new_privs = false
        [build.commands]
        ninja = "/usr/bin/ninja"
        [build.timeouts]
        default_sec = 1
        max_sec = 2
        grace_sec = 0
        [build.environment]
        allow = ["LANG", "_x1"]
        set = { PATH = "/opt/bin", EMPTY = "" }
        [build.path_mapping]
        container_template = "/sources"
        host_template = "{home}/ws"
        [logging]
        level = "trace"
        directory = ""
        max_bytes = 4096
        max_files = 1
        console = true
        """
    )
    assert settings == Settings(
        service=Service("/run/other.sock", "builders", 0o600, 0),
        build=Build(
            "/srv",
            {"ninja": "/usr/bin/ninja"},
            "login",
            False,
            Timeouts(1, 2, 0),
            Environment(("LANG", "_x1"), {"PATH": "/opt/bin", "EMPTY": ""}),
            PathMapping("/sources", "{home}/ws"),
        ),
        logging=Logging("trace", "", 4096, 1, True),
    )


def test_a_table_of_commands_takes_the_place_of_the_default_one() -> None:
    settings = parse('build.commands.ninja = "/usr/bin/ninja"')
    assert dict(settings.build.commands) == {"ninja": "/usr/bin/ninja"}


def test_what_a_file_does_not_name_is_as_in_the_defaults_that_are_given() -> None:
    own = Settings(service=Service(socket_path="/run/own.sock", prefork=3))
    settings = parse("service.prefork = 2", defaults=own)
    assert settings.service == Service(socket_path="/run/own.sock", prefork=2)


REQUIREMENT = """
schema_version = "1"

[service]
socket_path = "/run/build-service.sock"
socket_group = "users"
socket_mode = "0660"

[build]
workspace_root = "/home"
%s

[build.timeouts]
default_sec = 600       # 10 minutes
max_sec = 1800          # 30 minutes (cap client requests)

[build.environment]
# Strict allowlist - only these env vars passed to make
allow = [
    "PATH",
    "HOME",
    "USER",
    "LANG",
    "CC",
    "CXX",
    "CFLAGS",
    "CXXFLAGS",
    "LDFLAGS",
    "PKG_CONFIG_PATH",
    "MAKEFLAGS",
]

[logging]
level = "info"
directory = "/var/log/build-service"
max_bytes = 104857600   # 100MB
max_files = 5
console = false
"""


def test_the_file_of_the_requirement_is_read() -> None:
    settings = parse(REQUIREMENT % 'commands = { make = "/usr/bin/make" }')
    assert settings.service.socket_path == "/run/build-service.sock"
    assert settings.build.environment.allow == Environment().allow[:-1]
    assert settings.logging == Logging()


def test_make_path_of_the_first_requirement_is_refused_and_led_to_commands() -> None:
    fault = the_fault(REQUIREMENT % 'make_path = "/usr/bin/make"')
    assert fault.startswith("file: build.make_path: unknown key; list it in build.commands instead")


# --- settings are values ----------------------------------------------------------------------------------


@pytest.mark.parametrize("settings", [Settings(), parse('build.environment.set = { LANG = "C" }')])
def test_settings_cannot_be_changed(settings: Settings) -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        settings.build.groups = "login"  # type: ignore[misc]
    with pytest.raises(TypeError):
        settings.build.commands["sh"] = "/bin/sh"  # type: ignore[index]
    with pytest.raises(TypeError):
        settings.build.environment.set["LANG"] = "de"  # type: ignore[index]


def test_equal_settings_have_equal_hashes() -> None:
    assert hash(parse("")) == hash(Settings())


# --- unknown keys -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (
            "build.timeouts.defualt_sec = 5",
            "build.timeouts.defualt_sec: unknown key (did you mean default_sec?)",
        ),
        ("[build.timeout]\nmax_sec = 5", "build.timeout: unknown section (did you mean timeouts?)"),
        ("[Logging]", "Logging: unknown section (did you mean logging?)"),
        ("[[services]]", "services: unknown key (did you mean service?)"),
        ("[timeouts]", "timeouts: unknown section (did you mean build.timeouts?)"),
        ('socket_path = "/x"', "socket_path: unknown key (did you mean service.socket_path?)"),
        ("[tls]", "tls: unknown section (known here: schema_version, service, build, logging)"),
        ("build.environment.xyz = 1", "build.environment.xyz: unknown key (known here: allow, set)"),
        ('"a b\\n" = 1', "'a b\\n': unknown key (known here: schema_version, service, build, logging)"),
    ],
)
def test_an_unknown_key_is_refused_with_the_nearest_known_one(text: str, fault: str) -> None:
    assert the_fault(text) == f"file: {fault}"


@st.composite
def misspelt_keys(draw: st.DrawFn) -> tuple[str, str]:
    """A key with one slip of the pen in its last part, and that part as it should be."""
    section, _, name = draw(st.sampled_from(keys.keys())).rpartition(".")
    at = draw(st.integers(0, len(name) - 2))
    wrong = draw(
        st.sampled_from(
            [
                name[:at] + name[at + 1] + name[at] + name[at + 2 :],
                name[:at] + name[at + 1 :],
                name[:at] + name[at] + name[at:],
                name[:at] + "x" + name[at:],
                name.replace("_", "-") if "_" in name else name + "s",
                name.upper(),
            ]
        ).filter(lambda wrong: wrong != name)
    )
    return (f"{section}.{wrong}" if section else wrong), name


@given(misspelt_keys(), st.sampled_from(sorted(set(LITERALS) - {"table"})))
def test_a_slip_of_the_pen_is_told_with_the_right_name(misspelt: tuple[str, str], kind: str) -> None:
    key, right = misspelt
    assert the_fault(f"{key} = {LITERALS[kind]}") == f"file: {key}: unknown key (did you mean {right}?)"


# --- wrong values -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", LITERALS)
@pytest.mark.parametrize("key", keys.keys())
def test_a_value_of_the_wrong_type_is_refused_by_its_dotted_key(key: str, kind: str) -> None:
    if kind != kind_in_file(key):
        assert the_fault(f"{key} = {LITERALS[kind]}").startswith(f"file: {key}: must be ")


@pytest.mark.parametrize("kind", sorted(set(LITERALS) - {"table"}))
@pytest.mark.parametrize("section", sorted({key.rpartition(".")[0] for key in keys.keys()} - {""}))
def test_a_section_that_is_no_table_is_refused(section: str, kind: str) -> None:
    fault = the_fault(f"{section} = {LITERALS[kind]}")
    assert fault.startswith(f"file: {section}: must be a section, [{section}], not ")


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ('schema_version = "2"', "must be \"1\", the version that this build-service reads, not '2'"),
        ("schema_version = 1", 'must be "1", the version that this build-service reads, not 1'),
        ('service.socket_path = "run/x.sock"', "must be an absolute path, not 'run/x.sock'"),
        ('service.socket_path = ""', "must be an absolute path, not ''"),
        ('service.socket_path = "/run/"', "must be the path of a socket, not of a directory, not '/run/'"),
        ('service.socket_path = "/run/\\u0000"', "must not hold control characters: '/run/\\x00'"),
        (f'service.socket_path = "/{"s" * 107}"', "must be at most 107 bytes (unix(7)), not 108"),
        (f'service.socket_path = "/{"é" * 54}"', "must be at most 107 bytes (unix(7)), not 109"),
        ('service.socket_group = ""', "must be the name of a group, not ''"),
        ('service.socket_group = "a:b"', "must be the name of a group, not 'a:b'"),
        ('service.socket_group = "100"', "must be the name of a group, not its number, not '100'"),
        ("service.socket_mode = 660", 'octal digits, such as "0660": put the number in quotes'),
        ("service.socket_mode = 0o660", "put the number in quotes"),
        ('service.socket_mode = "66"', "must be a string of 3 or 4 octal digits, such as \"0660\", not '66'"),
        ('service.socket_mode = "0680"', "not '0680'"),
        ('service.socket_mode = "0o660"', "not '0o660'"),
        ('service.socket_mode = "4660"', "must not set the set-user-ID, set-group-ID or sticky bit"),
        ('service.socket_mode = "1660"', "must not set the set-user-ID, set-group-ID or sticky bit"),
        ('service.socket_mode = "0444"', "lets nobody connect"),
        ("service.prefork = -1", "must be a whole number of processes from 0 to 64, not -1"),
        ("service.prefork = 65", "must be a whole number of processes from 0 to 64, not 65"),
        ('build.workspace_root = "home"', "must be an absolute path, not 'home'"),
        ('build.workspace_root = "/home/../srv"', "must not hold a '..'"),
        ("build.commands = {}", "must name at least one command"),
        ('build.groups = "peers"', "must be one of peer, login, not 'peers' (did you mean peer?)"),
        ("build.timeouts.default_sec = 0", "must be a whole number of seconds from 1 to 604800, not 0"),
        ("build.timeouts.max_sec = 604801", "must be a whole number of seconds from 1 to 604800, not 604801"),
        ("build.timeouts.grace_sec = -1", "must be a whole number of seconds from 0 to 60, not -1"),
        ("build.timeouts.grace_sec = 61", "must be a whole number of seconds from 0 to 60, not 61"),
        ("build.timeouts.grace_sec = inf", "must be a whole number of seconds from 0 to 60, not inf"),
        (f"build.timeouts.max_sec = 0x{'f' * 4000}", "not a number of more than 64 bits"),
        ('build.environment.allow = ["A=B"]', "'A=B' is not the name of an environment variable"),
        ('build.environment.allow = ["1A"]', "'1A' is not the name of an environment variable"),
        ('build.environment.allow = ["A\\n"]', "'A\\n' is not the name of an environment variable"),
        ('build.environment.allow = [""]', "'' is not the name of an environment variable"),
        ("build.environment.allow = [1]", "1 is not the name of an environment variable"),
        ('build.environment.allow = ["A", "B", "A"]', "'A' stands there twice"),
        ('build.path_mapping.host_template = "{workspace_root}/x"', "must name {user} or {home}"),
        ('build.path_mapping.host_template = "{user}/x"', "must start with / or {home}/ or {workspace_"),
        ('build.path_mapping.host_template = "{home}x"', "must start with / or {home}/ or {workspace_"),
        ('build.path_mapping.host_template = "/x/{users}"', "unknown placeholder '{users}' (known: {user} "),
        ('build.path_mapping.host_template = "/x/{user}/../y"', "must not hold a '..'"),
        ('build.path_mapping.host_template = "/x/{user}\\t"', "must not hold control characters"),
        ('build.path_mapping.container_template = "/{user.name}"', "unknown placeholder '{user.name}'"),
        ('build.path_mapping.container_template = "/{}"', "unknown placeholder '{}'"),
        ('build.path_mapping.container_template = "/{{user}}"', "has a brace without its partner"),
        ('build.path_mapping.container_template = "/{user"', "has a brace without its partner"),
        ('build.path_mapping.container_template = ""', "must start with /"),
        ('logging.level = "warning"', "not 'warning' (did you mean warn?)"),
        ('logging.level = "loud"', "must be one of error, warn, info, debug, trace, not 'loud'"),
        ('logging.directory = "log"', "must be an absolute path, not 'log'"),
        ("logging.max_bytes = 4095", "must be a whole number of bytes from 4096 to 1099511627776, not 4095"),
        ("logging.max_files = 0", "must be a whole number of files from 1 to 1000, not 0"),
    ],
)
def test_a_wrong_value_is_refused_with_what_it_must_be(line: str, fault: str) -> None:
    told = the_fault(line)
    assert told.startswith(f"file: {line.partition(' = ')[0]}: ")
    assert fault in told


@pytest.mark.parametrize(
    ("line", "key", "fault"),
    [
        ('build.commands.make = "make"', "build.commands.make", "must be an absolute path, not 'make'"),
        ('build.commands.make = "/bin/\\u001bmake"', "build.commands.make", "must not hold control"),
        ('build.commands."../sh" = "/bin/sh"', "build.commands.'../sh'", "a command's name has no slash"),
        ('build.commands."a b" = "/bin/sh"', "build.commands.'a b'", "a command's name has no slash"),
        ('build.commands."-s" = "/bin/sh"', "build.commands.-s", "no '-' in front"),
        ('build.commands."" = "/bin/sh"', "build.commands.''", "a command's name has no slash"),
        ('build.commands."a\\n" = "/bin/sh"', "build.commands.'a\\n'", "a command's name has no slash"),
        ("build.environment.set.A = 1", "build.environment.set.A", "must be a string, not 1"),
        ('build.environment.set.A = "\\u0000"', "build.environment.set.A", "must not hold a NUL"),
        ('build.environment.set."A=" = ""', "build.environment.set.'A='", "not the name of an env"),
    ],
)
def test_a_wrong_entry_of_a_table_is_refused_by_its_own_key(line: str, key: str, fault: str) -> None:
    told = the_fault(line)
    assert told.startswith(f"file: {key}: ")
    assert fault in told


@pytest.mark.parametrize(
    ("line", "value"),
    [
        (f'service.socket_path = "/{"s" * 106}"', "/" + "s" * 106),
        ('service.socket_group = "domain users"', "domain users"),
        ('service.socket_mode = "666"', 0o666),
        ("service.prefork = 64", 64),
        ("build.timeouts.max_sec = 604_800", 604800),
        ("build.timeouts.grace_sec = 60", 60),
        ("build.environment.allow = []", ()),
        ('build.environment.set.A = """a\nb"""', {"A": "a\nb"}),
        ('build.path_mapping.host_template = "{home}"', "{home}"),
        ('build.path_mapping.container_template = "/workspace"', "/workspace"),
        ('logging.level = "INFO"', "info"),
        ('logging.directory = ""', ""),
    ],
)
def test_a_value_at_the_edge_of_the_rules_is_taken(line: str, value: object) -> None:
    key = line.partition(" = ")[0].replace("set.A", "set")
    assert value_at(parse(line), key) == value


@pytest.mark.parametrize("line", ["max_sec = 599", "default_sec = 1801", "default_sec = 9\nmax_sec = 8"])
def test_the_default_timeout_must_not_be_above_the_longest(line: str) -> None:
    fault = the_fault(f"[build.timeouts]\n{line}")
    assert fault.startswith("file: build.timeouts.default_sec: must not be above build.timeouts.max_sec (")


def test_a_wrong_timeout_is_not_compared() -> None:
    fault = the_fault('[build.timeouts]\ndefault_sec = 3000\nmax_sec = "4000"')
    assert fault.startswith("file: build.timeouts.max_sec: ")


def test_all_faults_are_told_together_a_line_each_in_the_order_of_the_file() -> None:
    text = """
        colour = "red"
        [logging]
        max_files = 0
        [service]
        prefork = "many"
        [build.commands]
        make = "make"
        sh = 1
        """
    faults = faults_of(text, {"BUILD_SERVICE_LOG_LEVEL": "loud"})
    assert [fault.partition(": ")[2].partition(": ")[0] for fault in faults[:-1]] == [
        "colour",
        "logging.max_files",
        "service.prefork",
        "build.commands.make",
        "build.commands.sh",
    ]
    assert faults[-1].startswith("BUILD_SERVICE_LOG_LEVEL: ")
    with pytest.raises(BuildError) as caught:
        parse(text, "file", {"BUILD_SERVICE_LOG_LEVEL": "loud"})
    assert str(caught.value).split("\n") == list(faults)


# --- text that is no TOML ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "[service",
        "prefork == 1",
        "a = 1\na = 2",
        "service.socket_mode = 0660",
        "a = " + "[" * 4000,
        "a = " + "{a=" * 1000,
        "a = \x00",
        "a = 2026-13-45",
    ],
)
def test_text_that_is_no_toml_is_refused_in_one_line(text: str) -> None:
    assert the_fault(text).startswith("file: not valid TOML: ")


def test_a_syntax_error_is_told_with_its_place() -> None:
    assert "line 2" in the_fault("[service]\nprefork == 1")


def test_a_text_with_characters_that_no_file_can_hold_is_refused() -> None:
    assert the_fault("a = '\ud800'") == "file: not UTF-8 (character 5)"


def test_a_line_too_long_is_refused_by_its_number() -> None:
    assert the_fault(f"\n# {'x' * 5000}") == "file: line 2 is longer than 4096 bytes"


@pytest.mark.parametrize(
    "text",
    [
        "a" + ".a" * 30000 + " = 1",
        "".join(f"b{number}{'.a' * 2000} = 1\n" for number in range(16)),
        f"[a{'.a' * 2000}]\n" + "".join(f"b{number}.c = 1\n" for number in range(5000)),
        "".join(f"b{number} = 1\n" for number in range(6000)),
    ],
)
def test_no_file_keeps_its_reader_busy_for_long(text: str) -> None:
    begin = time.monotonic()
    faults_of(text)
    assert time.monotonic() - begin < QUICK_SEC


TOML_PIECES = st.lists(
    st.tuples(
        st.sampled_from([*keys.keys(), "build", "service", "logging", "build.timeouts", "other"]),
        st.sampled_from(["", ".x", '."a b"', ".make", '."\\n"']),
        st.sampled_from(list(LITERALS.values()))
        | st.integers().map(str)
        | st.text(max_size=20).map(json.dumps),
    ),
    max_size=6,
)


def assert_settings_or_faults(text: str) -> None:
    try:
        settings = parse(text, "file")
    except ConfigError as exc:
        assert exc.faults
        assert all(is_one_line(fault) and fault.startswith("file: ") for fault in exc.faults)
    else:
        assert isinstance(settings, Settings)


@given(st.text(st.characters()))
def test_any_text_gives_settings_or_faults(text: str) -> None:
    assert_settings_or_faults(text)


@given(TOML_PIECES)
def test_any_values_at_any_keys_give_settings_or_faults(pieces: list[tuple[str, str, str]]) -> None:
    assert_settings_or_faults("".join(f"{key}{inner} = {value}\n" for key, inner, value in pieces))


@given(st.binary() | TOML_PIECES.map(lambda pieces: "".join(f"{k} = {v}\n" for k, _, v in pieces).encode()))
def test_any_bytes_in_a_file_give_settings_or_faults(data: bytes) -> None:
    path = f"/dev/shm/test-config-{os.getpid()}.toml"
    try:
        Path(path).write_bytes(data)
        try:
            assert isinstance(load(path, NO_VARIABLES), Settings)
        except ConfigError as exc:
            assert all(is_one_line(fault) and fault.startswith(path) for fault in exc.faults)
    finally:
        os.unlink(path)


# --- files that cannot be read ----------------------------------------------------------------------------


@contextmanager
def as_nobody() -> Iterator[None]:
    """Root may read everything; this is for what others meet."""
    uid = os.geteuid()
    if uid == 0:
        os.seteuid(NOBODY_UID)
    try:
        yield
    finally:
        os.seteuid(uid)


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    assert fault_of_file(path) == f"{path}: cannot be read: No such file or directory"


def test_a_file_without_read_permission_is_told(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text("")
    path.chmod(0)
    with as_nobody():
        fault = fault_of_file(path)
    assert fault == f"{path}: cannot be read: Permission denied"


def test_a_directory_is_told(tmp_path: Path) -> None:
    assert fault_of_file(tmp_path) == f"{tmp_path}: cannot be read: not a regular file"


def test_a_fifo_is_refused_without_waiting_for_a_writer(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    os.mkfifo(path)
    assert fault_of_file(path) == f"{path}: cannot be read: not a regular file"


def test_a_device_is_told() -> None:
    assert fault_of_file("/dev/zero") == "/dev/zero: cannot be read: not a regular file"


def test_a_path_that_no_file_can_have_is_told() -> None:
    assert fault_of_file("/etc/\0\n") == "/etc/\\x00\\x0a: cannot be read: embedded null byte"


def test_a_file_that_is_not_utf_8_is_told_with_the_place(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_bytes(b"# Stra\xdfe\n")
    assert fault_of_file(path) == f"{path}: not UTF-8 (byte 6)"


def test_a_byte_order_mark_in_front_is_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_bytes(b"\xef\xbb\xbfservice.prefork = 2\r\n")
    assert load(str(path), NO_VARIABLES).service.prefork == 2


@pytest.mark.parametrize("size", [64 * 1024 + 1, 2 * 1024 * 1024, 1 << 40])
def test_a_file_too_large_is_told_and_not_read_whole(tmp_path: Path, size: int) -> None:
    path = tmp_path / "config.toml"
    path.touch()
    os.truncate(path, size)
    assert fault_of_file(path) == f"{path}: larger than 65536 bytes"


def test_a_fault_in_a_file_starts_with_the_path_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text("service.prefork = -1")
    assert fault_of_file(path).startswith(f"{path}: service.prefork: ")


# --- where the configuration comes from -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("argument", "environ", "path"),
    [
        ("/a.toml", {"BUILD_SERVICE_CONFIG": "/b.toml"}, "/a.toml"),
        (None, {"BUILD_SERVICE_CONFIG": "/b.toml"}, "/b.toml"),
        (None, {"BUILD_SERVICE_CONFIG": ""}, "/etc/build-service/config.toml"),
        (None, {}, "/etc/build-service/config.toml"),
    ],
)
def test_the_file_is_the_argument_s_else_the_variable_s_else_the_one_in_etc(
    argument: str | None, environ: dict[str, str], path: str
) -> None:
    assert locate(argument, environ) == path


def test_the_variable_for_the_log_level_overrides_the_file() -> None:
    environ = {"BUILD_SERVICE_LOG_LEVEL": "debug"}
    assert parse('logging.level = "warn"', environ=environ) == Settings(logging=Logging(level="debug"))


def test_an_empty_variable_for_the_log_level_is_as_none() -> None:
    assert parse('logging.level = "warn"', environ={"BUILD_SERVICE_LOG_LEVEL": ""}).logging.level == "warn"


def test_a_wrong_log_level_in_the_variable_is_told_by_the_variable_s_name() -> None:
    told = faults_of("", {"BUILD_SERVICE_LOG_LEVEL": "inof\n"})
    levels = "error, warn, info, debug, trace"
    assert told == (f"BUILD_SERVICE_LOG_LEVEL: must be one of {levels}, not 'inof\\n' (did you mean info?)",)


def test_load_takes_the_variables_of_its_own_process_unless_others_are_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "config.toml"
    path.touch()
    monkeypatch.setenv("BUILD_SERVICE_LOG_LEVEL", "trace")
    assert load(str(path)).logging.level == "trace"
    assert load(str(path), {}).logging.level == "info"


# --- readers of TOML --------------------------------------------------------------------------------------


def run_without(blocked: tuple[str, ...], program: str) -> subprocess.CompletedProcess[str]:
    """Run a program in a fresh Python in which the modules `blocked` cannot be imported."""
    path = f"import sys\nsys.path.insert(0, {str(LIBRARY)!r})\n"
    head = f"{path}sys.modules.update(dict.fromkeys({blocked!r}))\n"
    return subprocess.run([sys.executable, "-c", head + program], capture_output=True, text=True, check=False)


@pytest.mark.parametrize("number", range(len(config.TOML_READERS)))
def test_each_reader_of_toml_will_do(number: int) -> None:
    reader, others = config.TOML_READERS[number], config.TOML_READERS[:number]
    if run_without((), f"import {reader}").returncode:
        pytest.skip(f"this Python has no {reader}")
    run = run_without(
        others,
        "from buildcore.core import settings; from buildcore.core.faults import ConfigError\n"
        "from buildcore.system import config\n"
        f"assert config.load({str(SHIPPED)!r}, {{}}) == settings.Settings()\n"
        f"print({reader!r} in sys.modules)\n"
        "for text in ('a = 1\\na = 2', 'a = ' + '[' * 4000, 'service.prefork = true'):\n"
        "    try: config.parse(text)\n"
        "    except ConfigError as exc: print(len(exc.faults))\n",
    )
    assert (run.stdout.split(), run.stderr) == (["True", "1", "1", "1"], "")


def test_a_python_that_cannot_read_toml_is_told_what_to_install() -> None:
    run = run_without(
        config.TOML_READERS,
        "from buildcore.core.faults import ConfigError\nfrom buildcore.system import config\n"
        "try: config.parse('')\nexcept ConfigError as exc: print(exc)",
    )
    assert run.stderr == ""
    assert is_one_line(run.stdout.rstrip("\n"))
    assert "cannot read TOML: install the package python3-tomli, or run: " in run.stdout
    assert run.stdout.endswith("-m pip install tomli\n")


# --- templates --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("template", "path"),
    [
        ("{workspace_root}/{user}/workspace", "/home/dev1/workspace"),
        ("/home/{user}", "/home/dev1"),
        ("{home}", "/export/dev1"),
        ("/{user}/{user}", "/dev1/dev1"),
        ("/a//b/./{user}/", "/a/b/dev1"),
        ("/workspace", "/workspace"),
    ],
)
def test_a_template_gives_the_path_of_an_account(template: str, path: str) -> None:
    assert expand_template(template, "dev1", "/export/dev1", "/home") == path


def test_the_mount_of_the_requirement_maps_the_container_s_home_to_the_workspace() -> None:
    """podman run -v "$HOME/workspace:$HOME", with the line that etc/config.toml shows for it."""
    lines = SHIPPED.read_text(encoding="utf-8").splitlines()
    (line,) = [line.lstrip("# ") for line in lines if line.startswith("#     container_template")]
    mapping = parse(f"[build.path_mapping]\n{line}").build.path_mapping
    assert mapping.container_root("dev1", "/home/dev1", "/home") == "/home/dev1"
    assert mapping.host_root("dev1", "/home/dev1", "/home") == "/home/dev1/workspace"


def test_a_workspace_root_that_is_the_root_directory_gives_no_double_slash() -> None:
    assert PathMapping().host_root("dev1", "/home/dev1", "/") == "/dev1/workspace"


def test_what_stands_in_a_name_is_not_expanded_again() -> None:
    assert expand_template("/w/{user}", "{home}", "/secret", "/home") == "/w/{home}"


@pytest.mark.parametrize("user", ["", ".", "..", "a/b", "../root"])
def test_an_account_whose_name_is_no_single_component_gets_no_path(user: str) -> None:
    with pytest.raises(TemplateError, match="cannot be part of a workspace path"):
        PathMapping().host_root(user, "/home/dev1", "/home")


@pytest.mark.parametrize("home", ["", "home/dev1"])
def test_an_account_without_an_absolute_home_gets_no_path_below_it(home: str) -> None:
    with pytest.raises(TemplateError, match="no absolute home directory"):
        expand_template("{home}/workspace", "dev1", home, "/home")


NAMES = st.text(max_size=8) | st.sampled_from(["{home}", "{user}", "{0.__class__}", "..", "a/b"])
PIECES = ["/", "x", ".", "{", "}", "{x}", "{user.__class__}", *("{%s}" % name for name in PLACEHOLDERS)]
TEMPLATES = st.lists(st.sampled_from(PIECES))


@given(TEMPLATES.map("".join), NAMES, NAMES.map("/".__add__) | NAMES, NAMES.map("/".__add__))
def test_a_template_that_the_file_may_hold_gives_a_tidy_absolute_path_or_a_refusal(
    template: str, user: str, home: str, root: str
) -> None:
    try:
        path = parse(f"build.path_mapping.container_template = {json.dumps(template)}").build.path_mapping
    except ConfigError:
        return
    try:
        expanded = path.container_root(user, home, root)
    except TemplateError:
        return
    assert expanded.startswith("/")
    assert "//" not in expanded
    assert expanded == "/" or not expanded.endswith("/")


# --- what the host does not back --------------------------------------------------------------------------


def sound_settings(tmp_path: Path, **commands: str) -> Settings:
    return Settings(
        service=Service(socket_group=grp.getgrall()[0].gr_name),
        build=Build(workspace_root=str(tmp_path), commands=commands),
    )


def test_settings_that_the_host_backs_give_no_warning(tmp_path: Path) -> None:
    assert config.warnings(sound_settings(tmp_path, python=sys.executable)) == ()


def test_a_command_that_cannot_be_run_is_warned_of(tmp_path: Path) -> None:
    text = tmp_path / "text"
    text.write_text("")
    text.chmod(stat.S_IRUSR)
    missing = tmp_path / "missing"
    commands = {"make": str(missing), "ninja": str(text), "cmake": str(tmp_path), "sh": sys.executable}
    settings = sound_settings(tmp_path, **commands)
    assert config.warnings(settings) == (
        f"build.commands.make: {missing} cannot be used: No such file or directory",
        f"build.commands.ninja: {text} is not executable",
        f"build.commands.cmake: {tmp_path} is not a file",
    )


def test_a_missing_workspace_root_is_warned_of(tmp_path: Path) -> None:
    settings = sound_settings(tmp_path / "missing", python=sys.executable)
    assert config.warnings(settings) == (f"build.workspace_root: {tmp_path / 'missing'} is not a directory",)


def test_the_service_of_root_warns_of_a_missing_group_and_of_a_socket_for_everybody(tmp_path: Path) -> None:
    settings = dataclasses.replace(
        sound_settings(tmp_path, python=sys.executable),
        service=Service(socket_group="no-such-group-here", socket_mode=0o666),
    )
    of_root = (
        "service.socket_group: there is no group 'no-such-group-here' on this host",
        "service.socket_mode: 0666 lets every local user connect",
    )
    assert config.warnings(settings) == (of_root if os.geteuid() == 0 else ())
    with as_nobody():
        assert config.warnings(dataclasses.replace(settings, build=Build("/", {"sh": "/bin/sh"}))) == ()
