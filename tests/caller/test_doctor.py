"""build-ctl doctor: it names what stands between a caller and its build, with what mends it, and it runs nothing."""

from __future__ import annotations

import json
import os
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import harness
from buildcore.caller import doctor
from daemon import Service
from doctors import ON_A_HOST, ctl, ctl_on_host, failure, findings
from fake_server import CALLER, FakeServer
from harness import BIN, SYSTEM_PATH, other_pythons, run_as, write_tree
from harness_world import DEV1, OUTSIDER, UID_WITHOUT_ACCOUNT, User, inside
from wire import at_rest

StartService = Callable[..., Service]
OpenDirectory = Callable[..., Path]


# --- all is well ------------------------------------------------------------------------------------------------------


def test_where_a_build_would_work_it_says_how_and_exits_0(service: Service) -> None:
    write_tree(service.workspace / "app", {"Makefile": "all:\n\t@touch built\n"}, service.caller)
    done = ctl(service, "doctor", cwd=service.workspace / "app")
    found = findings(done)
    assert (done.returncode, done.stderr) == (0, "")
    assert found["ok socket"] == f"{service.daemon.socket} accepts connections"
    assert found["ok identity"].startswith(f"builds run as {service.caller.name} (uid {service.caller.uid}, groups ")
    real = os.path.realpath(service.workspace)
    assert found["ok directory"] == f"{service.workspace}/app is {real}/app on the host, in {real}"
    assert found["ok command"] == "/usr/bin/make, for at most 600 s"
    assert not any(key.startswith("failure") for key in found)


def test_nothing_is_run_and_no_build_is_logged(service: Service) -> None:
    write_tree(service.workspace, {"Makefile": "all:\n\t@touch built\n"}, service.caller)
    assert ctl(service, "doctor").returncode == 0
    assert at_rest(service.daemon)
    service.daemon.stop()
    assert not (service.workspace / "built").exists()
    assert not [line for line in service.daemon.log_lines() if "build started" in line or "refused" in line]


def test_the_command_line_to_examine_may_be_given(one: Service) -> None:
    write_tree(one.workspace / "sub", {"Makefile": ""}, one.caller)
    found = findings(ctl(one, "doctor", "make", "-C", str(one.workspace / "sub"), "-j4"))
    assert found["ok command"] == f"/usr/bin/make -C {one.workspace}/sub -j4, for at most 600 s"
    assert ctl(one, "doctor", "--", "make", "--json").returncode == 0


def test_programs_get_json(one: Service) -> None:
    done = ctl(one, "doctor", "--json")
    answer = json.loads(done.stdout)
    assert answer["ok"] is True and done.returncode == 0
    assert {check["state"] for check in answer["checks"]} <= {"ok", "warning"}
    assert all(set(check) == {"check", "state", "message", "fix"} for check in answer["checks"])
    failed = json.loads(ctl(one, "doctor", "--json", "nonsense").stdout)
    assert failed["ok"] is False
    assert [check["check"] for check in failed["checks"] if check["state"] == "failure"] == ["command"]


def test_the_mapped_directory_is_shown(start_service: StartService) -> None:
    mapping = {"build": {"path_mapping": {"container_template": "/srv/in/{user}"}}}
    service = start_service("root" if inside() else "user", mapping)
    real = os.path.realpath(service.workspace)
    assert findings(ctl(service, "doctor"))["ok directory"] == f"{service.workspace} is {real} on the host, in {real}"
    found = findings(ctl(service, "doctor", "make", "-C", f"/srv/in/{service.caller.name}/app"))
    assert f"/usr/bin/make -C {service.workspace}/app, " in found["ok command"]


@pytest.mark.parametrize("python", other_pythons(6))
def test_it_runs_under_each_python(python: str, open_directory: OpenDirectory, one: Service) -> None:
    image = open_directory()
    (image / "python3").symlink_to(python)
    done = ctl(one, "doctor", env={"PATH": f"{image}:{SYSTEM_PATH}", "LC_ALL": "C"})
    assert (done.returncode, done.stderr) == (0, ""), done.stdout


