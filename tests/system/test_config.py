"""The configuration's file: what it may hold, where it is looked for, what reads it, and what this host does not back.

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
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from buildcore.core import keys
from buildcore.core.faults import ConfigError
from buildcore.core.settings import Build, Environment, Logging, Service, Settings
from buildcore.system import config
from buildcore.system.config import load, locate, parse
from configuration import LITERALS, NO_VARIABLES, SHIPPED, faults_of, is_one_line, kind_in_file, the_fault
from harness_world import ROOT

LIBRARY = ROOT / "lib"
NOBODY_UID = 65534
QUICK_SEC = 15
"""Far above what the worst file takes, far below what it would take without the limits."""


def fault_of_file(path: Path | str) -> str:
    with pytest.raises(ConfigError) as caught:
        load(str(path), NO_VARIABLES)
    assert len(caught.value.faults) == 1
    return caught.value.faults[0]


# --- what a file says ---------------------------------------------------------------------------------------------


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
    assert set(settings.build.environment.allow) < set(Environment().allow)
    assert settings.logging == Logging()


def test_make_path_of_the_first_requirement_is_refused_and_led_to_commands() -> None:
    fault = the_fault(REQUIREMENT % 'make_path = "/usr/bin/make"')
    assert fault.startswith("file: build.make_path: unknown key; list it in build.commands instead")


# --- text that is no TOML -----------------------------------------------------------------------------------------


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


# --- files that cannot be read ------------------------------------------------------------------------------------


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


# --- where the configuration comes from ---------------------------------------------------------------------------


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


# --- readers of TOML ----------------------------------------------------------------------------------------------


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


# --- what the host does not back ----------------------------------------------------------------------------------


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
