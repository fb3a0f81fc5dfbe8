"""Bash completion: what bash makes of a line when its user asks, on a terminal, with and without bash-completion."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import shutil
import socket
import subprocess
import sys
import termios
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import harness
import tools
from buildcore.caller import build_cli, build_ctl
from daemon import Service, installed_tools
from harness import BIN, SYSTEM_PATH, TREE, write_tree
from harness_world import inside

StartService = Callable[..., Service]

FILES = TREE / "etc/completion"
PROGRAMS = ("build-cli", "build-ctl", "build-service")
FRAMEWORK = Path("/usr/share/bash-completion/bash_completion")
COMMANDS = {"make": "/usr/bin/make", "meson": "/usr/bin/true", "ninja": "/usr/bin/true"}

INSERT_ALL = "\x1b*"  # readline's insert-completions, bash(1)
TO_THE_START = "\x01"
SHOW_THE_WORDS = r"printf '<%s>\n' "
END = "END"

SETTINGS = "PS1='> ' HISTFILE=\nbind 'set enable-bracketed-paste off'\n"
NOTE_ERRORS = r"""
noted() { "_${1//-/_}" "$@" 2>>errors; }
complete -F noted build-cli build-ctl build-service
"""
"""What a completion says on stderr goes to a file, where it can be told from what readline shows."""


@pytest.fixture
def service(start_service: StartService) -> Service:
    """A service that allows COMMANDS; in the workspace of its caller there are some files."""
    return serving(start_service, COMMANDS)


def serving(start_service: StartService, commands: Mapping[str, str]) -> Service:
    settings = {"build": {"commands": {**dict.fromkeys(installed_tools()), **commands}}}
    service = start_service("root" if inside() else "user", settings)
    makefiles = {"Makefile": "alpha:\nbeta:\n", "sub/Makefile": "gamma:\n"}
    write_tree(service.workspace, {"some.toml": "", "some.sock": "", **makefiles}, service.caller)
    return service


def startup(*files: Path) -> str:
    """What bash reads as it starts, to have these files' completions."""
    return SETTINGS + "".join(f". {file}\n" for file in files)


ALONE = startup(*(FILES / name for name in PROGRAMS)) + NOTE_ERRORS
WITH_FRAMEWORK = startup(FRAMEWORK, *(FILES / name for name in PROGRAMS)) + NOTE_ERRORS
either = pytest.mark.parametrize("rc", [ALONE, WITH_FRAMEWORK], ids=["alone", "bash-completion"])
"""For a test that has to pass with bash-completion and without it."""


def completed(service: Service, rc: str, line: str, **env: str) -> list[str]:
    """Types `line`, has bash put all completions of the last word in its place, and returns the words of the line."""
    if str(FRAMEWORK) in rc:
        tools.need(str(FRAMEWORK))
    write_tree(service.workspace, {".rc": rc, "errors": ""}, service.caller)
    with bash(service, {"BUILD_SERVICE_SOCKET": str(service.daemon.socket), **env}) as terminal:
        os.write(terminal, f"{line}{INSERT_ALL} {END}{TO_THE_START}{SHOW_THE_WORDS}\n".encode())
        shown = harness.read_until(terminal, rf"(?m)^<{END}>\r$")
    assert (service.workspace / "errors").read_text() == ""
    return re.findall(r"(?m)^<(.*)>\r$", shown)[:-1]


@contextmanager
def bash(service: Service, env: Mapping[str, str]) -> Iterator[int]:
    """An interactive bash of the caller in its workspace, on a terminal whose other end is yielded."""
    path = f"{BIN}:{harness.environment_of(service.caller)['PATH']}"
    environment = {"PATH": path, "HOME": str(service.workspace), "TERM": "dumb", **env}
    master, slave = pty.openpty()

    def take_terminal() -> None:
        os.setsid()
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)

    streams: dict[str, Any] = dict.fromkeys(("stdin", "stdout", "stderr"), slave)
    command = ["bash", "--noprofile", "--rcfile", ".rc", "-i"]
    process = harness.popen_as(
        service.caller, command, service.workspace, environment, preexec_fn=take_terminal, **streams
    )
    os.close(slave)
    try:
        yield master
    finally:
        os.close(master)  # bash hears it as a hang-up, and ends
        process.wait(harness.PATIENCE_SEC)


