"""A build runs in the very directory of its caller, wherever that is mounted, or nowhere.

Callers in mount namespaces of their own stand for containers here: it is what their mounts are; tests/container has
real ones.
"""

from __future__ import annotations

import os
import shlex
import subprocess
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest

from buildcore.caller import whereabouts
from daemon import Service
from doctors import findings
from harness import BIN, environment_of, write_tree
from harness_world import DEV1, DEV2
from wire import RawCaller

StartService = Callable[..., Service]

IN_MOUNTS = ("unshare", "--mount", "--propagation=private", "--")
MAKEFILE = "where:\n\t@echo $(CURDIR); cat name\nsame:\n\t@echo done\n"
ANOTHER = "cwd must be the same directory on the host: {} is another one there (mount the host's into the container)\n"


@pytest.fixture
def one(start_service: StartService) -> Service:
    return with_projects(start_service("root"))


def with_projects(service: Service) -> Service:
    """Its user has projects in the workspace, beside it, and where a container's might seem to be."""
    for directory in ("workspace/app", "workspace/app/src", "workspace/other", "app", "beside"):
        write_tree(DEV1.home / directory, {"Makefile": MAKEFILE, "name": f"{directory}\n"}, DEV1)
    return service


def in_container(
    service: Service,
    mounts: str,
    cwd: str,
    *args: str,
    env: Mapping[str, str] | None = None,
    argv: Sequence[str | os.PathLike[str]] = (),
) -> subprocess.CompletedProcess[str]:
    """Runs the client, or `argv`, in `cwd`, after the shell commands `mounts` have made what a container has there."""
    groups = ",".join(str(gid) for gid in (DEV1.gid, *DEV1.groups))
    become = ["setpriv", f"--reuid={DEV1.uid}", f"--regid={DEV1.gid}", f"--groups={groups}", "--"]
    command = shlex.join([*become, *map(str, argv or service.argv(*args))])
    script = f"{mounts}\ncd {shlex.quote(cwd)}\nexec {command}"
    return subprocess.run(
        [*IN_MOUNTS, "sh", "-ec", script], env=environment_of(DEV1, env), cwd="/", capture_output=True, text=True,
        timeout=60, check=False,
    )


def assert_built(done: subprocess.CompletedProcess[str], directory: str) -> None:
    assert (done.stdout, done.stderr, done.returncode) == (f"{DEV1.home / directory}\n{directory}\n", "", 0)


def assert_refused(done: subprocess.CompletedProcess[str], line: str) -> None:
    assert (done.stdout, done.stderr, done.returncode) == ("", line, 1)


# --- where it is mounted ----------------------------------------------------------------------------------------------

PLACES = {
    "the same path": ("", "/home/dev1/workspace/app", "workspace/app"),
    "a devcontainer's": ("mount --bind /home/dev1/workspace/app /mnt", "/mnt", "workspace/app"),
    "below a devcontainer's": ("mount --bind /home/dev1/workspace/app /mnt", "/mnt/src", "workspace/app/src"),
    "the home directory": ("mount --bind /home/dev1/workspace /home/dev1", "/home/dev1/app", "workspace/app"),
    "another project's place": (
        "mount --bind /home/dev1/workspace/other /home/dev1/workspace/app", "/home/dev1/workspace/app",
        "workspace/other",
    ),
    "one over another": (
        "mount --bind /home/dev1/workspace/app /mnt; mount --bind /home/dev1/workspace/other /mnt", "/mnt",
        "workspace/other",
    ),
    "the host's root": ("mount --rbind / /mnt", "/mnt/home/dev1/workspace/app/src", "workspace/app/src"),
    "a link": ("mount -t tmpfs none /mnt; ln -s /home/dev1/workspace/app /mnt/link", "/mnt/link", "workspace/app"),
}


@pytest.mark.needs_root
@pytest.mark.parametrize("place", PLACES)
def test_a_build_runs_in_its_caller_s_directory_wherever_that_is_mounted(place: str, one: Service) -> None:
    mounts, cwd, directory = PLACES[place]
    assert_built(in_container(one, mounts, cwd, "make"), directory)


