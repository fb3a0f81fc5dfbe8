"""Descriptors that callers hand over: what cannot serve is one clear line, and nothing of them is left anywhere."""

from __future__ import annotations

import os
import select
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress

import pytest

import harness
from daemon import Service
from harness import descendants, write_tree
from wire import WAITING, Gate, RawCaller, assert_ended, at_rest, parent_of, session_ahead, waiting_make

StartService = Callable[..., Service]

MAKEFILE = f"""all:
\t@cat
fds:
\t@ls /proc/self/fd
wait:
{WAITING}"""


@pytest.fixture
def ready(service: Service) -> Service:
    write_tree(service.workspace, {"Makefile": MAKEFILE}, service.caller)
    return service


@contextmanager
def opened(*names: str) -> Iterator[list[int]]:
    """Descriptors of files to hand over."""
    numbers = [os.open(name, os.O_RDONLY) for name in names]
    try:
        yield numbers
    finally:
        for number in numbers:
            os.close(number)


def open_of(pid: int) -> list[str]:
    """What a process has open: the links of proc(5)."""
    found = []
    for name in os.listdir(f"/proc/{pid}/fd"):
        with suppress(FileNotFoundError):
            found.append(os.readlink(f"/proc/{pid}/fd/{name}"))
    return found


def refusal(caller: RawCaller) -> str:
    assert caller.exit()["code"] == 1
    return caller.text()


# --- what cannot serve ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("named", "came", "line"),
    [
        (["stdin"], 0, "1 descriptors are named, and 0 came"),
        (["stdin", "stdout"], 1, "2 descriptors are named, and 1 came"),
        ([], 1, "0 descriptors are named, and 1 came"),
        (None, 3, "0 descriptors are named, and 3 came"),
        (["stdin"], 4, "descriptors were lost: more than 3, or the host has no room for them"),
        (["stdin"], 250, "descriptors were lost: more than 3, or the host has no room for them"),
        (["stdin", "stdin"], 2, "descriptors may hold stdin, stdout and stderr, each once"),
        (["stdlog"], 1, "descriptors may hold stdin, stdout and stderr, each once"),
    ],
)
def test_what_came_must_be_what_is_named(named: list[str] | None, came: int, line: str, ready: Service) -> None:
    with RawCaller(ready) as caller, opened(*["/dev/null"] * came) as numbers:
        if numbers:
            caller.hand_over(numbers, descriptors=named)
        else:
            caller.ask(descriptors=named)
        assert refusal(caller) == f"invalid request: {line}\n"
    assert at_rest(ready.daemon)


def a_listening_socket(stack: ExitStack) -> int:
    listener = stack.enter_context(socket.socket(socket.AF_UNIX))
    listener.bind(b"\0handed over %d" % os.getpid())
    listener.listen()
    return listener.fileno()


def a_datagram_socket(stack: ExitStack) -> int:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    stack.callback(ours.close)
    stack.callback(theirs.close)
    return theirs.fileno()


def kept(stack: ExitStack, number: int) -> int:
    stack.callback(os.close, number)
    return number


UNFIT = {
    "a directory": (lambda stack: kept(stack, os.open("/", os.O_RDONLY)), "it is a directory"),
    "a directory's path": (lambda stack: kept(stack, os.open("/", os.O_PATH)), "it is not open for reading or writing"),
    "a file's path": (lambda s: kept(s, os.open("/etc/passwd", os.O_PATH)), "it is not open for reading or writing"),
    "a listening socket": (a_listening_socket, "it is a socket that is no connected stream"),
    "a datagram socket": (a_datagram_socket, "it is a socket that is no connected stream"),
    "a process": (
        lambda stack: kept(stack, os.pidfd_open(os.getpid())),
        "it is neither a file nor a pipe, a terminal or a socket",
    ),
    "an epoll": (
        lambda stack: stack.enter_context(select.epoll()).fileno(),
        "it is neither a file nor a pipe, a terminal or a socket",
    ),
}


