"""What build-ctl shows is one printable line a finding, whoever chose what is in it, and the last build is the last.

Control characters come from every source of its messages: the log, the service's answers, paths, the configuration.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import harness
from buildcore.core import text
from daemon import Service
from fake_server import FakeServer
from harness import BIN, run_as, write_tree
from harness_world import inside

Done = subprocess.CompletedProcess[str]

CONTROLS = "\x1b[2J\x07\x9b\u202e\u2028\r\nok       socket: all is well\x00"[:-1]
"""Clears a terminal, rings, turns text round, and begins a line of its own."""

QUICK_SEC = 5.0
"""Far less than a FIFO, a device or a terabyte of nothing would take."""


@pytest.fixture
def one(start_service: Callable[..., Service]) -> Service:
    return start_service("root" if inside() else "user")


@pytest.fixture
def fake() -> Iterator[FakeServer]:
    server = FakeServer()
    yield server
    server.close()


def doctor(service: Service, *arguments: str, cwd: Path | None = None, config: Path | None = None) -> Done:
    """Runs `build-ctl doctor` as the daemon's own user, who may see configuration and log."""
    words = ["--socket", str(service.daemon.socket), "--config", str(config or service.daemon.config), *arguments]
    env = {"PATH": harness.daemon_path()}
    return run_as(service.daemon.user, [BIN / "build-ctl", "doctor", *words], cwd or service.workspace, env, timeout=60)


def assert_printable(done: Done, least: int = 1) -> str:
    """That each line is a finding, and nothing in it is a terminal's to obey; returns them."""
    assert "Traceback" not in done.stderr
    lines = done.stdout.split("\n")
    assert lines.pop() == "" and len(lines) >= least
    for line in lines:
        assert line.isprintable(), ascii(line)
        assert line.split(" ")[0] in ("ok", "warning", "failure"), line
        assert not line.startswith("ok       socket: all is well")
    return done.stdout


def with_log(service: Service, *lines: str) -> None:
    service.daemon.stop()
    service.daemon.log_path.parent.mkdir(exist_ok=True)
    service.daemon.log_path.write_text("".join(line + "\n" for line in lines), "utf-8", "surrogateescape")


def ended(**fields: Any) -> str:
    known = {"user": "dev1", "cwd": "/home/dev1", "args": [], "command": "make", "exit_code": 2, "duration_sec": 1.0}
    return text.line(0, "error", "build_service", "build completed", {**known, **fields})


def last_build(service: Service) -> str:
    (line,) = [line for line in assert_printable(doctor(service)).splitlines() if " last build: " in line] or [""]
    return line.partition(" last build: ")[2]


TRUE = "1970-01-01T00:00:00.000Z build completed, user dev1, exit code 2"

# --- the last build ---------------------------------------------------------------------------------------------------

FORGERIES = [
    "x exit_code=0 duration_sec=1", 'x" exit_code=0 duration_sec=1 y="', "x\\", "[", "] exit_code=0 duration",
    "user=root",
    "x build_service: build completed user=root exit_code=0 duration_sec=1",
]


@pytest.mark.parametrize("name", ["request_id", "cwd", "args", "command", "reason", "survivors"])
def test_no_field_passes_for_another(name: str, one: Service) -> None:
    lines = [ended(**{name: forged if name != "args" else [forged, forged]}) for forged in FORGERIES]
    for line in lines:
        with_log(one, line)
        assert last_build(one) == TRUE, line


@pytest.mark.parametrize("forged", FORGERIES)
def test_no_request_id_of_a_real_build_does(forged: str, service: Service) -> None:
    write_tree(service.workspace, {"Makefile": "all:\n\t@exit 3\n"}, service.caller)
    assert service.run("--request-id", forged, "make").returncode == 2
    service.daemon.await_log("build completed")
    assert last_build(service).endswith(f"build completed, user {service.caller.name}, exit code 2")


