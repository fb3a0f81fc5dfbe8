"""build-cli: it prints, fails and ends as the build does, and whatever happens it says one clear line at most.

The real program against the real daemon, and against servers that a test plays on a real socket byte by byte.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import pty
import random
import re
import shlex
import signal
import socket
import subprocess
import termios
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest

import harness
from daemon import Service, merged, toml
from fake_server import CALLER, FakeServer
from harness import BIN, SYSTEM_PATH, other_pythons, read_until, run_as, write_tree
from harness_world import inside
from wire import WAITING, Gate, assert_ended, at_rest, await_handler, foreign_processes, waiting_make

StartService = Callable[..., Service]
OpenDirectory = Callable[..., Path]

SAYS_WHY_IT_ENDS = (
    "\t@trap 'echo heard; read x < gate; trap - INT TERM HUP; kill -$$caught $$$$' EXIT;"
    " for s in INT TERM HUP; do trap \"trap '' INT TERM HUP; caught=$$s; exit\" $$s; done;"
    " echo make $$PPID waits; while :; do read x < gate; done\n"
)
"""A recipe that, when it hears a signal, says so and waits at the gate before it dies by it: what make says then comes
long after the signal, when make has heard of it as well. What make passes on to it then is not to be heard again."""


@pytest.fixture
def one(start_service: StartService) -> Service:
    """A service, in one flavour: for what the client does alone."""
    return start_service("root" if inside() else "user")


def makefile(service: Service, text: str) -> None:
    write_tree(service.workspace, {"Makefile": text}, service.caller)


def client(
    *arguments: str | os.PathLike[str], env: Mapping[str, str] | None = None, cwd: str = "/", **options: Any
) -> subprocess.CompletedProcess[str]:
    return run_as(CALLER, [BIN / "build-cli", *arguments], Path(cwd), env, **options)


def told(done: subprocess.CompletedProcess[str]) -> tuple[str, str, int]:
    return done.stdout, done.stderr, done.returncode


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


# --- output -----------------------------------------------------------------------------------------------------------


def test_a_line_shows_while_the_build_goes_on(service: Service) -> None:
    recipe = "@echo first; read x < gate; echo second >&2; read x < gate; printf third; read x < gate"
    makefile(service, f"all:\n\t{recipe}\n")
    with Gate(service.workspace, service.caller) as gate:
        process = service.popen("make")
        assert process.stdout and process.stderr
        for pipe, line in ((process.stdout, "first\n"), (process.stderr, "second\n"), (process.stdout, "third")):
            assert read_until(pipe.fileno(), line) == line
            assert process.poll() is None
            gate.open()
        assert process.communicate() == (b"", b"")
        assert process.returncode == 0


def test_every_byte_value_comes_out_as_it_went_in(service: Service) -> None:
    data = bytes(range(256)) * 3 + b"\xc3" + b"\xf0\x9f\x98\x80\xf0\x9f" + b"\xed\xa0\x80\n\r\n\0"
    (service.workspace / "data").write_bytes(data)
    makefile(service, "all:\n\t@cat data; cat data >&2\n")
    done = service.run("make")
    assert done.stdout.encode("utf-8", "surrogateescape") == data
    assert done.stderr.encode("utf-8", "surrogateescape") == data


def test_a_character_that_is_written_in_pieces_is_not_lost_nor_held_back_at_the_end(service: Service) -> None:
    makefile(service, "all:\n\t@printf '\\303'; read x < gate; printf '\\251'; read x < gate; printf '\\342\\202'\n")
    with Gate(service.workspace, service.caller) as gate:
        gate.open(2)
        assert service.run("make").stdout == "é" + "\udce2\udc82"


@pytest.mark.parametrize("kind", ["binary", "text"])
def test_fifty_megabytes_come_through_unchanged_and_in_order(kind: str, service: Service) -> None:
    path = service.workspace / "big"
    if kind == "binary":
        path.write_bytes(random.Random(17).randbytes(50 << 20))
    else:
        path.write_text("".join(f"gcc -c -o größe{number}.o größe{number}.c\n" for number in range(1_200_000)))
    expected = hashlib.sha256(path.read_bytes()).hexdigest()
    harness.give(path, service.caller)
    makefile(service, "all:\n\t@cat big\n\t@tail -c 1000000 big >&2\n")
    tail = path.read_bytes()[-1_000_000:]
    with open(service.daemon.directory / "out", "w+b") as out, open(service.daemon.directory / "err", "w+b") as err:
        done = service.run("make", stdout=out, stderr=err)
        out.seek(0)
        err.seek(0)
        assert hashlib.sha256(out.read()).hexdigest() == expected
        assert err.read() == tail
    assert done.returncode == 0
    path.unlink()


def test_bytes_that_are_no_utf8_reach_the_build_in_arguments_directory_and_environment(service: Service) -> None:
    odd = b"d\xff\xe9 \xc3\xa9"
    directory = os.path.join(os.fsencode(service.workspace), odd)
    os.makedirs(directory, exist_ok=True)
    recipe = "all:\n\t@printf '%s|' '$(VAR)' \"$$CFLAGS\" \"$$PWD\" \"$${PWD##*/}\"; basename \"`pwd`\"\n"
    with open(os.path.join(directory, b"Makefile"), "w") as file:
        file.write(recipe)
    for locale in ("C", "C.UTF-8", "POSIX"):
        env = {"CFLAGS": os.fsdecode(b"-D\xe9=\xc3\xa9"), "LC_ALL": locale}
        done = service.run("make", os.fsdecode(b"VAR=\xfe\x80\xc3\xa9"), cwd=Path(os.fsdecode(directory)), env=env)
        out = done.stdout.encode("utf-8", "surrogateescape")
        real = os.path.realpath(directory)
        assert out == b"\xfe\x80\xc3\xa9|-D\xe9=\xc3\xa9|" + real + b"|" + odd + b"|" + odd + b"\n", done
        assert (done.stderr, done.returncode) == ("", 0)


def shell(service: Service, script: str, **options: Any) -> subprocess.CompletedProcess[str]:
    """Runs sh with the client's command line as `$client`."""
    command = " ".join(shlex.quote(os.fspath(word)) for word in service.argv())
    text = script.replace("CLIENT", command)
    return run_as(service.caller, ["/bin/sh", "-c", text], service.workspace, **options)