def options_of(usage: str) -> set[str]:
    return set(re.findall(r"--[a-z-]+", usage))


# --- options --------------------------------------------------------------------------------------------------------


@either
def test_all_options_of_the_client_are_completed(rc: str, service: Service) -> None:
    options = options_of(build_cli.USAGE) | {"--help", "--version"}
    assert set(completed(service, rc, "build-cli -")[1:]) == options


@either
def test_all_words_that_build_ctl_takes_first_are_completed(rc: str, service: Service) -> None:
    subcommands = set(re.findall("build-ctl ([a-z]+)", build_ctl.USAGE))
    assert set(completed(service, rc, "build-ctl ")[1:]) == subcommands | {"--help", "--version"}


@either
@pytest.mark.parametrize("subcommand", ["doctor", "commands"])
def test_all_options_of_a_subcommand_are_completed(subcommand: str, rc: str, service: Service) -> None:
    (usage,) = re.findall(f"build-ctl {subcommand}(.*)", build_ctl.USAGE)
    assert set(completed(service, rc, f"build-ctl {subcommand} -")[2:]) == options_of(usage)


@either
def test_all_options_of_the_daemon_are_completed(rc: str, service: Service) -> None:
    command = [str(BIN / "build-service"), "--help"]
    shown = subprocess.run(command, env={"PATH": harness.daemon_path()}, capture_output=True, text=True, check=True)
    options = set(re.findall(r"^  (?:-h, )?(--[a-z-]+)", shown.stdout, re.MULTILINE))
    assert set(completed(service, rc, "build-service ")[1:]) == options


@either
@pytest.mark.parametrize(
    ("typed", "made"),
    [
        ("build-cli --so", "build-cli --socket"),
        ("build-cli --timeout 5 --re", "build-cli --timeout 5 --request-id"),
        ("build-ctl com", "build-ctl commands"),
        ("build-ctl doctor --j", "build-ctl doctor --json"),
        ("build-service --user --ch", "build-service --user --check-config"),
    ],
)
def test_the_rest_of_a_word_is_added(typed: str, made: str, rc: str, service: Service) -> None:
    assert completed(service, rc, typed) == made.split()


# --- values of options ----------------------------------------------------------------------------------------------


@either
@pytest.mark.parametrize(
    "line",
    [
        "build-cli --socket some.",
        "build-cli --socket=some.",
        "build-cli --fallback some.",
        "build-ctl commands --socket some.",
        "build-ctl doctor --json --config=some.",
        "build-service --config some.",
        "build-service --check-config --config=some.",
    ],
)
def test_a_value_that_is_a_path_is_completed_to_files(line: str, rc: str, service: Service) -> None:
    assert completed(service, rc, line) == f"{line}sock some.toml".split()


@either
def test_a_variable_is_completed_to_those_that_are_exported(rc: str, service: Service) -> None:
    found = completed(service, rc + "MY_OWN=1\n", "build-cli --env MY_", MY_CFLAGS="-O0", MY_BOARD="x")
    assert found == ["build-cli", "--env", "MY_BOARD=", "MY_CFLAGS="]


def test_the_value_of_a_variable_can_be_typed_behind_its_name_at_once(service: Service) -> None:
    assert completed(service, ALONE, "build-cli --env MY_BO\tx", MY_BOARD="1") == ["build-cli", "--env", "MY_BOARD=x"]


@either
@pytest.mark.parametrize(
    "line", ["build-cli --timeout ", "build-cli --request-id=", "build-service --ready-fd ", "build-ctl commands "]
)
def test_where_only_the_user_knows_nothing_is_completed(line: str, rc: str, service: Service) -> None:
    assert completed(service, rc, line) == line.split()


# --- allowed commands -----------------------------------------------------------------------------------------------


@either
@pytest.mark.parametrize(
    "line",
    [
        "build-cli",
        "build-cli --",
        "build-cli --timeout 5",
        "build-cli --timeout=5 --request-id a=b",
        "build-cli --env PATH=/a:/b",
        "build-cli --env=EMPTY=",
        "build-cli --env 'CC=ccache gcc'",
        "build-ctl doctor",
        "build-ctl doctor --json --config=some.toml",
    ],
)
def test_the_commands_that_the_service_allows_are_completed(line: str, rc: str, service: Service) -> None:
    assert completed(service, rc, f"{line} ")[-3:] == sorted(COMMANDS)
    assert completed(service, rc, f"{line} m")[-2:] == ["make", "meson"]


