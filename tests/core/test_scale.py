"""What a caller sends costs time in proportion to its length: no shape of a request makes its reader slow.

Each shape is read at a quarter of its size and in full. Four times the length may take four times as long; a loop that
begins anew for each piece would take sixteen times as long.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping

import pytest

from buildcore.core import arguments, policy, settings, text
from buildcore.core.errors import BuildError
from buildcore.core.protocol import requests

FULL = requests.MAX_REQUEST_BYTES - 512
"""The text of a request as long as there can be, in characters."""

SHARE = 4
MOST_TIMES_AS_LONG = 9
"""Between the 4 of what is in proportion and the 16 of what is not."""

LEAST_SEC = 0.01
"""What takes less at a quarter of the size is taken to have taken this: less is the noise of the machine."""

TRIES = 3
MOST_SEC = 5.0
"""Of processor, for the whole of what a session does with values; the slowest shape takes a fifth of it."""

CALLER = policy.Caller("dev1", "/home/dev1", "/bin/sh")
BUILD = settings.Build(
    commands={name: f"/usr/bin/{name}" for name in arguments.KNOWN_COMMANDS},
    path_mapping=settings.PathMapping(container_template="/in"),
)


def repeated(unit: str, size: int) -> str:
    return unit * (size // len(unit))


def words(unit: str, size: int) -> list[str]:
    """As many arguments as a request of `size` bytes has room for."""
    return [unit] * (size // len(json.dumps(unit) + ","))


def request(*args: str, command: str = "make", cwd: str = "/in/app", **fields: object) -> bytes:
    return json.dumps({"command": command, "cwd": cwd, "args": args, **fields}, separators=(",", ":")).encode()


def in_makeflags(value: str) -> bytes:
    return request(env={"MAKEFLAGS": value})


OPTIONS = {
    "ctest": "--test-dir", "meson": "-Cx", "cargo": "-Cx", "go": "-o=x", "npm": "-C=x", "bazel": "--bazelrc=x",
}

SHAPES: Mapping[str, Callable[[int], bytes]] = {
    "a long name": lambda size: request("-f", repeated("a/", size)),
    "a name of dots": lambda size: request("-f", repeated("./", size)),
    "an attached name of dots": lambda size: request("-C" + repeated("./", size), "-C."),
    "a name of slashes": lambda size: request("-f", "." + repeated("/", size)),
    "a name of dots in the container": lambda size: request("-f", "/in/" + repeated("./", size)),
    "a home directory behind dots": lambda size: request("-f", repeated("./", size) + "~/x"),
    "a directory of dots": lambda size: request(cwd="/in/" + repeated("./", size)),
    "tildes": lambda size: request("-f", repeated("~", size)),
    "one cluster of letters": lambda size: request("-" + repeated("k", size)),
    "one long option": lambda size: request("--" + repeated("f", size)),
    "many files": lambda size: request(*words("-fx", size)),
    "many files in home directories": lambda size: request(*words("-f~", size)),
    "many directories": lambda size: request(*words("-Cx", size)),
    "many directories, each another": lambda size: request(*(f"-C{number}" for number in range(size // 12))),
    "many options without a name": lambda size: request(*words("--=", size)),
    "many abbreviations": lambda size: request(*words("--m=x", size)),
    "many directories to include from": lambda size: request(*words("-Ix", size)),
    "many empty words": lambda size: request(*words("", size)),
    "many options of ninja": lambda size: request(*words("-Cx", size), command="ninja"),
    "many paths of cmake": lambda size: request(*words("x", size), command="cmake"),
    "many options of cmake": lambda size: request(*words("-Bx", size), command="cmake"),
    "a build of cmake": lambda size: request("--build", "x", "--", *words("-Cx", size), command="cmake"),
    **{
        f"many options of {tool}": lambda size, tool=tool, word=word: request(*words(word, size), command=tool)
        for tool, word in OPTIONS.items()
    },
    "many builds and tests": lambda size: request(*words("--build-and-test", size), command="ctest"),
    "many options of builds": lambda size: request(
        *(["--build-options", "--build-target"] * (len(words("x" * 15, size)) // 2)), command="ctest"
    ),
    "many makefiles": lambda size: request("MAKEFILES=" + repeated("x ", size)),
    "many definitions": lambda size: request(*words("MAKEFILES=x", size)),
    "blanks before a definition": lambda size: request(repeated(" ", size) + "MAKEFILES"),
    "many variables": lambda size: request(env={f"V{number}": "" for number in range(size // 12)}),
    "escaped blanks in MAKEFLAGS": lambda size: in_makeflags(repeated("\\ ", size // 2)),
    "backslashes in MAKEFLAGS": lambda size: in_makeflags(repeated("\\", size // 2)),
    "blanks in MAKEFLAGS": lambda size: in_makeflags(repeated(" ", size)),
    "words in MAKEFLAGS": lambda size: in_makeflags(repeated("-k ", size)),
    "names in MAKEFLAGS": lambda size: in_makeflags(repeated("-Ix ", size)),
    "jobservers in MAKEFLAGS": lambda size: in_makeflags(repeated("--jobserver-fds ", size)),
    "dollars in MAKEFLAGS": lambda size: in_makeflags(repeated("$$", size)),
    "a command that is not allowed": lambda size: request(command=repeated("\u0085", size // 6)),
    "a request id": lambda size: request(request_id=repeated("x", size)),
    "digits": lambda size: b'{"timeout_sec":' + b"1" * size + b"}",
    "digits behind a point": lambda size: b'{"timeout_sec":0.' + b"1" * size + b"}",
    "many names": lambda size: b"{" + b",".join(b'"%d":0' % number for number in range(size // 12)) + b"}",
    "lists in lists": lambda size: b"[" * size,
    "objects in objects": lambda size: b'{"a":' * (size // 5),
    "a string of escapes": lambda size: b'{"command":"' + b"\\u0085" * (size // 6) + b'"}',
    "a string without end": lambda size: b'{"command":"' + b"\\\\" * (size // 2),
    "blanks": lambda size: b" " * size,
    "blanks and then a fault": lambda size: b" " * size + b"}",
}


def judge(data: bytes) -> str:
    """All that is done with values of a request, up to the log line of its refusal; returns the refusal, or nothing."""
    reader = requests.RequestReader()
    for begin in range(0, len(data), 1 << 16):
        reader.receive_data(data[begin : begin + (1 << 16)])
        if begin + (1 << 16) < len(data):
            assert reader.next_event() is None
    reader.receive_data(b"\n")
    fields: dict[str, object] = {}
    try:
        request = reader.next_event()
        assert isinstance(request, requests.Request)
        fields = {"cwd": request.cwd, "args": request.args, "command": request.command}
        plan = policy.plan(request, BUILD, CALLER, {})
        args = policy.host_arguments(plan, plan.views[0])
        arguments.directory_walks(plan.command, arguments.path_arguments(plan.command, args))
        refusal = ""
    except BuildError as exc:
        refusal = text.escape(str(exc))
    text.line(0, "warn", "build_service", "build refused", {**fields, "reason": refusal})
    return refusal


def processor_sec(data: bytes) -> float:
    begin = time.process_time()
    judge(data)
    return time.process_time() - begin


@pytest.mark.parametrize("shape", SHAPES)
def test_a_request_of_any_shape_is_judged_in_proportion_to_its_length(shape: str) -> None:
    short, long = SHAPES[shape](FULL // SHARE), SHAPES[shape](FULL)
    assert len(long) <= requests.MAX_REQUEST_BYTES
    quarters, fulls = [], []
    for _ in range(TRIES):  # what the machine adds to one of them, it does not add to all
        quarters.append(processor_sec(short))
        fulls.append(processor_sec(long))
        if min(fulls) < min(MOST_SEC, MOST_TIMES_AS_LONG * max(min(quarters), LEAST_SEC)):
            return
    raise AssertionError((quarters, fulls))
