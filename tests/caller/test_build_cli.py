"""build-cli: its command line, and whatever happens it says one clear line at most and ends as the build does.

The real program against the real daemon, with each Python of this machine.
"""

from __future__ import annotations

import os
import re
import shlex
import signal
import socket
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from clients import client, makefile, shell, told
from daemon import Service, merged, toml
from fake_server import CALLER
from harness import SYSTEM_PATH, client_is_python, other_pythons, write_tree
from harness_world import inside
from wire import WAITING, Gate

StartService = Callable[..., Service]
OpenDirectory = Callable[..., Path]


# --- the command line and its variables -------------------------------------------------------------------------------

USAGE = "usage: build-cli [--timeout SECONDS] [--socket PATH] [--request-id ID] [--env NAME=VALUE]..."


@pytest.mark.parametrize("option", ["--help", "-h"])
def test_help_goes_to_stdout(option: str) -> None:
    done = client(option)
    assert done.stdout.startswith(USAGE)
    assert (done.stderr, done.returncode) == ("", 0)


def test_version_names_the_program() -> None:
    done = client("--version")
    assert re.fullmatch(r"build-cli \d+\.\d+\.\d+\n", done.stdout)
    assert (done.stderr, done.returncode) == ("", 0)


WRONG = [
    ([], "build-cli: no command"),
    (["--timeout", "5"], "build-cli: no command"),
    (["--"], "build-cli: no command"),
    (["--nonsense", "make"], "build-cli: unknown option --nonsense"),
    (["-j4", "make"], "build-cli: unknown option -j4"),
    (["--timeout"], "build-cli: --timeout needs a value"),
    (["--socket"], "build-cli: --socket needs a value"),
    (["--timeout", "0", "make"], "build-cli: --timeout must be a whole number of seconds, at least 1"),
    (["--timeout=-1", "make"], "build-cli: --timeout must be a whole number of seconds, at least 1"),
    (["--timeout", "1.5", "make"], "build-cli: --timeout must be a whole number of seconds, at least 1"),
    (["--timeout", "²", "make"], "build-cli: --timeout must be a whole number of seconds, at least 1"),
    (["--timeout", "9" * 5000, "make"], "build-cli: --timeout must be a whole number of seconds, at least 1"),
    (["--env", "NAME", "make"], "build-cli: --env takes NAME=VALUE"),
    (["--env", "=x", "make"], "build-cli: --env takes NAME=VALUE"),
]


@pytest.mark.parametrize(("arguments", "line"), WRONG, ids=range(len(WRONG)))
def test_a_wrong_command_line_is_exit_1_and_says_what_is_wrong(arguments: list[str], line: str) -> None:
    done = client(*arguments)
    assert (done.stdout, done.returncode) == ("", 1)
    assert done.stderr.splitlines()[0] == line


@pytest.mark.parametrize("value", ["0", "soon", "-5"])
def test_a_wrong_timeout_variable_is_named(value: str) -> None:
    done = client("make", env={"BUILD_SERVICE_TIMEOUT": value})
    line = "build-cli: BUILD_SERVICE_TIMEOUT must be a whole number of seconds, at least 1\n"
    assert told(done) == ("", line, 1)


@pytest.mark.parametrize("spelling", ["two words", "one word", "--", "variable", "option over variable"])
def test_the_socket_is_named_by_option_or_variable(spelling: str, one: Service) -> None:
    makefile(one, "all:\n\t@echo built\n")
    path = str(one.daemon.socket)
    arguments, env = {
        "two words": (["--socket", path], {}),
        "one word": ([f"--socket={path}"], {}),
        "--": (["--socket", path, "--"], {}),
        "variable": ([], {"BUILD_SERVICE_SOCKET": path}),
        "option over variable": (["--socket", path], {"BUILD_SERVICE_SOCKET": "/nonexistent"}),
    }[spelling]
    assert told(client(*arguments, "make", env=env, cwd=str(one.workspace))) == ("built\n", "", 0)


