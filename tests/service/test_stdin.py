"""A build's standard input is its caller's: whatever that is, read by the build alone, and never ahead."""

from __future__ import annotations

import os
import socket
import subprocess

import pytest

from daemon import Service
from harness import read_until, run_as, write_tree
from wire import at_rest

CAT = "all:\n\t@cat\n"


def given(service: Service, text: str, *arguments: str) -> str:
    built = service.run(*(arguments or ("make",)), input=text.encode())
    assert (built.stderr, built.returncode) == ("", 0)
    return str(built.stdout)


def in_shell(service: Service, script: str) -> str:
    """What the script writes, run by the caller's own shell, `$MAKE` in it being the client's `make`."""
    words = " ".join(str(word) for word in service.argv("make"))
    done = run_as(service.caller, ["sh", "-c", script], service.workspace, env={"MAKE": words})
    assert (done.stderr, done.returncode) == ("", 0)
    return str(done.stdout)


@pytest.fixture
def cat(service: Service) -> Service:
    write_tree(service.workspace, {"Makefile": CAT, "given": "a file's text\n"}, service.caller)
    return service


def test_a_build_reads_what_is_piped_to_the_client(cat: Service) -> None:
    assert given(cat, "line 1\nline 2, not ended") == "line 1\nline 2, not ended"


def test_a_build_reads_the_file_that_the_client_has(cat: Service) -> None:
    with open(cat.workspace / "given") as file:
        assert cat.run("make", stdin=file).stdout == "a file's text\n"
        assert os.lseek(file.fileno(), 0, os.SEEK_CUR) == len("a file's text\n")  # the same open file


def test_a_build_reads_from_a_socket_as_programs_in_javascript_give_their_children(cat: Service) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.sendall(b"over a socket")
        ours.shutdown(socket.SHUT_WR)
        assert cat.run("make", stdin=theirs).stdout == "over a socket"


def test_a_makefile_is_read_from_standard_input(cat: Service) -> None:
    write_tree(cat.workspace, {"from-stdin.mk": "all:\n\t@echo from stdin\n"}, cat.caller)
    for name in ("-", "/dev/stdin", "/dev/fd/0", "/proc/self/fd/0", "//dev/stdin", "/dev//fd//0"):
        assert in_shell(cat, "cat from-stdin.mk | $MAKE -f " + name) == "from stdin\n"
    assert in_shell(cat, "$MAKE -f - < from-stdin.mk; $MAKE -f /dev/stdin < from-stdin.mk") == "from stdin\n" * 2
    assert in_shell(cat, "$MAKE -f - <<'END'\nall:; @echo $(words here and there)\nEND\n") == "3\n"


def test_of_input_that_the_build_leaves_nothing_is_taken(service: Service) -> None:
    """What stands behind the line that the build reads is there for the next program, as behind a local make."""
    write_tree(service.workspace, {"Makefile": "all:\n\t@read line; echo got $$line\n"}, service.caller)
    reader, writer = os.pipe()
    os.write(writer, b"first\nsecond\nthird\n")
    os.close(writer)
    with open(reader, "rb") as file:
        assert [service.run("make", stdin=file).stdout for _ in range(2)] == ["got first\n", "got second\n"]
        assert file.read() == b"third\n"


def test_endless_input_ends_with_the_build(service: Service) -> None:
    write_tree(service.workspace, {"Makefile": "all:\n\t@head -n 3\n"}, service.caller)
    with subprocess.Popen(["yes"], stdout=subprocess.PIPE) as endless:
        assert service.run("make", stdin=endless.stdout).stdout == "y\ny\ny\n"
        assert endless.stdout
        endless.stdout.close()
    assert endless.returncode == -13  # SIGPIPE: nobody holds the other end any more, nor does the service
    assert at_rest(service.daemon)


def test_input_may_come_while_the_build_runs(service: Service) -> None:
    write_tree(service.workspace, {"Makefile": "all:\n\t@while read line; do echo got $$line; done\n"}, service.caller)
    with service.popen("make", stdin=subprocess.PIPE) as client:
        assert client.stdin and client.stdout
        for number in range(3):
            client.stdin.write(b"%d\n" % number)
            client.stdin.flush()
            read_until(client.stdout.fileno(), f"got {number}\n")
        client.stdin.close()
        assert client.wait() == 0


@pytest.mark.parametrize("closed", ["<&-", "</dev/null"])
def test_without_input_there_is_none(closed: str, cat: Service) -> None:
    assert in_shell(cat, f"$MAKE {closed}") == ""


def test_a_directory_is_refused_in_one_line(cat: Service) -> None:
    fd = os.open(cat.workspace, os.O_RDONLY)
    try:
        refused = cat.run("make", stdin=fd)
    finally:
        os.close(fd)
    assert (refused.stdout, refused.stderr, refused.returncode) == ("", "build-cli: standard input is a directory\n", 1)


@pytest.mark.parametrize("path", ["/dev/fd/63", "/dev//fd/63", "/dev/stdout", "/proc/self/fd/1"])
def test_another_open_file_of_the_caller_is_refused_in_one_line(path: str, cat: Service) -> None:
    """Such as `make -f <(generate)` of bash, which is a pipe of the container's shell."""
    refused = cat.run("make", "-f", path)
    reason = f"-f cannot be {path}: of what the caller has open, the build has standard input alone\n"
    assert (refused.stdout, refused.stderr, refused.returncode) == ("", reason, 1)