def test_the_end_of_a_line_that_was_cut_is_no_line(one: Service) -> None:
    """The file is read from its middle on, wherever that is: here where a caller's word begins."""
    forged = "2026-01-14T12:00:00.000Z  INFO build_service: build completed user=root exit_code=0 duration_sec=1"
    rest = forged + " x=" + "y" * ((256 << 10) - len(forged) - len(" x=\n"))
    with_log(one, ended(), rest)
    assert last_build(one) == ""
    with_log(one, ended(), "x" * (256 << 10), ended())
    assert last_build(one) == TRUE


def test_what_is_no_line_of_the_log_is_skipped(one: Service) -> None:
    with_log(one, ended(), "build completed user=root exit_code=0", "", "\x1b]0;x\x07", "x" * 100_000)
    assert last_build(one) == TRUE


def make_sparse(path: Path) -> None:
    with open(path, "wb") as file:
        file.truncate(1 << 40)


def make_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))


NO_LOG: dict[str, tuple[Callable[[Path], None], bool]] = {
    "a FIFO": (os.mkfifo, True),
    "a socket": (make_socket, True),
    "an endless device": (lambda path: path.symlink_to("/dev/zero"), True),
    "a terminal": (lambda path: path.symlink_to("/dev/ptmx"), True),
    "a directory": (Path.mkdir, True),
    "a link to itself": (lambda path: path.symlink_to(path.name), False),
    "a terabyte of nothing": (make_sparse, False),
    "nothing": (lambda path: None, False),
}
"""What may be in the log's place, and whether it is told."""


@pytest.mark.parametrize("kind", NO_LOG)
def test_nothing_in_the_log_s_place_holds_it(kind: str, one: Service) -> None:
    make, told = NO_LOG[kind]
    with_log(one)
    one.daemon.log_path.unlink()
    make(one.daemon.log_path)
    config = one.daemon.config
    env = {"PATH": harness.daemon_path()}
    command = [BIN / "build-ctl", "doctor", "--socket", "/nonexistent", "--config", config]
    done = run_as(one.daemon.user, command, "/", env, timeout=QUICK_SEC)
    line = f"warning  log: {one.daemon.log_path} is no regular file; to mend it: "
    assert (line in assert_printable(done)) is told and "last build" not in done.stdout


# --- what a terminal obeys --------------------------------------------------------------------------------------------


def test_fields_of_the_log(one: Service) -> None:
    """The service escapes what it logs; whatever else wrote to that file did not."""
    line = ended(user="dev1").replace("user=dev1", "user=" + CONTROLS.replace(" ", "").replace("\n", ""))
    with_log(one, line.replace("1970", "19\x1b[2J70"), line)
    done = doctor(one)
    assert "\\u001b[2J\\u0007\\u009b\\u202e" in assert_printable(done)


def encoded(*events: dict[str, Any]) -> list[bytes]:
    return [json.dumps(event).encode() + b"\n" for event in events]


def exit_event(**fields: Any) -> dict[str, Any]:
    return {"type": "exit", "code": 1, "timed_out": False, **fields}


def check(**fields: Any) -> dict[str, Any]:
    known = {"groups": [], "args": [], "program": "/bin/make", "version": "1", "user": "x", "uid": 1, "cwd": "/"}
    return exit_event(code=0, check={**known, "workspace": "/", "timeout_sec": 1, **fields})


ANSWERS = {
    "a refusal": [exit_event(error={"kind": "path", "message": CONTROLS})],
    "a kind": [exit_event(error={"kind": CONTROLS, "message": "x" + CONTROLS})],
    "a line and no error": [{"type": "stderr", "data": "x" + CONTROLS}, exit_event()],
    "another version": [exit_event(error={"kind": "x", "message": "schema_version" + CONTROLS})],
    "an older service": [exit_event(error={"kind": "x", "message": "invalid request: " + CONTROLS})],
    **{f"a check's {name}": [check(**{name: "x" + CONTROLS})] for name in ("version", "user", "uid", "cwd")},
    **{f"a check's {name}": [check(**{name: "x" + CONTROLS})] for name in ("workspace", "program", "timeout_sec")},
    "a check's args": [check(args=["x" + CONTROLS])],
    "a check's groups": [check(groups=["x" + CONTROLS])],
    "a check's groups that are none": [check(groups=[10**17, -1, True])],
    "no event": [{"type": "exit", "code": CONTROLS}],
}


