"""The client in C: how it is made, and that it asks for exactly what the client in Python asks for.

What it does with the answer is what tests/static_client.py runs the client's own tests for, and tests/fuzz/in_c.py.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import static_client
import tools
from buildcore.core import variables
from buildcore.core.protocol import requests
from fake_server import CALLER, FakeServer
from harness import BIN, popen_as, python_directory

EXIT = b'{"type":"exit","code":0,"timed_out":false}\n'


@pytest.fixture(scope="module")
def program() -> Path:
    """The client, made in the checkout: there every user may run it."""
    static_client.SHIPPED.mkdir(parents=True, exist_ok=True)
    return static_client.make(static_client.SHIPPED).replace(static_client.SHIPPED / "build-cli")


@pytest.fixture
def fake() -> Iterator[FakeServer]:
    server = FakeServer()
    yield server
    server.close()


def test_it_stays_small() -> None:
    sources = [*static_client.SOURCES.glob("*.[ch]")]
    lines = [line for path in sources for line in path.read_text(encoding="utf-8").splitlines()]
    assert len([line for line in lines if line.strip()]) <= static_client.MAX_LINES
    assert max(map(len, lines)) <= 120


@pytest.mark.parametrize("compiler", ["gcc", "musl-gcc"])
def test_it_is_one_static_program_without_a_warning(compiler: str, tmp_path: Path) -> None:
    tools.need(compiler)
    flags = "-std=c11 -Os -static -s -Wall -Wextra -Werror"
    made = static_client.make(tmp_path, CLIENT_CC=compiler, CLIENT_CFLAGS=flags)
    assert b"INTERP" not in subprocess.run(["readelf", "-l", made], check=True, capture_output=True).stdout
    done = subprocess.run([made, "--version"], capture_output=True, text=True, env={})
    assert (done.stdout, done.stderr, done.returncode) == (version(), "", 0)
    assert subprocess.run([made, "--help"], capture_output=True).stdout == asked(BIN / "build-cli", "--help").encode()


def version() -> str:
    return asked(BIN / "build-cli", "--version")


def asked(path: Path, option: str) -> str:
    return subprocess.run([path, option], check=True, capture_output=True, text=True).stdout


# --- what it asks for -------------------------------------------------------------------------------------------------


def request_of(
    client: Sequence[str | Path], server: FakeServer, words: Sequence[str], env: Mapping[str, str], **options: Any
) -> Any:
    """What a client asks for, with these words behind the socket's path."""
    pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
    socket = ["--socket", str(server.path)]
    process = popen_as(CALLER, [*client, *socket, *words], pipes.pop("cwd", "/"), env, **pipes)
    connection, fields = server.accept()
    with connection:
        connection.sendall(EXIT)
        process.communicate()
    return requests.parse_request(json.dumps(fields).encode())


def both_of(program: Path) -> tuple[Sequence[str | Path], ...]:
    """Both clients; that in Python without its launcher, as sh has its own ways with variables."""
    return [program], [f"{python_directory()}/python3", "-I", "-S", BIN / "build-cli"]


TEXT = st.text(st.characters(exclude_characters="\0"), max_size=12).map(
    lambda text: text.encode("utf-8", "surrogatepass").decode("utf-8", "surrogateescape")
)
NAMES = st.sampled_from(
    [*variables.BY_CUSTOM, "LC_ALL", "KBUILD_X", "CMAKE_é", "MY_BOARD", "MY_", "OTHER", "é", "A B", "1A", "JAVA_HOME"]
)
PATTERNS = st.lists(st.sampled_from(["MY_*", "OTHER", "*", "CMAKE_*", "é", "x", "MY_BOARD", "\t", ",,"]), max_size=3)
OPTIONS = st.lists(
    st.one_of(
        st.tuples(st.just("--timeout"), st.sampled_from(["", "1", "0077", "999999999"])),
        st.tuples(st.just("--request-id"), st.sampled_from(["", "a b", "é"])),
        st.tuples(st.just("--env"), st.builds("{}={}".format, NAMES, TEXT)),
        st.tuples(st.just("--stdio"), st.sampled_from(["", "events", "pass"])),
        st.tuples(st.just("--fallback"), st.sampled_from(["", "/bin/true"])),
    ),
    max_size=4,
)


@settings(max_examples=40)
@given(OPTIONS, st.lists(TEXT, max_size=4), st.dictionaries(NAMES, TEXT, max_size=5), PATTERNS, st.booleans())
def check_alike(
    both: Any, options: Sequence[tuple[str, str]], args: Sequence[str], env: Mapping[str, str], more: Any, joined: bool
) -> None:
    program, server = both
    words = [word for name, value in options for word in ([f"{name}={value}"] if joined else [name, value])]
    env = {**env, "BUILD_SERVICE_ENV": ",".join(more), "BUILD_SERVICE_TIMEOUT": "5"}
    ours, theirs = (request_of(each, server, [*words, "make", *args], env) for each in both_of(program))
    assert ours == theirs


def test_both_clients_ask_for_the_same(program: Path, fake: FakeServer) -> None:
    check_alike((program, fake))


def limited() -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (500, 600))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.nice(3)
    os.umask(0o137)


@pytest.mark.parametrize("kind", ["bounds", "files", "one file", "a pipe"])
def test_what_a_child_would_inherit_is_the_same_in_both(kind: str, program: Path, fake: FakeServer) -> None:
    asked = []
    for client in both_of(program):
        with open("/dev/null") as stdin, open("/etc/passwd") as file:
            options: dict[str, Any] = {
                "bounds": {"preexec_fn": limited},
                "files": {"stdin": file},
                "one file": {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "stdin": stdin},
                "a pipe": {"stdin": subprocess.PIPE},
            }[kind]
            asked.append(request_of(client, fake, ["make"], {}, **options))
    assert asked[0] == asked[1]
    assert kind != "bounds" or (asked[0].niceness == 3 and asked[0].limits["nofile"] == 500 and asked[0].umask == 0o137)
    assert kind != "one file" or asked[0].merge_output


@pytest.mark.parametrize("name", ["a b", "a\\b", "a\nb", "é", "\udce9", "\\040", "plain"])
def test_a_directory_of_any_name_is_told_alike(name: str, program: Path, fake: FakeServer) -> None:
    directory = fake.directory / name
    os.mkdir(os.fsencode(directory))
    try:
        asked = [request_of(each, fake, ["make"], {}, cwd=directory) for each in both_of(program)]
    finally:
        shutil.rmtree(os.fsencode(directory))
    assert asked[0] == asked[1]
    assert asked[0].location is not None and asked[0].location.mount is not None