@pytest.mark.needs_root
@pytest.mark.parametrize("name", ["a b", "a\\b", "a\nb", "a\tb", "a#b", "caf\u00e9", "\\040"])
def test_a_name_may_have_what_mountinfo_escapes(name: str, one: Service) -> None:
    write_tree(one.workspace / name, {"Makefile": "where:\n\t@cat name\n", "name": "it\n"}, DEV1)
    done = in_container(one, f"mount --bind {shlex.quote(str(one.workspace / name))} /mnt", "/mnt", "make")
    assert (done.stdout, done.stderr, done.returncode) == ("it\n", "", 0)


@pytest.mark.needs_root
def test_templates_and_mounts_serve_side_by_side(start_service: StartService) -> None:
    mapping = {"container_template": "/workspace", "host_template": "{workspace_root}/{user}/workspace"}
    service = with_projects(start_service("root", {"build": {"path_mapping": mapping}}))
    mounts = "mount -t tmpfs none /mnt; mkdir /mnt/w; mount --bind /home/dev1/workspace /mnt/w"
    assert_built(in_container(service, mounts, "/mnt/w/app", "make"), "workspace/app")
    assert_built(in_container(service, "", "/home/dev1/workspace/app", "make"), "workspace/app")
    with RawCaller(service) as caller:  # one who says nothing of where its directory is
        caller.ask("-s", cwd="/workspace/app").exit()
        assert caller.text() == "/home/dev1/workspace/app\nworkspace/app\n"


@pytest.mark.needs_root
def test_paths_among_the_arguments_are_read_as_the_directory_is(one: Service) -> None:
    mounts = "mount --bind /home/dev1/workspace/app /mnt"
    assert_built(in_container(one, mounts, "/mnt/src", "make", "-s", "-C", "/mnt"), "workspace/app")
    assert_built(in_container(one, mounts, "/mnt", "make", "-f", "/mnt/src/Makefile"), "workspace/app")


# --- where it is not --------------------------------------------------------------------------------------------------


@pytest.mark.needs_root
def test_another_directory_of_that_name_is_never_built_in(one: Service) -> None:
    shadowed = "mount -t tmpfs none /home/dev1/workspace; mkdir /home/dev1/workspace/app"
    done = in_container(one, shadowed, "/home/dev1/workspace/app", "make")
    assert_refused(done, ANOTHER.format("/home/dev1/workspace/app"))
    one.daemon.await_log("build refused .*kind=path")


@pytest.mark.needs_root
def test_a_directory_beside_the_workspace_is_found_and_refused_by_its_name_on_the_host(one: Service) -> None:
    done = in_container(one, "mount --bind /home/dev1/beside /mnt", "/mnt", "make")
    assert_refused(done, "cwd must be under workspace: /home/dev1/beside is not under /home/dev1/workspace\n")


@pytest.mark.needs_root
def test_a_directory_that_the_host_has_not_is_refused(one: Service) -> None:
    done = in_container(one, "mount -t tmpfs none /mnt; mkdir /mnt/app", "/mnt/app", "make")
    assert_refused(done, "cwd must be under workspace: /mnt/app: No such file or directory on the host\n")


@pytest.mark.needs_root
def test_where_there_is_a_mapping_it_is_named(start_service: StartService) -> None:
    mapping = {"container_template": "/workspaces/app", "host_template": "{workspace_root}/{user}/workspace"}
    service = with_projects(start_service("root", {"build": {"path_mapping": mapping}}))
    with RawCaller(service) as caller:
        caller.ask(cwd="/workspaces/app/missing").exit()
        assert caller.text() == (
            "cwd must be under workspace: /home/dev1/workspace/missing: No such file or directory on the host"
            " (/workspaces/app in the container is /home/dev1/workspace there: build.path_mapping)\n"
        )


@pytest.mark.needs_root
def test_with_templates_alone_no_mount_is_looked_at_but_the_directory_is_compared(start_service: StartService) -> None:
    service = with_projects(start_service("root", {"build": {"path_mapping": {"mode": "templates"}}}))
    done = in_container(service, "mount --bind /home/dev1/workspace/app /mnt", "/mnt", "make")
    assert_refused(done, ANOTHER.format("/mnt"))
    assert_built(in_container(service, "", "/home/dev1/workspace/app", "make"), "workspace/app")


# --- who does not tell the truth --------------------------------------------------------------------------------------


def told_of(directory: str, **other: Any) -> dict[str, Any]:
    location = whereabouts.location(directory)
    assert location is not None
    fields = location.fields()
    fields["mount"].update(other.pop("mount", {}))
    return {**fields, **other}