def test_a_reader_that_goes_away_ends_the_client_quietly_and_the_build_with_it(service: Service) -> None:
    makefile(service, "all:\n\t@echo make $$PPID waits; yes\n")
    process = service.popen("--request-id", "headless", "make")
    assert process.stdout and process.stderr
    make = waiting_make(read_until(process.stdout.fileno(), "waits\n"))
    process.stdout.close()
    assert process.stderr.read() == b""
    assert process.wait() == -signal.SIGPIPE
    process.stderr.close()
    assert_ended(make)
    service.daemon.await_log("build cancelled .*request_id=headless")
    assert not foreign_processes(service.daemon)


def test_head_gets_its_line_and_the_shell_sees_sigpipe(one: Service) -> None:
    makefile(one, "all:\n\t@echo first; yes\n")
    done = shell(one, "{ CLIENT make; echo $? >&2; } | head -n 1")
    assert told(done) == ("first\n", f"{128 + signal.SIGPIPE}\n", 0)
    one.daemon.await_log("build cancelled ")


def test_a_full_disk_is_one_line_and_ends_the_build(one: Service) -> None:
    makefile(one, "all:\n\t@echo first; yes\n")
    done = shell(one, "CLIENT make > /dev/full")
    assert told(done) == ("", "build-cli: No space left on device\n", 1)
    one.daemon.await_log("build cancelled ")
    assert at_rest(one.daemon)


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&-", "<&- >&-", "<&- >&- 2>&-"])
def test_closed_descriptors_are_no_traceback(closed: str, one: Service) -> None:
    makefile(one, "all:\n\t@echo out; echo err >&2\n")
    done = shell(one, f"CLIENT make {closed}")
    if ">&-" in closed.split():
        assert told(done) == ("", "build-cli: Bad file descriptor\n" * ("2>&-" not in closed), 1)
    elif "2>&-" in closed:
        assert done.returncode == 1 and done.stderr == ""
    else:
        assert told(done) == ("out\n", "err\n", 0)
    assert at_rest(one.daemon)


def test_a_stdout_that_does_not_block_gets_every_byte(one: Service) -> None:
    makefile(one, "all:\n\t@head -c 3000000 /dev/zero; echo end >&2\n")
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    process = one.popen("make", stdout=writer)
    os.close(writer)
    with open(reader, "rb") as output:
        assert len(output.read()) == 3_000_000
    assert process.communicate() == (None, b"end\n")
    assert process.returncode == 0


# --- signals ----------------------------------------------------------------------------------------------------------

CANCELS = [(signal.SIGINT, "Interrupt"), (signal.SIGTERM, "Terminated"), (signal.SIGHUP, "Hangup")]