@pytest.mark.parametrize("env", [{}, {"container": "podman"}], ids=["here", "in a container"])
@pytest.mark.parametrize("kind", ANSWERS)
def test_answers_of_the_service(kind: str, env: dict[str, str], fake: FakeServer) -> None:
    process = fake.popen([BIN / "build-ctl", "doctor", "--socket", fake.path], env=env)
    out, err, code = fake.answer_to(process, *encoded(*ANSWERS[kind]))
    assert_printable(Done([], code, out.decode(), err.decode()))


def test_bytes_that_are_no_answer(fake: FakeServer) -> None:
    process = fake.popen([BIN / "build-ctl", "doctor", "--socket", fake.path])
    out, err, code = fake.answer_to(process, CONTROLS.encode() + b"\xff\n")
    assert_printable(Done([], code, out.decode(), err.decode()))


def test_names_that_the_service_allows(fake: FakeServer) -> None:
    for names in ("a" + CONTROLS, "a, b" + CONTROLS):
        process = fake.popen([BIN / "build-ctl", "commands", "--socket", fake.path])
        said = {"type": "stderr", "data": f"command not allowed: - (allowed: {names})"}
        out, _, _ = fake.answer_to(process, *encoded(said, exit_event()))
        lines = out.decode().splitlines()
        assert len(lines) == names.count(", ") + 1 and all(line.isprintable() for line in lines)


def test_a_refusal_in_place_of_the_names(fake: FakeServer) -> None:
    process = fake.popen([BIN / "build-ctl", "commands", "--socket", fake.path])
    said = {"type": "stderr", "data": "x" + CONTROLS}
    out, err, code = fake.answer_to(process, *encoded(said, exit_event()))
    assert (out, code) == (b"", 1) and err.count(b"\n") == 1 and err.decode()[:-1].isprintable()


def test_paths(one: Service) -> None:
    directory = one.workspace / ("app" + CONTROLS.replace("/", ""))
    write_tree(directory, {"Makefile": ""}, one.caller)
    env = {"PATH": harness.daemon_path()}
    command = [BIN / "build-ctl", "doctor", "--socket", one.daemon.socket]
    assert_printable(run_as(one.caller, command, directory, env), least=4)
    wanted = ["--socket", f"/x{CONTROLS}", "--config", f"/y{CONTROLS}", f"make{CONTROLS}"]
    for arguments in (wanted[:2], wanted[2:4], wanted[4:]):
        assert_printable(run_as(one.caller, [BIN / "build-ctl", "doctor", *arguments], directory, env))
    wrong = run_as(one.caller, [BIN / "build-ctl", f"--no{CONTROLS}"], "/", env)
    assert all(line.isprintable() for line in wrong.stderr.split("\n")), ascii(wrong.stderr)


def test_faults_of_the_configuration(one: Service) -> None:
    quoted = json.dumps("x" + CONTROLS)
    texts = [
        f"[service]\n{quoted} = 1\nsocket_path = {quoted}\nsocket_group = {quoted}\n",
        f"[build.commands]\n{quoted} = {quoted}\n",
        f"[build.commands]\nmake = {json.dumps('/bin/make' + CONTROLS)}\n",
        f"[logging]\ndirectory = {json.dumps('/nonexistent' + CONTROLS)}\n",
        "x" + CONTROLS,
    ]
    for content in texts:
        write_tree(one.daemon.directory, {"other.toml": content})
        done = doctor(one, config=one.daemon.directory / "other.toml")
        assert " configuration: " in assert_printable(done) or " log: " in done.stdout, done.stdout


def test_what_is_shown_in_json_is_ascii(fake: FakeServer) -> None:
    process = fake.popen([BIN / "build-ctl", "doctor", "--json", "--socket", fake.path])
    out, _, _ = fake.answer_to(process, *encoded(exit_event(error={"kind": "path", "message": CONTROLS})))
    assert out.decode("ascii")[:-1].isprintable() and CONTROLS in json.loads(out)["checks"][-1]["message"]
