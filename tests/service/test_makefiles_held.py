"""MAKEFILES among the arguments and in the environment, through a real daemon: mapped, held under the workspace."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import harness
from daemon import Service
from harness import write_tree
from harness_world import inside
from wire import RawCaller

SETTINGS = {
    "build": {
        "environment": {"allow": ["PATH", "MAKEFILES", "MAKEFLAGS"]},
        "path_mapping": {"container_template": "/srv/in/{user}"},
    }
}


@pytest.fixture
def one(start_service: Callable[..., Service]) -> Service:
    service = start_service("root" if inside() else "user", SETTINGS)
    tree = {"Makefile": "all:\n\t@echo $(WORD)\n", "sub/Makefile": "all:\n\t@echo sub $(WORD)\n"}
    write_tree(service.workspace, {**tree, "x.mk": "WORD := held\n", "sub/x.mk": "WORD := below\n"}, service.caller)
    return service


@pytest.fixture
def elsewhere(one: Service) -> Iterator[Path]:
    path = harness.open_directory(one.caller)
    write_tree(path, {"x.mk": "$(info elsewhere)\n"}, one.caller)
    (one.workspace / "link.mk").symlink_to(path / "x.mk")
    yield path
    shutil.rmtree(path)


def said(service: Service, *args: str, **fields: object) -> str:
    with RawCaller(service) as caller:
        caller.ask(*args, **fields).exit()
        return caller.text()


def in_arguments(service: Service, value: str, *args: str) -> str:
    return said(service, f"MAKEFILES={value}", *args)


def in_environment(service: Service, value: str, *args: str) -> str:
    return said(service, *args, env={"MAKEFILES": value})


WAYS = [in_arguments, in_environment]


@pytest.mark.parametrize("way", WAYS)
def test_a_makefile_of_the_workspace_is_read(way: Callable[..., str], one: Service) -> None:
    assert way(one, "x.mk") == "held\n"
    assert way(one, "missing.mk /srv/in/{0}/x.mk".format(one.caller.name)) == "held\n"
    assert way(one, f"{one.workspace}/x.mk") == "held\n"
    assert way(one, "x.mk", "-s", "-C", "sub") == "sub below\n"


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("args", [(), ("-e",), ("--environment-overrides", "-k")], ids=str)
def test_one_that_lies_elsewhere_is_refused(
    way: Callable[..., str], args: tuple[str, ...], one: Service, elsewhere: Path
) -> None:
    for value in (f"{elsewhere}/x.mk", f"x.mk {elsewhere}/x.mk", "link.mk", "../../../x.mk", "/etc/missing.mk"):
        name = value.split()[-1]
        line = way(one, value, *args)
        assert line.startswith(f"MAKEFILES must be under workspace: {name} is not under "), line


def test_it_is_held_where_the_arguments_lead_to(one: Service, elsewhere: Path) -> None:
    for way in WAYS:
        assert way(one, "../x.mk", "-s", "-C", "sub") == "sub held\n"
        assert way(one, "../link.mk", "-C", "sub").startswith("MAKEFILES must be under workspace: ../link.mk is not")


@pytest.mark.parametrize("command", ["ninja", "cmake"])
def test_the_environment_of_what_may_start_make_is_held_too(command: str, one: Service, elsewhere: Path) -> None:
    if command not in one.daemon.settings["build"]["commands"]:
        pytest.skip(f"no {command} here")
    line = said(one, "--version", command=command, env={"MAKEFILES": f"{elsewhere}/x.mk"})
    assert line.startswith(f"MAKEFILES must be under workspace: {elsewhere}/x.mk is not under "), line
    assert "elsewhere" not in said(one, "--version", command=command, env={"MAKEFILES": "x.mk"})


def test_what_make_would_compute_is_refused(one: Service) -> None:
    for way in WAYS:
        assert way(one, "$(X)", "X=x.mk") == "MAKEFILES must not refer to variables or commands: $(X)\n"
    assert said(one, "MAKEFILES!=echo x.mk") == "MAKEFILES must not refer to variables or commands: echo x.mk\n"
    line = "MAKEFILES must not stand in MAKEFLAGS: give it on the command line\n"
    assert said(one, env={"MAKEFLAGS": " -- MAKEFILES=x.mk"}) == line


def test_one_that_may_not_be_sent_is_not_there(start_service: Callable[..., Service]) -> None:
    without = {"build": {"environment": {"allow": ["PATH", "MAKEFLAGS"]}}}
    service = start_service("root" if inside() else "user", without)
    write_tree(service.workspace, {"Makefile": "all:\n\t@echo '$(MAKEFILES)'\n"}, service.caller)
    assert in_environment(service, "/etc/x.mk") == "\n"