@pytest.mark.parametrize(("signum", "word"), CANCELS, ids=[word for _, word in CANCELS])
def test_a_signal_cancels_the_build_and_what_make_says_of_it_is_relayed(
    signum: signal.Signals, word: str, service: Service
) -> None:
    makefile(service, "all:\n" + SAYS_WHY_IT_ENDS)
    with Gate(service.workspace, service.caller) as gate:
        process = service.popen("--request-id", "cancelled", "make", start_new_session=True)
        assert process.stdout
        make = waiting_make(read_until(process.stdout.fileno(), "waits\n"))
        os.killpg(process.pid, signum)
        read_until(process.stdout.fileno(), "heard\n")
        await_handler(make, signum)
        gate.open()
        out, err = process.communicate()
    assert err.decode() == f"make: *** [Makefile:2: all] {word}\n"
    assert process.returncode == -signum
    assert_ended(make)
    service.daemon.await_log("build cancelled .*request_id=cancelled")
    assert not foreign_processes(service.daemon)


def test_control_c_on_a_terminal_is_what_it_is_for_make(service: Service) -> None:
    makefile(service, "all:\n" + SAYS_WHY_IT_ENDS)
    master, slave = pty.openpty()

    def take_terminal() -> None:
        os.setsid()
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)

    with Gate(service.workspace, service.caller) as gate:
        process = service.popen("make", stdin=slave, stdout=slave, stderr=slave, preexec_fn=take_terminal)
        os.close(slave)
        make = waiting_make(read_until(master, "waits\r\n"))
        os.write(master, b"\x03")
        read_until(master, "heard\r\n")
        await_handler(make, signal.SIGINT)
        gate.open()
        read_until(master, r"make: \*\*\* \[Makefile:2: all\] Interrupt\r\n")
        assert process.wait() == -signal.SIGINT
        assert_ended(make)
    os.close(master)


def test_a_second_control_c_ends_the_client_at_once_and_the_build_after_its_grace(start_service: StartService) -> None:
    service = start_service("root" if inside() else "user", {"build": {"timeouts": {"grace_sec": 1}}})
    recipe = "@trap 'echo ignored' INT TERM; echo make $$PPID waits; while :; do read x < gate; done"
    makefile(service, f"all:\n\t{recipe}\n")
    with Gate(service.workspace, service.caller):
        process = service.popen("make", start_new_session=True)
        assert process.stdout and process.stderr
        make = waiting_make(read_until(process.stdout.fileno(), "waits\n"))
        process.send_signal(signal.SIGINT)
        read_until(process.stdout.fileno(), "ignored\n")
        began = time.monotonic()
        process.send_signal(signal.SIGINT)
        assert process.wait() == -signal.SIGINT
        assert time.monotonic() - began < 1  # the grace would be over then
        process.stdout.close()
        process.stderr.close()
        assert_ended(make)
        service.daemon.await_log("build cancelled .*exit_code=137 ")


def test_a_client_that_is_killed_cancels_its_build(service: Service) -> None:
    makefile(service, f"all:\n{WAITING}")
    with Gate(service.workspace, service.caller):
        process = service.popen("make")
        assert process.stdout
        make = waiting_make(read_until(process.stdout.fileno(), "waits\n"))
        process.kill()
        process.communicate()
        assert_ended(make)
    service.daemon.await_log("build cancelled ")


@pytest.mark.parametrize("name", ["HUP", "INT", "TERM"])
def test_a_signal_that_was_ignored_at_the_start_stays_ignored(name: str, one: Service) -> None:
    makefile(one, f"all:\n{WAITING}")
    command = " ".join(shlex.quote(os.fspath(word)) for word in one.argv("make"))
    argv = ["/bin/sh", "-c", f"trap '' {name}; exec {command}"]
    with Gate(one.workspace, one.caller) as gate:
        process = harness.popen_as(one.caller, argv, one.workspace, stdout=-1, stderr=-1)
        assert process.stdout
        read_until(process.stdout.fileno(), "waits\n")
        process.send_signal(signal.Signals[f"SIG{name}"])
        gate.open()
        assert process.communicate() == (b"done\n", b"")
        assert process.returncode == 0


def test_it_waits_where_a_signal_that_came_just_before_wakes_it(fake: FakeServer) -> None:
    """Python's handlers run between two steps: before a blocking recv(2) a signal would go unheard until it returns."""
    process = fake.start()
    connection, _ = fake.accept()
    with connection:
        connection.sendall(b'{"type":"stdout","data":"first\\n"}\n')
        assert process.stdout and process.stdout.readline() == b"first\n"
        deadline = time.monotonic() + harness.PATIENCE_SEC
        while "poll" not in Path(f"/proc/{process.pid}/wchan").read_text():
            assert time.monotonic() < deadline, "it waits somewhere else"
            time.sleep(0.005)
        process.send_signal(signal.SIGINT)
        assert connection.recv(1000) == b'{"type":"cancel","signal":"INT"}\n'
    process.communicate()