@pytest.mark.parametrize("stream", ["stdin", "stdout", "stderr"])
@pytest.mark.parametrize("kind", UNFIT)
def test_what_no_program_can_use_is_refused(kind: str, stream: str, ready: Service) -> None:
    make, reason = UNFIT[kind]
    with ExitStack() as stack, RawCaller(ready) as caller:
        caller.hand_over([make(stack)], descriptors=[stream])
        assert refusal(caller) == f"invalid request: {stream} cannot be used: {reason}\n"


# --- what is left of them ---------------------------------------------------------------------------------------------


def test_a_build_has_the_standard_descriptors_and_no_other(ready: Service) -> None:
    with RawCaller(ready) as caller, opened("/etc/passwd", "/etc/passwd") as numbers:
        caller.hand_over(numbers, "fds", descriptors=["stderr", "stdin"])
        assert caller.exit()["code"] == 0
        assert caller.text() == "0\n1\n2\n3\n"  # the last one is the directory that ls reads


@pytest.mark.needs_root
def test_the_service_keeps_none(ready: Service) -> None:
    """A pipe whose other end somebody waits for is in no process of the service as soon as its build has begun."""
    session_ahead(ready)
    reader, writer = os.pipe()
    name = os.readlink(f"/proc/self/fd/{reader}")
    with Gate(ready.workspace, ready.caller) as gate, RawCaller(ready) as caller:
        caller.hand_over([reader], "wait", descriptors=["stdin"])
        os.close(reader)
        make = waiting_make(caller.await_output("waits\n"))
        build = {make, *(each.pid for each in descendants(make))}
        service = {ready.daemon.pid, *(each.pid for each in descendants(ready.daemon.pid))} - build
        assert parent_of(make) in service and len(service) >= 3
        assert {pid for pid in service if name in open_of(pid)} == set()
        assert name in open_of(make)
        gate.open()
        assert caller.exit()["code"] == 0
    with pytest.raises(BrokenPipeError):
        os.write(writer, b"x")
    os.close(writer)


def test_many_refusals_leave_no_descriptor(ready: Service) -> None:
    session_ahead(ready)
    before = len(open_of(ready.daemon.pid))
    for _ in range(20):
        with RawCaller(ready) as caller, opened("/dev/null", "/", "/etc/passwd") as numbers:
            caller.hand_over(numbers, descriptors=["stdin", "stdout", "stderr"])
            refusal(caller)
    session_ahead(ready)
    assert len(open_of(ready.daemon.pid)) == before


def test_descriptors_may_come_with_any_byte_of_the_request(ready: Service) -> None:
    reader, writer = os.pipe()
    os.write(writer, b"from a pipe\n")
    os.close(writer)
    with RawCaller(ready) as caller:
        line = caller.line(descriptors=["stdin"])
        caller.send(line[:20])
        socket.send_fds(caller.socket, [line[20:-1]], [reader])
        os.close(reader)
        caller.send(line[-1:])
        assert caller.exit()["code"] == 0
        assert caller.text() == "from a pipe\n"


def test_descriptors_behind_the_request_are_nobody_s(ready: Service) -> None:
    with Gate(ready.workspace, ready.caller) as gate, RawCaller(ready) as caller:
        make = waiting_make(caller.ask("wait").await_output("waits\n"))
        reader, writer = os.pipe()
        socket.send_fds(caller.socket, [b'{"type":"later"}\n'], [reader])
        os.close(reader)
        poll = select.poll()
        poll.register(writer, 0)
        assert poll.poll(harness.PATIENCE_SEC * 1000) == [(writer, select.POLLERR)]  # nobody has the other end
        os.close(writer)
        gate.open()
        assert caller.exit()["code"] == 0
    assert_ended(make)


def test_who_hands_something_over_and_goes_away_leaves_nothing(ready: Service) -> None:
    reader, writer = os.pipe()
    with Gate(ready.workspace, ready.caller):
        with RawCaller(ready) as caller:
            caller.hand_over([reader], "wait", descriptors=["stdin"])
            make = waiting_make(caller.await_output("waits\n"))
        assert_ended(make)
    assert at_rest(ready.daemon)
    os.close(reader)
    with pytest.raises(BrokenPipeError):
        os.write(writer, b"x")
    os.close(writer)