# --- the socket -------------------------------------------------------------------------------------------------------


def test_no_socket_on_the_host(one: Service) -> None:
    line = failure(ctl_on_host(one, "doctor", "--socket", "/nonexistent/s"), "socket")
    assert line.startswith("/nonexistent/s: it is not there; to mend it: on the host: systemctl enable --now")


def test_no_socket_in_a_container(one: Service) -> None:
    line = failure(ctl(one, "doctor", "--socket", "/nonexistent/s", env={"container": "podman"}), "socket")
    assert line.endswith("start the container with -v /run/build-service:/run/build-service")


def test_a_socket_that_nobody_listens_on(one: Service) -> None:
    path = one.daemon.directory / "stale"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
    path.chmod(0o666)
    assert ": nobody listens there; to mend it: " in failure(ctl(one, "doctor", "--socket", str(path)), "socket")


def test_something_else_in_the_socket_s_place(one: Service) -> None:
    path = one.daemon.directory / "file"
    path.write_text("")
    path.chmod(0o666)
    assert ": it is no socket; " in failure(ctl(one, "doctor", "--socket", str(path)), "socket")


@pytest.mark.needs_root
def test_the_mounted_file_of_a_socket_that_was_made_anew(
    open_directory: OpenDirectory, start_service: StartService
) -> None:
    service = start_service("root")
    mounted = open_directory() / "mounted.sock"
    mounted.touch()
    subprocess.run(["mount", "--bind", service.daemon.socket, mounted], check=True)
    try:
        assert ctl(service, "doctor", "--socket", str(mounted)).returncode == 0
        service.daemon.stop()
        service.daemon.start()
        line = failure(ctl(service, "doctor", "--socket", str(mounted)), "socket")
        assert "nobody listens there any more: this is the file of a socket that was made anew since" in line
        assert "mount the socket's directory, not its file" in line
    finally:
        subprocess.run(["umount", mounted], check=True)


@pytest.mark.needs_root
def test_lost_groups(start_service: StartService) -> None:
    service = start_service("root")
    done = ctl(service, "doctor", groups=[DEV1.gid], env={"container": "podman"})
    assert "this process has not the socket's group; to mend it: start the container with --group-add keep-groups" in (
        failure(done, "socket")
    )


@pytest.mark.needs_root
def test_a_user_who_is_not_in_the_group(start_service: StartService) -> None:
    service = start_service("root")
    line = failure(ctl_on_host(service, "doctor", user=OUTSIDER), "socket")
    assert "you are not in its group builders; to mend it: on the host: usermod -aG builders" in line


@pytest.mark.needs_root
def test_a_mode_that_lets_nobody_in(start_service: StartService) -> None:
    service = start_service("root", {"service": {"socket_mode": "0600"}})
    line = failure(ctl(service, "doctor"), "socket")
    assert "its mode 0600 lets only its owner connect; to mend it: on the host: service.socket_mode" in line


@pytest.mark.needs_root
def test_a_directory_that_is_closed(start_service: StartService) -> None:
    service = start_service("root")
    service.daemon.directory.chmod(0o700)
    assert f"{service.daemon.directory} is closed to you" in failure(ctl(service, "doctor"), "socket")


def test_a_label_that_selinux_keeps_from_the_socket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """This machine has no SELinux, so its answer is given by hand; groups and mode are real, and would let it in."""
    path = tmp_path / "s"
    path.touch()
    path.chmod(0o666)
    monkeypatch.setattr(doctor, "_selinux_label", lambda: "system_u:system_r:container_t:s0:c1,c2")
    message, fix = doctor._denied(str(path))
    assert message == "SELinux keeps system_u:system_r:container_t:s0:c1,c2 from it"
    assert fix == doctor.LOAD_MODULE


