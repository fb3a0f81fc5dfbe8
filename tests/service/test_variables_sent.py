"""Which variables of a caller reach its build, through a real daemon and a real make; it is told of the others."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from typing import Any

import harness
from buildcore.core import variables
from daemon import Service
from harness import write_tree
from harness_world import inside
from wire import RawCaller

StartService = Callable[..., Service]

SHOW = "all:\n\t@tr '\\0' '\\n' < /proc/self/environ\n"
MEANT_FOR_MAKE = ("PWD", "MAKEFLAGS", "GNUMAKEFLAGS", "MAKEFILES")
OF_PATTERNS = ("LC_ALL", "LC_CTYPE", "KBUILD_BUILD_USER", "CMAKE_GENERATOR", "CTEST_PARALLEL_LEVEL", "CCACHE_DISABLE")


def running(start_service: StartService, environment: Mapping[str, Any] | None = None, **options: Any) -> Service:
    settings = {"build": {"environment": environment}} if environment else {}
    service = start_service("root" if inside() else "user", settings, **options)
    write_tree(service.workspace, {"Makefile": SHOW}, service.caller)
    return service


def asked(service: Service, *args: str, **fields: Any) -> tuple[str, dict[str, Any]]:
    """What the build of one caller prints, and its exit event."""
    with RawCaller(service) as caller:
        exit_ = caller.ask(*args, **fields).exit()
        return caller.text(), exit_


def environment_of_build(service: Service, env: Mapping[str, str]) -> dict[str, str]:
    text, exit_ = asked(service, env=env)
    assert exit_["code"] == 0, text
    return dict(line.split("=", 1) for line in text.splitlines())


# --- what reaches a build ---------------------------------------------------------------------------------------------


def test_by_default_a_build_has_all_that_is_read_by_custom(flavour: str, start_service: StartService) -> None:
    service = start_service(flavour)
    write_tree(service.workspace, {"Makefile": SHOW}, service.caller)
    names = [name for name in variables.BY_CUSTOM if variables.is_name(name) and name not in MEANT_FOR_MAKE]
    sent = {name: f"value of {name}" for name in [*names, *OF_PATTERNS]}
    found = environment_of_build(service, {**sent, "SECRET": "x", "LC_X=Y": "x", "LC_é": "x"})
    assert {name: found.get(name) for name in sent} == sent
    assert not {"SECRET", "LC_X", "LC_X=Y", "LC_é"} & set(found)


def test_what_loads_code_never_reaches_a_build_by_default(start_service: StartService) -> None:
    service = running(start_service)
    found = environment_of_build(service, dict.fromkeys(variables.LOADERS, "/nonexistent"))
    assert not set(variables.LOADERS) & set(found)


def test_a_staged_install_and_a_cross_build_do_what_they_do_locally(start_service: StartService) -> None:
    service = running(start_service)
    install = "install:\n\t@mkdir -p $(DESTDIR)/p && echo $(DESTDIR)/p\n"
    makefile = "CC = $(CROSS_COMPILE)gcc\nall:\n\t@echo $(CC)\n" + install
    write_tree(service.workspace, {"Makefile": makefile}, service.caller)
    for target, env in (("all", {"CROSS_COMPILE": "arm-"}), ("install", {"DESTDIR": "stage"})):
        through = service.run("make", target, env=env)
        local = harness.run_as(service.caller, ["make", target], service.workspace, env)
        assert (through.stdout, through.stderr) == (local.stdout, local.stderr) != ("gcc\n", "")
    assert (service.workspace / "stage/p").is_dir()


def test_a_pattern_is_for_callers_and_no_service_of_variables(start_service: StartService) -> None:
    own = {"OWN_SECRET": "x", "OWN_NAMED": "service", "LC_ALL": "C"}
    service = running(start_service, {"allow": ["PATH", "OWN_*", "OWN_NAMED"]}, env=own)
    found = environment_of_build(service, {"OWN_MINE": "1", "OWN_": "2", "LC_ALL": "C.UTF-8"})
    given = {name: value for name, value in found.items() if name.startswith(("OWN_", "LC_"))}
    assert given == {"OWN_NAMED": "service", "OWN_MINE": "1", "OWN_": "2"}


# --- what leads make --------------------------------------------------------------------------------------------------


def test_gnumakeflags_lead_make_and_not_elsewhere(start_service: StartService) -> None:
    service = running(start_service)
    write_tree(service.workspace, {"Makefile": "all: ; @echo '[$(filter -s,-$(MAKEFLAGS))]' $(X)\n"}, service.caller)
    assert asked(service, env={"GNUMAKEFLAGS": "-s"})[0] == asked(service, "-s")[0]
    for value in ("-C /etc", "C/etc", "-k -f /etc/x.mk", "--directory=/etc", "-- MAKEFILES=/etc/x.mk", "MAKEFILES=/x"):
        text, exit_ = asked(service, env={"GNUMAKEFLAGS": value})
        assert text.endswith(" must not stand in GNUMAKEFLAGS: give it on the command line\n"), text
        assert exit_["code"] == 1
    assert asked(service, env={"GNUMAKEFLAGS": "$(shell id)"})[0].startswith("GNUMAKEFLAGS must not refer to variables")


def test_by_default_makefiles_are_read_and_held(start_service: StartService) -> None:
    service = running(start_service)
    files = {"Makefile": "all: ; @echo $(WORD)\n", "x.mk": "WORD := held\n"}
    write_tree(service.workspace, files, service.caller)
    elsewhere = harness.open_directory(service.caller)
    try:
        write_tree(elsewhere, {"x.mk": "WORD := elsewhere\n"}, service.caller)
        (service.workspace / "link.mk").symlink_to(elsewhere / "x.mk")
        assert asked(service, env={"MAKEFILES": "x.mk"})[0] == "held\n"
        for value in (f"{elsewhere}/x.mk", "link.mk", "x.mk /etc/missing.mk"):
            text, _ = asked(service, env={"MAKEFILES": value})
            assert text.startswith(f"MAKEFILES must be under workspace: {value.split()[-1]} is not under "), text
    finally:
        shutil.rmtree(elsewhere)


# --- what does not, and is told ---------------------------------------------------------------------------------------

SENT = {"CC": "gcc", "BOARD": "x1", "PATH": "/container", "MAKEFLAGS": "-k --jobserver-auth=3,4", "LC_ALL": "C"}


def test_what_was_left_out_is_in_the_details_of_exit(start_service: StartService) -> None:
    service = running(start_service)
    assert asked(service, env=SENT, features=[])[1]["env_left_out"] == ["BOARD", "PATH"]
    assert "env_left_out" not in asked(service, env={"CC": "gcc", "MAKEFLAGS": "-k"}, features=["details"])[1]
    assert "env_left_out" not in asked(service, features=["details"])[1]


def test_who_does_not_ask_for_details_is_told_as_before(start_service: StartService) -> None:
    text, exit_ = asked(running(start_service), env=SENT)
    assert exit_ == {"type": "exit", "code": 0, "timed_out": False}
    assert "BOARD" not in text


def test_a_refusal_leaves_nothing_out(start_service: StartService) -> None:
    exit_ = asked(running(start_service), env=SENT, features=[], command="rm")[1]
    assert exit_["error"]["kind"] == "not_allowed" and "env_left_out" not in exit_


def test_a_check_tells_what_would_be_left_out_and_what_is_allowed(start_service: StartService) -> None:
    service = running(start_service, {"allow": ["PATH", "LC_*"], "set": {"CC": "clang"}})
    with RawCaller(service) as caller:
        request = {"command": "make", "cwd": str(service.workspace), "env": SENT, "features": []}
        exit_ = caller.ask(command=None, args=None, cwd=None, check=request).exit()
    assert exit_["env_left_out"] == ["BOARD", "CC", "MAKEFLAGS", "PATH"]
    assert exit_["check"]["env_allow"] == ["PATH", "LC_*"]


def test_very_many_are_told_in_an_event_of_bounded_length(start_service: StartService) -> None:
    service = running(start_service)
    env = {f"X{number}_{'y' * 80}": "" for number in range(9000)}
    told = asked(service, env=env, features=[])[1]["env_left_out"]
    assert told == sorted(env)[: len(told)] and 150 < len(told) < 200
