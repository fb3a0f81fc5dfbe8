"""gmake and other names of the wrapper: which tools build beside the service, and what the doctor says of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

import harness
from buildcore.core.settings import Build
from clients import makefile, told
from daemon import Service
from doctors import ctl, findings
from harness import BIN, TREE, run_as, write_tree
from harness_world import inside

StartService = Callable[..., Service]
OpenDirectory = Callable[..., Path]

WRAPPER = TREE / "bin/make-wrapper.sh"
OWN = '#!/bin/sh\necho "own $(basename "$0")" "$@"\n'
SCRIPT = '#!/bin/sh\necho "$0" in "$(pwd -P)" with "$@"\n'


@pytest.fixture
def service(start_service: StartService) -> Service:
    """A service that allows what one allows by default, cmake, and autogen.sh of the workspace."""
    commands = {"ninja": None, **Build().commands, "cmake": "/usr/bin/true"}
    settings = {"build": {"commands": commands, "workspace_commands": ["autogen.sh", "configure"]}}
    return start_service("root" if inside() else "user", settings)


@pytest.fixture
def image(open_directory: OpenDirectory, service: Service) -> Path:
    """Directories for PATH: `bin` with the wrapper as make, `tools` behind it, with what it takes to run that."""
    root = open_directory()
    write_tree(root, {"bin/.keep": "", "tools/.keep": ""})
    (root / "bin/make").symlink_to(WRAPPER)
    (root / "bin/build-cli").symlink_to(BIN / "build-cli")
    (root / "tools/python3").symlink_to(f"{harness.python_directory()}/python3")
    for name in ("sh", "basename"):
        (root / "tools" / name).symlink_to(f"/usr/bin/{name}")
    return root


def variables(image: Path, service: Service, *first: str) -> Mapping[str, str]:
    path = ":".join(str(image / name) for name in (*first, "bin", "tools"))
    return {"PATH": path, "BUILD_SERVICE_SOCKET": str(service.daemon.socket), "container": "podman"}


def typed(image: Path, service: Service, *words: str, cwd: Path | None = None, **more: str) -> Any:
    """What came of these words, typed at a shell in a container."""
    env = {**variables(image, service), **more}
    return run_as(service.caller, ["/bin/sh", "-c", 'exec "$@"', "sh", *words], cwd or service.workspace, env)


# --- the wrapper by other names ---------------------------------------------------------------------------------------


def test_gmake_is_make_of_the_host_by_default(image: Path, service: Service) -> None:
    (image / "bin/gmake").symlink_to("make")
    makefile(service, "all:\n\t@echo built $(MAKELEVEL)\nsub:\n\t@$(MAKE) --no-print-directory\n")
    assert told(typed(image, service, "gmake")) == ("built 0\n", "", 0)
    assert told(typed(image, service, "gmake", "-s", "sub")) == ("built 1\n", "", 0)


def test_the_paths_of_gmake_are_held_as_those_of_make(image: Path, service: Service) -> None:
    (image / "bin/gmake").symlink_to("make")
    done = typed(image, service, "gmake", "-C", "/")
    assert told(done) == ("", f"-C must be under workspace: / is not under {service.workspace.resolve()}\n", 1)


def test_a_script_of_the_project_is_served_by_its_name(image: Path, service: Service) -> None:
    (image / "bin/autogen.sh").symlink_to("make")
    directory = write_tree(service.workspace / "app", {"autogen.sh": SCRIPT}, service.caller)
    done = typed(image, service, "autogen.sh", "a b", cwd=directory)
    assert told(done) == (f"./autogen.sh in {directory.resolve()} with a b\n", "", 0)
    done = typed(image, service, "autogen.sh")
    assert told(done) == ("", "cannot run ./autogen.sh: No such file or directory\n", 1)


@pytest.mark.parametrize("tool", ["gmake", "make"])
def test_without_a_service_gmake_falls_back_to_the_make_that_there_is(
    tool: str, image: Path, service: Service
) -> None:
    (image / "bin/gmake").symlink_to("make")
    write_tree(image / "tools", {tool: OWN})
    more = {"BUILD_SERVICE_FALLBACK": "local", "BUILD_SERVICE_SOCKET": "/nonexistent"}
    assert told(typed(image, service, "gmake", "all", **more)) == (f"own {tool} all\n", "", 0)


# --- what the doctor says ---------------------------------------------------------------------------------------------


def doctor(image: Path, service: Service, *command: str, first: str | None = None) -> dict[str, str]:
    return findings(ctl(service, "doctor", *command, env=variables(image, service, *([first] if first else []))))


def test_tools_of_the_container_are_named_with_the_links_that_mend_it(image: Path, service: Service) -> None:
    write_tree(image / "tools", {"gmake": OWN, "cmake": OWN, "ninja": OWN})  # the last is none that the service allows
    found = doctor(image, service)
    assert found["warning wrapper"] == (
        f"cmake is {image}/tools/cmake, gmake is {image}/tools/gmake, the container's own: what calls it builds here,"
        f" not there; to mend it: ln -s make {image}/bin/cmake; ln -s make {image}/bin/gmake"
    )
    assert found["ok wrapper"] == f"make is {image}/bin/make"
    (image / "bin/gmake").symlink_to("make")
    (image / "bin/cmake").symlink_to("make")
    assert "warning wrapper" not in doctor(image, service)


def test_one_that_stands_before_the_wrapper_is_told_so(image: Path, service: Service) -> None:
    write_tree(image, {"early/gmake": OWN})
    assert doctor(image, service, first="early")["warning wrapper"] == (
        f"gmake is {image}/early/gmake, the container's own: what calls it builds here, not there; to mend it:"
        f" put a link to {image}/bin/make, called gmake, before it on PATH"
    )


def test_where_make_is_none_of_the_wrapper_that_alone_is_told(image: Path, service: Service) -> None:
    (image / "bin/make").unlink()
    write_tree(image / "tools", {"make": OWN, "gmake": OWN})
    assert doctor(image, service)["warning wrapper"].startswith(f"make is {image}/tools/make, the container's own; ")


def test_a_program_of_the_workspace_is_examined_too_and_needs_no_wrapper(image: Path, service: Service) -> None:
    write_tree(service.workspace, {"configure": SCRIPT, "other": SCRIPT}, service.caller)
    found = doctor(image, service, "./configure", "-x")
    assert found["ok command"] == f"{service.workspace.resolve()}/configure -x, for at most 600 s"
    assert not {"ok wrapper", "warning wrapper"} & set(found)
    found = doctor(image, service, "./other")
    assert found["failure command"].startswith("command not allowed: ./other (allowed: ")
    assert "build.workspace_commands" in found["failure command"].partition("; to mend it: ")[2]


def test_build_ctl_lists_all_that_may_be_run(service: Service) -> None:
    assert ctl(service, "commands").stdout.split() == ["cmake", "gmake", "make", "./autogen.sh", "./configure"]