def test_of_the_usual_sockets_the_one_that_refuses_is_named(open_directory: OpenDirectory, one: Service) -> None:
    runtime = open_directory(one.caller)
    write_tree(runtime, {"build-service/build-service.sock": ""}, one.caller)
    env = {"BUILD_SERVICE_SOCKET": "", "XDG_RUNTIME_DIR": str(runtime)}
    path = f"{runtime}/build-service/build-service.sock"
    assert f"{path}: it is no socket" in failure(ctl(one, "doctor", env=env), "socket")


# --- what the service answers -----------------------------------------------------------------------------------------


@pytest.mark.needs_root
@pytest.mark.parametrize(
    ("user", "words"),
    [
        (User("root", 0, 0, (), Path("/root")), "root may not build"),
        (User("none", UID_WITHOUT_ACCOUNT, UID_WITHOUT_ACCOUNT, DEV1.groups, Path("/")), "has no account on this host"),
    ],
    ids=["root", "subuid"],
)
def test_a_caller_whom_the_service_does_not_know(user: User, words: str, start_service: StartService) -> None:
    line = failure(ctl(start_service("root"), "doctor", user=user, cwd=Path("/")), "identity")
    assert words in line and "--userns=keep-id" in line


def test_a_directory_outside_the_workspace_is_shown_as_the_host_sees_it(start_service: StartService) -> None:
    mapping = {"build": {"path_mapping": {"container_template": "/usr"}}}
    service = start_service("root" if inside() else "user", mapping)
    line = failure(ctl(service, "doctor", cwd=Path("/usr/share")), "directory")
    assert f"cwd must be under workspace: {os.path.realpath(service.workspace)}/share: No such file" in line or (
        "cwd must be under workspace: /usr/share is not under" in line
    )
    assert line.endswith("build.path_mapping")


def test_an_option_that_leads_out(one: Service) -> None:
    line = failure(ctl(one, "doctor", "make", "-f", "/etc/passwd"), "directory")
    assert line.startswith("-f must be under workspace: /etc/passwd is not under")


def test_a_command_that_is_not_allowed(one: Service) -> None:
    line = failure(ctl(one, "doctor", "gcc"), "command")
    assert line.startswith("command not allowed: gcc (allowed: ") and "build.commands" in line


@pytest.mark.parametrize(("program", "reason"), [("/nonexistent/make", "No such file"), ("/etc/passwd", "Permission")])
def test_a_command_that_the_host_has_not(program: str, reason: str, start_service: StartService) -> None:
    service = start_service("root" if inside() else "user", {"build": {"commands": {"make": program}}})
    assert f"cannot run {program}: {reason}" in failure(ctl(service, "doctor"), "command")


def exit_event(**fields: Any) -> bytes:
    return json.dumps({"type": "exit", "code": 1, "timed_out": False, **fields}).encode() + b"\n"


UNSUPPORTED = 'unsupported schema_version "1": this service serves "2"'
ANSWERS = {
    "an older service": (
        b'{"type":"stderr","data":"invalid request: command is missing\\n"}\n' + exit_event(),
        "it cannot be asked: invalid request: command is missing; to mend it: it is older than this build-ctl",
    ),
    "another version": (
        exit_event(error={"kind": "invalid_request", "message": UNSUPPORTED}),
        UNSUPPORTED + "; to mend it: use the build-cli and build-ctl",
    ),
    "no service at all": (b"HTTP/1.1 400 Bad Request\r\n\r\n", "it gave no valid answer: an event that is not JSON"),
    "nothing": (b"", "it gave no valid answer: the connection ended before the build's exit"),
    "a service that is busy": (
        b'{"type":"stderr","data":"build-service is busy: 1000 callers are served already\\n"}\n' + exit_event(),
        "build-service is busy: 1000 callers are served already; to mend it: see the service's log on the host",
    ),
    "a service that stops": (
        exit_event(error={"kind": "stopping", "message": "build-service is stopping: the build was ended"}),
        "build-service is stopping: the build was ended; to mend it: try again",
    ),
}