@either
@pytest.mark.parametrize("option", ["--socket=", "--socket "])
def test_the_service_that_the_line_names_is_the_one_that_is_asked(option: str, rc: str, service: Service) -> None:
    line = f"build-cli {option}{service.daemon.socket} me"
    assert completed(service, rc, line, BUILD_SERVICE_SOCKET="/nowhere")[-1] == "meson"


@either
def test_without_a_service_nothing_is_completed_and_nothing_said(rc: str, service: Service) -> None:
    assert completed(service, rc, "build-cli m", BUILD_SERVICE_SOCKET="/nowhere") == ["build-cli", "m"]


@either
def test_without_build_ctl_nothing_is_completed_and_nothing_said(rc: str, service: Service) -> None:
    assert completed(service, rc, "build-cli m", PATH=SYSTEM_PATH) == ["build-cli", "m"]


def test_a_service_that_does_not_answer_is_not_waited_for(service: Service) -> None:
    path = service.workspace / "silent"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        path.chmod(0o666)
        listener.listen()
        assert completed(service, ALONE, "build-cli m", BUILD_SERVICE_SOCKET=str(path)) == ["build-cli", "m"]


def test_the_name_of_a_command_is_never_run_nor_expanded(start_service: StartService) -> None:
    names = ["$(>by-completion)`>by-completion`;>by-completion", "*"]
    service = serving(start_service, dict.fromkeys(names, "/usr/bin/true"))
    assert completed(service, ALONE, "build-cli ") == ["build-cli", *names]
    assert not (service.workspace / "by-completion").exists()


# --- what follows the command ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("before", ["build-cli", "build-cli --env PATH=/a:/b --", "build-ctl doctor --socket=x"])
@pytest.mark.parametrize(
    ("typed", "made"),
    [
        ("make ", "make alpha beta"),
        ("make CFLAGS=-O0 al", "make CFLAGS=-O0 alpha"),
        ("make -C sub ", "make -C sub gamma"),
        ("make --dir", "make --directory="),
        ("make -f some.", "make -f some.sock some.toml"),
    ],
)
def test_the_command_s_own_completion_takes_over(before: str, typed: str, made: str, service: Service) -> None:
    assert completed(service, WITH_FRAMEWORK, f"{before} {typed}") == f"{before} {made}".split()


@pytest.mark.parametrize("before", ["build-cli --timeout 5", "build-ctl doctor"])
def test_without_bash_completion_files_follow_a_command(before: str, service: Service) -> None:
    assert completed(service, ALONE, f"{before} make -f some.") == f"{before} make -f some.sock some.toml".split()


def test_the_wrapper_is_completed_as_make_with_the_targets_that_the_host_tells(service: Service) -> None:
    wrappers = service.workspace / "wrappers"
    write_tree(wrappers, {"make": (TREE / "bin/make-wrapper.sh").read_text()}, service.caller)
    path = f"{wrappers}:{BIN}:{harness.environment_of(service.caller)['PATH']}"
    assert completed(service, WITH_FRAMEWORK, "make ", PATH=path) == ["make", "alpha", "beta"]
    service.daemon.await_log(r'build completed .*args=\["-npq",.*command=make')


# --- the files ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def installed() -> Iterator[Path]:
    """The share directory of `make install`."""
    directory = harness.open_directory()
    pythons = [f"PYTHON={sys.executable}", f"DIST_PYTHONS={sys.executable}", f"DIST={directory}/dist"]
    command = ["make", "-s", "-C", str(TREE), "install", f"DESTDIR={directory}", "PREFIX=/usr", *pythons]
    subprocess.run(command, check=True, capture_output=True)
    yield directory / "usr/share"
    shutil.rmtree(directory)


@pytest.mark.parametrize("program", PROGRAMS)
def test_bash_completion_finds_what_is_installed_by_itself(program: str, service: Service, installed: Path) -> None:
    found = completed(service, startup(FRAMEWORK), f"{program} --vers", XDG_DATA_HOME=str(installed))
    assert found == [program, "--version"]


@pytest.mark.parametrize("name", PROGRAMS)
def test_shellcheck_finds_nothing(name: str) -> None:
    tools.need("shellcheck")
    done = subprocess.run(["shellcheck", str(FILES / name)], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "")