@pytest.mark.needs_root
@pytest.mark.parametrize("path", ["/run/build-service/build-service.sock", "/run/build-service.sock"])
def test_the_usual_sockets_are_found_without_being_named(path: str, start_service: StartService) -> None:
    service = start_service("root", {"service": {"socket_path": path}})
    makefile(service, "all:\n\t@echo built\n")
    assert told(client("make", cwd=str(service.workspace))) == ("built\n", "", 0)


@pytest.mark.parametrize("spelling", ["two words", "one word", "variable", "option over variable"])
def test_the_timeout_is_set_by_option_or_variable(spelling: str, one: Service) -> None:
    makefile(one, f"all:\n{WAITING}")
    arguments, env = {
        "two words": (["--timeout", "1"], {}),
        "one word": (["--timeout=1"], {}),
        "variable": ([], {"BUILD_SERVICE_TIMEOUT": "1"}),
        "option over variable": (["--timeout", "1"], {"BUILD_SERVICE_TIMEOUT": "500"}),
    }[spelling]
    with Gate(one.workspace, one.caller):
        done = one.run(*arguments, "make", env=env)
    assert done.returncode == 124
    assert done.stderr.splitlines()[-1] == "build timed out after 1s"


def test_the_request_id_is_in_every_log_line_of_the_build(one: Service) -> None:
    makefile(one, "all:\n\t@:\n")
    assert one.run("--request-id", "id 17", "make").returncode == 0
    one.daemon.await_log('build started .*request_id="id 17"$')
    one.daemon.await_log('build completed .*request_id="id 17"$')


def test_without_one_each_build_gets_a_request_id_of_its_own(one: Service) -> None:
    makefile(one, "all:\n\t@:\n")
    for _ in range(2):
        assert one.run("make").returncode == 0
    ids = set()
    for _ in range(2):
        known = "|".join(ids) or "none"
        line = one.daemon.await_log(f"build completed .*request_id=(?!{known})[0-9a-f]{{16}}$")
        ids.add(line.rpartition("=")[2])
    assert len(ids) == 2


def test_variables_go_along_when_they_are_usual_or_asked_for_and_the_service_allows_them(
    start_service: StartService,
) -> None:
    allow = ["PATH", "HOME", "CFLAGS", "MINE", "YOURS", "LISTED", "SECRET"]
    service = start_service("root" if inside() else "user", {"build": {"environment": {"allow": allow}}})
    makefile(service, 'all:\n\t@echo "$$CFLAGS|$$MINE|$$YOURS|$$LISTED|$$SECRET|$$DENIED|$$CXXFLAGS"\n')
    env = {
        "CFLAGS": "-O2 -g",
        "CXXFLAGS": "not allowed",
        "LISTED": "listed",
        "SECRET": "allowed, and nobody asked for it",
        "BUILD_SERVICE_ENV": "LISTED,ABSENT",
        "YOURS": "overridden",
    }
    options = ["--env", "MINE=a=b c", "--env=YOURS=", "--env", "DENIED=x"]
    assert service.run(*options, "make", env=env).stdout == "-O2 -g|a=b c||listed|||\n"


def test_everything_behind_the_command_is_the_commands(one: Service) -> None:
    tool = write_tree(
        one.daemon.directory / "tools", {"show": '#!/bin/sh\nfor a do printf "<%s>" "$a"; done\n'}, one.daemon.user
    )
    one.daemon.stop()
    settings = merged(one.daemon.settings, {"build": {"commands": {"show": str(tool / "show")}}})
    write_tree(one.daemon.directory, {"config.toml": toml(settings)}, one.daemon.user)
    one.daemon.start()
    arguments = ["--timeout", "x", "--socket=/none", "--help", "--", "-", "", "a b", "*", "$HOME", "new\nline", "'\"\\"]
    done = one.run("show", *arguments)
    assert told(done) == ("".join(f"<{argument}>" for argument in arguments), "", 0)
    assert told(one.run("--", "show", "-x")) == ("<-x>", "", 0)


