"""A build sees the host as its user does: the unit's hardening is the daemon's and does not leak into it."""

from __future__ import annotations

import re

import pytest

import harness
from systemd.service import DEVELOPER, OWNER, Installed

NAMESPACES = ("cgroup", "ipc", "mnt", "net", "pid", "user", "uts")


def build_with(service: Installed, recipe: str) -> str:
    """What a build with this recipe prints."""
    project = service.workspace / "view"
    makefile = f"all:\n\t@{recipe}\n"
    harness.write_tree(service.machine.path(project), {"Makefile": makefile}, service.caller)
    built = service.machine.run(*service.client("make"), user=service.caller, cwd=project)
    assert built.returncode == 0, built.stdout + built.stderr
    return built.stdout


def test_a_build_is_its_user(service: Installed) -> None:
    user = service.caller
    groups = " ".join(map(str, (user.gid, *user.groups)))
    assert build_with(service, "id -u; id -g; id -G") == f"{user.uid}\n{user.gid}\n{groups}\n"


def test_a_build_is_in_the_host_s_own_namespaces(service: Installed) -> None:
    hosts = [service.machine.output("readlink", f"/proc/1/ns/{name}") for name in NAMESPACES]
    assert build_with(service, "; ".join(f"readlink /proc/self/ns/{name}" for name in NAMESPACES)).split() == hosts


def test_tmp_is_the_one_of_the_host(service: Installed) -> None:
    path = service.machine.path(f"/tmp/from-{service.caller.name}")
    build_with(service, f"echo made by a build > /tmp/{path.name}")
    assert (path.read_text(), path.stat().st_uid) == ("made by a build\n", service.caller.uid)
    assert build_with(service, f"rm /tmp/{path.name}; ls /tmp | grep -c from-; true") == "0\n"


def test_all_of_home_is_there_and_can_be_written(service: Installed) -> None:
    assert build_with(service, "ls /home").split() == [DEVELOPER.name, OWNER.name]
    build_with(service, "echo written > ~/by-a-build")
    assert service.machine.path(service.caller.home / "by-a-build").read_text() == "written\n"


def test_files_get_the_mode_of_the_caller_s_umask(service: Installed) -> None:
    assert build_with(service, "umask") == "0022\n"


def capabilities(status: str) -> set[str]:
    """The sets of capabilities that a process has or can hand on, out of its status (proc(5))."""
    return set(re.findall(r"Cap(?:Inh|Prm|Eff|Amb):\t(\w+)", status))


def test_a_build_has_no_capability(system: Installed) -> None:
    assert capabilities(build_with(system, "cat /proc/self/status")) == {"0" * 16}


def test_a_build_of_a_user_s_own_service_has_the_capabilities_that_its_systemd_gives_all(own: Installed) -> None:
    """None, or CAP_WAKE_ALARM: see default-capability-ambient-set= in pam_systemd(8)."""
    manager = own.machine.output("systemctl", "show", "--property=MainPID", "--value", f"user@{OWNER.uid}.service")
    status = own.machine.output("cat", f"/proc/{manager}/status")
    assert capabilities(build_with(own, "cat /proc/self/status")) == capabilities(status)


def test_what_a_build_writes_to_the_journal_stands_there_as_its_user_s(system: Installed) -> None:
    line = "INFO build_service: build completed request_id=forged"
    code = "import socket as s; s.socket(s.AF_UNIX, s.SOCK_DGRAM).sendto(b'{}', '/run/systemd/journal/socket')"
    python = code.format(f"MESSAGE={line}\\\\n_UID=0\\\\n")
    build_with(system, f'python3 -c "{python}"')
    machine, matches = system.machine, ["--unit=build-service", "--output=cat", "--quiet"]
    assert line in machine.await_journal(system.cursor, ["--unit=build-service"], "request_id=forged")
    assert line not in machine.output("journalctl", *matches, "_UID=0")
    assert line in machine.output("journalctl", *matches, f"_UID={system.caller.uid}")


@pytest.mark.parametrize("configured", [True, False])
def test_no_new_privs_is_as_configured(service: Installed, configured: bool) -> None:
    service.configure({"build": {"no_new_privs": configured}})
    assert build_with(service, "grep NoNewPrivs /proc/self/status") == f"NoNewPrivs:\t{configured:d}\n"


def test_a_build_hears_nothing_that_systemd_tells_the_daemon(service: Installed) -> None:
    names = {line.partition("=")[0] for line in build_with(service, "env").splitlines()}
    assert "HOME" in names
    assert not [name for name in names if re.match("LISTEN_|NOTIFY_|WATCHDOG_|INVOCATION_ID|JOURNAL_|LOGS_", name)]


def test_a_build_is_in_the_unit_s_control_group(service: Installed) -> None:
    found = re.search(r"^0::(.*?)(/build-\d+)?$", build_with(service, "cat /proc/self/cgroup"), re.MULTILINE)
    assert found
    assert found[1] == service.show("ControlGroup")
    assert found[2] or service.own  # what a user's systemd delegates is not marked as such


def test_what_a_build_leaves_running_ends_with_it(service: Installed) -> None:
    pid = int(build_with(service, "setsid sleep 600 >/dev/null 2>&1 & echo $$!"))
    assert service.machine.run("test", "-e", f"/proc/{pid}").returncode == 1