LIES: Mapping[str, Callable[[], tuple[str, dict[str, Any]]]] = {
    "another inode": lambda: ("/home/dev1/workspace/app", told_of("/home/dev1/workspace/app", inode="1")),
    "another device": lambda: ("/home/dev1/workspace/app", told_of("/home/dev1/workspace/app", device="0:1")),
    "another user's directory": lambda: ("/mnt", told_of(
        "/home/dev2/workspace", mount={"point": "/mnt", "root": "/dev2/workspace"}
    )),
    "a way up": lambda: ("/mnt/x", told_of("/etc", mount={"point": "/mnt", "root": "/dev1/workspace/../../.."})),
    "the root": lambda: ("/mnt", told_of("/", mount={"point": "/mnt"})),
    "a mount that there is not": lambda: ("/mnt", told_of(
        "/home/dev1/workspace/app", mount={"point": "/mnt", "root": "/gone//deleted"}
    )),
    "a mount elsewhere": lambda: ("/mnt", told_of("/home/dev1/workspace/app", mount={"point": "/srv"})),
    "a long name": lambda: ("/mnt", told_of("/home/dev1/workspace/app", mount={"point": "/mnt", "root": "/x" * 9000})),
}


@pytest.mark.needs_root
@pytest.mark.parametrize("lie", LIES)
def test_who_lies_builds_nowhere(lie: str, one: Service) -> None:
    (DEV2.home / "workspace").chmod(0o700)
    cwd, location = LIES[lie]()
    with RawCaller(one) as caller:
        caller.ask(cwd=cwd, location=location).exit()
        assert caller.text().startswith("cwd must be ") and caller.text().count("\n") == 1
    assert not one.daemon.log_lines() or not any("build started" in line for line in one.daemon.log_lines())


@pytest.mark.needs_root
def test_who_claims_a_directory_of_its_own_builds_there_as_it_might_have_asked(one: Service) -> None:
    location = told_of("/home/dev1/workspace/app", mount={"point": "/anything", "root": "/dev1/workspace/app"})
    with RawCaller(one) as caller:
        caller.ask("-s", cwd="/anything", location=location).exit()
        assert caller.text() == "/home/dev1/workspace/app\nworkspace/app\n"


# --- what cannot be compared ------------------------------------------------------------------------------------------


@pytest.mark.needs_root
def test_where_numbers_do_not_tell_the_build_runs_and_says_so(one: Service) -> None:
    location = told_of("/home/dev1/workspace/app", device="0:999", mount={"file_system": "fuse.sshfs"})
    with RawCaller(one) as caller:
        exit_ = caller.ask("-s", cwd="/home/dev1/workspace/app", location=location, features=["details"]).exit()
        assert (exit_["code"], exit_["cwd_compared"]) == (0, False)
    with RawCaller(one) as caller:
        location = told_of("/home/dev1/workspace/app", inode="1", mount={"file_system": "fuse.sshfs"})
        assert caller.ask(cwd="/home/dev1/workspace/app", location=location).exit()["code"] == 1


# --- what is told -----------------------------------------------------------------------------------------------------


@pytest.mark.needs_root
def test_paths_of_the_container_that_are_left_are_named_by_the_client_and_by_the_doctor(one: Service) -> None:
    mounts = "mount --bind /home/dev1/workspace/app /mnt"
    left = "A, CFLAGS (/mnt here is /home/dev1/workspace/app there)"
    line = f"paths of the container are left in what the host got: {left}"
    arguments = ("make", "-s", "same", "A=/mnt/x", "B=/mnt2", "C=mnt")
    done = in_container(one, mounts, "/mnt", *arguments, env={"CFLAGS": "-O1 -I/mnt/include"})
    assert (done.stdout, done.stderr, done.returncode) == ("done\n", f"build-cli: {line}\n", 0)
    argv = [BIN / "build-ctl", "doctor", "--socket", one.daemon.socket, *arguments]
    done = in_container(one, mounts, "/mnt", env={"CFLAGS": "-O1 -I/mnt/include"}, argv=argv)
    assert findings(done)["warning directory"].startswith(line + "; to mend it: ")
    assert findings(done)["ok directory"] == (
        "/mnt is /home/dev1/workspace/app on the host, in /home/dev1/workspace"
    )
    assert done.returncode == 0