@pytest.mark.parametrize("kind", ANSWERS)
def test_an_answer_that_is_no_judgement(kind: str, fake: FakeServer) -> None:
    answer, words = ANSWERS[kind]
    process = fake.popen([BIN / "build-ctl", "doctor", "--socket", fake.path])
    out, err, code = fake.answer_to(process, answer)
    assert failure(subprocess.CompletedProcess([], code, out.decode(), err.decode()), "service").startswith(words)


def test_a_service_that_does_not_answer(fake: FakeServer) -> None:
    impatient = ON_A_HOST.replace("doctor.in_container =", "doctor.ANSWER_SEC = 0.2; doctor.in_container =")
    python = f"{harness.python_directory()}/python3"
    done = run_as(CALLER, [python, "-I", "-c", impatient, "doctor", "--socket", str(fake.path)], "/")
    assert failure(done, "service").startswith("it does not answer: ")


VARIABLES = [
    ("MAKEFLAGS", "-C /tmp", "-C must not stand in MAKEFLAGS"),
    ("MAKEFLAGS", "--eval=$(X)", "MAKEFLAGS must not refer to variables"),
    ("BUILD_SERVICE_TIMEOUT", "soon", "BUILD_SERVICE_TIMEOUT must be a whole number of seconds"),
]


@pytest.mark.parametrize(("name", "value", "words"), VARIABLES)
def test_it_asks_just_what_build_cli_would_ask(name: str, value: str, words: str, one: Service) -> None:
    assert one.run("make", env={name: value}).returncode == 1
    assert words in failure(ctl(one, "doctor", env={name: value}), "command")


def test_more_than_a_request_can_hold(one: Service) -> None:
    line = failure(ctl(one, "doctor", "make", *["x" * 100_000] * 11), "command")
    assert line.startswith("invalid request: longer than 1048576 bytes")


@pytest.mark.parametrize("check", [{}, {"groups": 5}, {"groups": [], "args": 7}, {"groups": [], "args": []}])
def test_an_answer_that_does_not_say_how_is_none(check: dict[str, Any], fake: FakeServer) -> None:
    process = fake.popen([BIN / "build-ctl", "doctor", "--socket", fake.path])
    out, err, code = fake.answer_to(process, exit_event(code=0, check=check))
    done = subprocess.CompletedProcess([], code, out.decode(), err.decode())
    assert failure(done, "service").startswith("it gave no valid answer: a check that does not say how")


def test_a_service_that_never_comes_to_an_end(fake: FakeServer) -> None:
    impatient = ON_A_HOST.replace("doctor.in_container =", "doctor.ANSWER_SEC = 0.5; doctor.in_container =")
    python = f"{harness.python_directory()}/python3"
    process = fake.popen([python, "-I", "-c", impatient, "doctor", "--socket", fake.path])
    connection, _ = fake.accept()
    with connection:
        try:
            while process.poll() is None:
                connection.sendall(b'{"type":"stdout","data":"more"}\n')
        except (BrokenPipeError, ConnectionResetError):
            pass  # it has heard enough
    out, err = process.communicate()
    done = subprocess.CompletedProcess([], process.returncode, out.decode(), err.decode())
    assert failure(done, "service").startswith("it does not answer: nothing complete within 0.5 s")


def test_a_name_with_a_newline_is_one_line(one: Service) -> None:
    directory = one.workspace / "a\nfailure  socket: b"
    write_tree(directory, {"Makefile": ""}, one.caller)
    done = ctl(one, "doctor", cwd=directory)
    assert done.returncode == 0 and "failure" not in "".join(findings(done))


def test_without_standard_output_it_judges_all_the_same(one: Service) -> None:
    script = f"exec {BIN}/build-ctl doctor --socket {one.daemon.socket} >&-"
    done = run_as(one.caller, ["/bin/sh", "-c", script], one.workspace)
    assert (done.stderr, done.returncode) == ("build-ctl: Bad file descriptor\n", 1)