# --- the table of errors ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/nonexistent", "/nonexistent/below", "/etc/passwd/below"])
def test_no_socket_is_one_line_that_names_the_path(path: str) -> None:
    line = f"build-service socket not found at {path}\n"
    assert told(client("--socket", path, "make")) == ("", line, 1)


@pytest.mark.skipif(
    not inside() and (Path("/run/build-service.sock").exists() or Path("/run/build-service").exists()),
    reason="a build-service is installed here",
)
def test_without_any_usual_socket_the_line_is_the_requirements() -> None:
    line = "build-service socket not found at /run/build-service.sock\n"
    assert told(client("make")) == ("", line, 1)


def test_a_socket_that_nobody_listens_on_is_one_line_with_the_reason(open_directory: OpenDirectory) -> None:
    directory = open_directory(CALLER)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(directory / "s"))
        (directory / "s").chmod(0o666)
        done = client("--socket", directory / "s", "make")
    line = f"cannot connect to build-service: Connection refused ({directory}/s)\n"
    assert told(done) == ("", line, 1)


@pytest.mark.parametrize("path", ["/etc/passwd", "/", "/" + "x" * 200, "/tmp/" + "\udce9"])
def test_what_is_no_socket_is_one_line(path: str) -> None:
    done = client("--socket", path, "make", env={"LC_ALL": "C"})
    assert (done.stdout, done.returncode, done.stderr.count("\n")) == ("", 1, 1)
    assert re.match("cannot connect to build-service: |build-service socket not found at ", done.stderr), done.stderr


def test_a_directory_outside_the_workspace_is_refused(one: Service) -> None:
    done = one.run("make", cwd=Path("/etc"))
    line = f"cwd must be under workspace: /etc is not under {os.path.realpath(one.workspace)}\n"
    assert told(done) == ("", line, 1)


@pytest.mark.parametrize(("option", "name"), [("-C", "-C"), ("-f", "-f"), ("--directory", "-C"), ("--makefile", "-f")])
def test_a_path_option_that_leads_outside_is_refused_by_its_name(option: str, name: str, one: Service) -> None:
    makefile(one, "all:\n\t@echo built\n")
    done = one.run("make", option, "/etc")
    assert (done.stdout, done.returncode) == ("", 1)
    assert done.stderr.startswith(f"{name} must be under workspace: /etc is not under "), done.stderr


def test_a_command_that_is_not_allowed_is_refused_with_those_that_are(one: Service) -> None:
    allowed = ", ".join(sorted(one.daemon.settings["build"]["commands"]))
    assert told(one.run("rm", "-rf", "/")) == ("", f"command not allowed: rm (allowed: {allowed})\n", 1)


@pytest.mark.parametrize("code", [0, 1, 2, 3, 124, 255])
def test_the_exit_code_is_the_commands_own(
    code: int, open_directory: OpenDirectory, start_service: StartService
) -> None:
    tool = open_directory()
    write_tree(tool, {"tool": f"#!/bin/sh\nexit {code}\n"})
    commands = {"tool": str(tool / "tool")}
    service = start_service("root" if inside() else "user", {"build": {"commands": commands}})
    assert told(service.run("tool")) == ("", "", code)


def test_what_make_returns_passes_through(one: Service) -> None:
    makefile(one, "all:\n\t@exit 7\n")
    done = one.run("make")
    assert (done.stdout, done.returncode) == ("", 2)
    assert done.stderr == "make: *** [Makefile:2: all] Error 7\n"
    assert one.run("make", "-q", "--eval", "x:").returncode in (0, 1)


@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGSEGV, signal.SIGTERM, signal.SIGPIPE])
def test_a_build_that_a_signal_ends_is_128_and_the_number(signum: signal.Signals, service: Service) -> None:
    makefile(service, f"all:\n\t@kill -{int(signum)} $$PPID; sleep 30\n")
    assert service.run("make").returncode == 128 + signum


