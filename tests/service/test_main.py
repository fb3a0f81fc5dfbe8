"""The command build-service: its command line, its configuration, and each refusal to start in a line."""

from __future__ import annotations

import os

import pytest

import harness
from daemon import Daemon, toml
from daemon_by_hand import run_daemon, write_config
from harness import BIN, run_as


@pytest.mark.parametrize("arguments", [["--version"], ["--help"], ["--check-config", "--config", "CONFIG"]])
def test_standard_output_that_takes_no_more_is_one_line(arguments: list[str], daemon: Daemon) -> None:
    words = [str(daemon.config) if word == "CONFIG" else word for word in arguments]
    with open("/dev/full", "w") as full:
        env = {"PATH": harness.daemon_path()}
        done = run_as(daemon.user, [BIN / "build-service", *words], "/", env, stdout=full)
    assert (done.stderr, done.returncode) == ("build-service: No space left on device\n", 1)


def test_a_valid_configuration_is_called_valid_and_nothing_is_started(daemon: Daemon) -> None:
    assert run_daemon(daemon, "--config", str(daemon.config), "--check-config") == (0, "configuration is valid\n", "")
    assert not daemon.socket.exists()
    assert not daemon.log_path.exists()


@pytest.mark.parametrize("check", [True, False], ids=["check", "start"])
def test_every_fault_of_a_configuration_has_a_line_of_its_own(daemon: Daemon, check: bool) -> None:
    write_config(
        daemon,
        '[service]\nsocket_mode = "0999"\nsocket_pth = "/x"\n'
        '[build]\ncommands = { make = "make" }\n[build.timeouts]\nmax_sec = "long"\n[loging]\nlevel = "info"\n',
    )
    code, out, err = run_daemon(daemon, "--config", str(daemon.config), *["--check-config"] * check)
    assert (code, out) == (1, "")
    assert all(line.startswith("build-service: ") for line in err.splitlines()), err
    faults = ["service.socket_mode", "service.socket_pth", "build.commands.make", "build.timeouts.max_sec", "loging"]
    for fault in faults:
        assert sum(fault in line for line in err.splitlines()) == 1, (fault, err)
    assert "Traceback" not in err
    assert not daemon.socket.exists()


NO_TOML = {"table": "[service\n", "value": "a = \n", "nul": "\x00", "not UTF-8": "\udcff"}


@pytest.mark.parametrize("content", NO_TOML.values(), ids=NO_TOML)
def test_a_configuration_that_is_no_toml_is_one_line_that_names_the_file(daemon: Daemon, content: str) -> None:
    daemon.config.write_bytes(content.encode("utf-8", "surrogateescape"))
    code, out, err = run_daemon(daemon, "--config", str(daemon.config), "--check-config")
    assert (code, out, err.count("\n")) == (1, "", 1), err
    assert err.startswith("build-service: ") and str(daemon.config) in err


@pytest.mark.parametrize("name", ["missing.toml", "."])
def test_a_configuration_that_cannot_be_read_is_one_line_that_names_the_file(daemon: Daemon, name: str) -> None:
    path = str(daemon.directory / name)
    code, out, err = run_daemon(daemon, "--config", path)
    assert (code, out, err.count("\n")) == (1, "", 1), err
    assert path in err and "Traceback" not in err


def test_the_environment_names_the_configuration_unless_the_command_line_does(daemon: Daemon) -> None:
    env = {"BUILD_SERVICE_CONFIG": str(daemon.config)}
    assert run_daemon(daemon, "--check-config", env=env) == (0, "configuration is valid\n", "")
    missing = {"BUILD_SERVICE_CONFIG": str(daemon.directory / "none.toml")}
    code, _, err = run_daemon(daemon, "--check-config", env=missing)
    assert code == 1 and "none.toml" in err
    assert run_daemon(daemon, "--config", str(daemon.config), "--check-config", env=missing)[0] == 0


@pytest.mark.parametrize("arguments", [["--nonsense"], ["--ready-fd", "x"], ["extra"]])
def test_a_wrong_command_line_is_refused_with_the_usage(daemon: Daemon, arguments: list[str]) -> None:
    code, out, err = run_daemon(daemon, "--config", str(daemon.config), *arguments)
    assert (code, out) == (2, "")
    assert err.startswith("usage: build-service ") and "Traceback" not in err


@pytest.mark.parametrize("number", ["99", "-1", "99999999999999999999"])
def test_a_ready_descriptor_that_is_not_open_is_one_line(daemon: Daemon, number: str) -> None:
    code, out, err = run_daemon(daemon, "--config", str(daemon.config), f"--ready-fd={number}")
    assert (code, out, err) == (1, "", f"build-service: --ready-fd {number}: not an open descriptor\n")
    assert not daemon.socket.exists()


@pytest.mark.parametrize("prefork", [0, 2])
def test_the_ready_descriptor_gets_one_line_and_is_closed_while_the_service_runs(daemon: Daemon, prefork: int) -> None:
    daemon.settings["service"]["prefork"] = prefork
    write_config(daemon, toml(daemon.settings))
    reader, writer = os.pipe()
    argv = [BIN / "build-service", "--config", daemon.config, "--ready-fd", str(writer)]
    with harness.popen_as(daemon.user, argv, "/", {"PATH": harness.daemon_path()}, pass_fds=[writer]) as process:
        try:
            os.close(writer)
            with open(reader, "rb") as lines:
                assert lines.read() == b"ready\n"  # to the end: no process of the service keeps it open
            assert process.poll() is None
        finally:
            process.terminate()
    assert process.returncode == 0


@pytest.mark.parametrize("option", ["--version", "--help"])
def test_version_and_help_need_no_configuration(daemon: Daemon, option: str) -> None:
    code, out, err = run_daemon(daemon, option, env={"BUILD_SERVICE_CONFIG": "/nonexistent"})
    assert (code, err) == (0, "")
    assert "build-service" in out