BEFORE_THE_FIRST_LINE = re.compile(rb"Fatal Python error: (?:Py_I|i)nit|argv\[0\]|line 0, in <module>")
"""What Python itself says of a SIGINT in the third of a millisecond before it runs the first line of a program."""


def test_a_signal_at_any_moment_of_the_start_is_no_traceback(one: Service) -> None:
    makefile(one, "all:\n\t@sleep 5\n")
    for step in range(24):
        process = one.popen("make", start_new_session=True)
        try:
            process.wait(step * 0.004)  # not to wait for anything: to hit it wherever it is by then
        except subprocess.TimeoutExpired:
            pass
        os.killpg(process.pid, signal.SIGINT)
        _, err = process.communicate()
        if BEFORE_THE_FIRST_LINE.search(err):
            continue
        assert process.returncode == -signal.SIGINT, err
        assert b"Traceback" not in err and b"KeyboardInterrupt" not in err
    assert at_rest(one.daemon)


# --- servers that break the rules -------------------------------------------------------------------------------------


@pytest.fixture
def fake() -> Iterator[FakeServer]:
    with closing(FakeServer()) as server:
        yield server


EXIT = b'{"type":"exit","code":0,"timed_out":false}\n'
OUT = b'{"type":"stdout","data":"some output\\n"}\n'
BROKEN = {
    "nothing": [],
    "a blank line": [b"\n"],
    "garbage": [b"hello\n"],
    "binary garbage": [bytes(range(256)) + b"\n"],
    "HTTP": [b"HTTP/1.1 400 Bad Request\r\n\r\n"],
    "no object": [b"[]\n"],
    "no type": [b"{}\n"],
    "a type that is no string": [b'{"type":5}\n'],
    "no code": [b'{"type":"exit"}\n'],
    "a code that is no number": [b'{"type":"exit","code":"0"}\n'],
    "a code that is true": [b'{"type":"exit","code":true}\n'],
    "output without data": [b'{"type":"stdout"}\n'],
    "data that is no string": [b'{"type":"stdout","data":[1]}\n'],
    "wrong base64": [b'{"type":"stdout","data":"x","encoding":"base64","data_b64":"A"}\n'],
    "base64 that is not ASCII": ['{"type":"stdout","data":"x","encoding":"base64","data_b64":"é"}\n'.encode()],
    "a lone surrogate": [b'{"type":"stdout","data":"\\ud800"}\n'],
    "half an event": [OUT, b'{"type":"exit","co'],
    "an exit without its line end": [OUT, EXIT[:-1]],
    "output and no exit": [OUT],
    "not UTF-8": [b'{"type":"stdout","data":"\xff"}\n'],
    "nested deeply": [b'{"type":' * 100_000 + b"\n"],
    "brackets": [b"[" * 100_000 + b"\n"],
    "a number of many digits": [b'{"type":"exit","code":' + b"9" * 100_000 + b"x}\n"],
    "a line without end": [b'{"type":"stdout","data":"' + b"x" * (1 << 20)] + [b"x" * (1 << 20)] * 7,
    "NaN": [b'{"type":"exit","code":NaN}\n'],
}


@pytest.mark.parametrize("pieces", BROKEN.values(), ids=BROKEN)
def test_an_answer_that_breaks_the_protocol_is_one_line_and_exit_1(pieces: list[bytes], fake: FakeServer) -> None:
    out, err, code = fake.answer(*pieces)
    assert code == 1
    assert err.startswith(b"invalid response from build-service: ") and err.count(b"\n") == 1, err
    assert out == (b"some output\n" if OUT in pieces else b"")


ACCEPTED = {
    "what it does not know": ([b'{"type":"progress","percent":3}\n', OUT, EXIT], b"some output\n", 0),
    "fields it does not know": ([b'{"type":"stdout","data":"x","at":[1,{}]}\n', EXIT], b"x", 0),
    "blank lines": ([b"\r\n \n", OUT, b"\n", EXIT], b"some output\n", 0),
    "an exit of few fields": ([b'{"type":"exit","code":3}\n'], b"", 3),
    "lossy text alone": (['{"type":"stdout","data":"\ufffd"}\n'.encode(), EXIT], b"\xef\xbf\xbd", 0),
    "escapes": ([b'{"type":"stdout","data":"\\u00e9\\ud83d\\ude00\\u0000"}\n', EXIT], "é😀\0".encode(), 0),
    "base64 of nothing": ([b'{"type":"stdout","data":"?","data_b64":""}\n', EXIT], b"", 0),
    "a code that no process can have": ([b'{"type":"exit","code":300}\n'], b"", 1),
    "what comes behind the exit": ([EXIT, OUT, b"garbage"], b"", 0),
    "one byte at a time": ([bytes([byte]) for byte in OUT + EXIT], b"some output\n", 0),
}