def test_stdout_and_stderr_stay_apart(service: Service) -> None:
    makefile(service, "all:\n\t@echo out; echo err >&2; echo more\n")
    assert told(service.run("make")) == ("out\nmore\n", "err\n", 0)


def test_a_directory_that_does_not_exist_any_more_is_one_line(one: Service) -> None:
    gone = one.workspace / "gone"
    write_tree(gone, {".keep": ""}, one.caller)
    done = shell(one, f"cd {shlex.quote(str(gone))}; rm -r ../gone; exec CLIENT make")
    *of_sh, line = done.stderr.splitlines()
    assert line == "build-cli: cannot tell the current directory: No such file or directory"
    assert all(said.startswith("sh: ") for said in of_sh)  # dash has its own word on such a directory
    assert (done.stdout, done.returncode) == ("", 1)


def test_more_arguments_than_a_request_may_hold_are_one_line(one: Service) -> None:
    done = one.run("make", *["x" * 100_000] * 11)
    assert told(done) == ("", "invalid request: longer than 1048576 bytes\n", 1)


# --- interpreters -----------------------------------------------------------------------------------------------------


def pythons() -> Sequence[str]:
    """Other interpreters to run the client with: those in BUILD_TEST_PYTHONS (like PATH), and what this machine has."""
    named = [path for path in os.environ.get("BUILD_TEST_PYTHONS", "").split(os.pathsep) if path]
    return [*named, *other_pythons(6)]


@pytest.mark.parametrize("python", pythons())
@pytest.mark.parametrize("locale", ["C", "C.UTF-8"])
def test_the_client_builds_under_each_python(
    python: str, locale: str, open_directory: OpenDirectory, one: Service
) -> None:
    makefile(one, "all:\n\t@printf '%s\\n' '$(VAR)'; printf '\\377'; echo err >&2; exit 3\n")
    image = open_directory()
    (image / "python3").symlink_to(python)
    env = {"PATH": f"{image}:{SYSTEM_PATH}", "LC_ALL": locale}
    done = one.run("make", "VAR=é\udcff", env=env)
    elsewhere = client("--socket", "/nonexistent/é\udcff", "make", env=env)
    assert told(elsewhere) == ("", "build-service socket not found at /nonexistent/é\udcff\n", 1)
    assert done.stdout == "é\udcff\n\udcff"
    assert done.stderr == "err\nmake: *** [Makefile:2: all] Error 3\n"
    assert done.returncode == 2


def test_an_image_without_python_gets_one_line() -> None:
    done = client("make", env={"PATH": "/nonexistent"})
    if not client_is_python():
        assert told(done) == ("", "build-service socket not found at /run/build-service.sock\n", 1)
    elif not os.path.exists("/usr/libexec/platform-python"):
        line = "build-cli: no python3 found on PATH (looked for python3, /usr/libexec/platform-python)\n"
        assert told(done) == ("", line, 1)


@pytest.mark.parametrize("variable", ["PYTHONHOME", "PYTHONPATH", "PYTHONSTARTUP", "PYTHONWARNINGS"])
def test_python_s_own_variables_of_the_container_change_nothing(variable: str, one: Service) -> None:
    makefile(one, "all:\n\t@echo built\n")
    assert told(one.run("make", env={variable: "/nonexistent"})) == ("built\n", "", 0)


def test_modules_in_the_current_directory_are_not_loaded(one: Service) -> None:
    files = {f"{name}.py": "raise SystemExit('loaded')\n" for name in ("os", "socket", "json", "signal", "errno")}
    write_tree(one.workspace / "decoys", {**files, "Makefile": "all:\n\t@echo built\n"}, one.caller)
    assert told(one.run("make", cwd=one.workspace / "decoys")) == ("built\n", "", 0)