@pytest.mark.parametrize(("pieces", "output", "code"), ACCEPTED.values(), ids=ACCEPTED)
def test_an_answer_that_is_only_unusual_is_taken(
    pieces: list[bytes], output: bytes, code: int, fake: FakeServer
) -> None:
    assert fake.answer(*pieces) == (output, b"", code)


def test_a_timeout_of_an_old_service_is_told_with_the_seconds_that_were_asked_for(fake: FakeServer) -> None:
    process = fake.start("--timeout", "7", "make")
    connection, request = fake.accept()
    assert request["timeout_sec"] == 7
    with connection:
        connection.sendall(b'{"type":"exit","code":124,"timed_out":true}\n')
    assert process.communicate() == (b"", b"build timed out after 7s\n")
    assert process.returncode == 124


def test_a_service_that_hangs_up_on_a_long_request_is_one_line(fake: FakeServer) -> None:
    process = fake.start("make", *["x" * 100_000] * 9)
    connection, _ = fake.listener.accept()
    connection.recv(1)
    connection.close()
    _, err = process.communicate()
    assert err == b"invalid response from build-service: the connection ended before the build's exit\n"
    assert process.returncode == 1


def test_a_refusal_of_a_request_that_was_not_read_to_its_end_is_shown(fake: FakeServer) -> None:
    process = fake.start("make", *["x" * 100_000] * 9)
    connection, _ = fake.listener.accept()
    connection.sendall(b'{"type":"stderr","data":"no\\n"}\n{"type":"exit","code":1,"timed_out":false}\n')
    connection.close()
    assert process.communicate() == (b"", b"no\n")
    assert process.returncode == 1


def test_the_request_holds_what_the_protocol_says(fake: FakeServer) -> None:
    env = {"CFLAGS": "-O1", "SECRET": "x"}
    process = fake.start("--request-id", "seventeen", "make", "-j4", "é", env=env, umask=0o027)
    connection, request = fake.accept()
    with connection:
        connection.sendall(EXIT)
    process.communicate()
    sent = request.pop("env")
    assert sent["CFLAGS"] == "-O1" and "SECRET" not in sent and "HOME" not in sent
    assert request.pop("features")
    assert request == {
        "schema_version": "1",
        "command": "make",
        "args": ["-j4", "é"],
        "cwd": "/",
        "request_id": "seventeen",
        "umask": "0027",
    }
    assert process.returncode == 0


@pytest.mark.parametrize("signals", [1, 2])
def test_control_c_gets_away_from_a_service_that_says_nothing(signals: int, fake: FakeServer) -> None:
    process = fake.start()
    connection, _ = fake.accept()
    with connection:
        process.send_signal(signal.SIGINT)
        assert json.loads(connection.recv(4096)) == {"type": "cancel", "signal": "INT"}
        if signals == 2:
            process.send_signal(signal.SIGINT)
        else:
            connection.shutdown(socket.SHUT_RDWR)
        assert process.wait() == -signal.SIGINT
    assert process.communicate() == (b"", b"")


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_gets_away_from_a_service_that_does_not_accept(signum: signal.Signals, fake: FakeServer) -> None:
    fake.listener.listen(0)
    with ExitStack() as stack:
        waiting = []
        for _ in range(2):  # one is in the queue, the other waits to get there
            caller = stack.enter_context(socket.socket(socket.AF_UNIX))
            caller.setblocking(False)
            waiting.append(caller.connect_ex(str(fake.path)))
        assert waiting[-1] != 0
        process = fake.start()
        await_connecting(process.pid)
        process.send_signal(signum)
        assert process.communicate() == (b"", b"")
        assert process.returncode == -signum


def await_connecting(pid: int) -> None:
    """Waits until the process sleeps in a full accept queue: no event tells of it, so this looks until it is so."""
    deadline = time.monotonic() + harness.PATIENCE_SEC
    while "unix_wait_for_peer" not in Path(f"/proc/{pid}/wchan").read_text():
        assert time.monotonic() < deadline
        time.sleep(0.01)


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
    if not os.path.exists("/usr/libexec/platform-python"):
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
