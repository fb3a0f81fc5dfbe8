"""$(PWD) in a build is the directory as its caller named it, where that leads there, and else its real name."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

import harness
from clients import shell
from daemon import Service
from harness import write_tree
from harness_world import DEV2, inside
from wire import RawCaller

StartService = Callable[..., Service]
MAKEFILE = "all:\n\t@echo '$(PWD)' \"$$PWD\" '$(CURDIR)'\n"


def with_links(service: Service) -> Service:
    """Its workspace gets a project, a link to that and one to a directory that there is not."""
    write_tree(service.workspace, {"project/Makefile": MAKEFILE, "other/Makefile": MAKEFILE}, service.caller)
    (service.workspace / "link").symlink_to("project")
    (service.workspace / "loop").symlink_to("loop")
    return service


@pytest.fixture
def one(flavour: str, start_service: StartService) -> Service:
    return with_links(start_service(flavour))


def said(service: Service, cwd: str, env: Mapping[str, str]) -> str:
    """What a build in `cwd` of a caller who sends `env` prints; the first two words of its line are the same."""
    with RawCaller(service) as caller:
        caller.ask("-s", cwd=cwd, env=env).exit()
        of_make, of_shell, real = caller.text().split()
    assert real == os.path.realpath(service.workspace / "project")
    assert of_make == of_shell
    return of_make


def test_a_link_that_the_caller_went_by_is_its_pwd(one: Service) -> None:
    done = shell(one, "cd link && exec CLIENT make -s")
    real = os.path.realpath(one.workspace / "project")
    assert (done.stdout, done.stderr) == (f"{one.workspace}/link {one.workspace}/link {real}\n", "")


def test_it_is_the_same_with_a_local_make(one: Service) -> None:
    script = "cd link && {} make -s"
    assert shell(one, script.format("exec CLIENT")).stdout == shell(one, script.format("exec")).stdout


@pytest.mark.parametrize("name", ["other", "", "missing", "loop", "project/Makefile", "project/.", "other/../project"])
def test_a_name_that_leads_elsewhere_or_nowhere_is_not_taken(name: str, one: Service) -> None:
    real = os.path.realpath(one.workspace / "project")
    assert said(one, f"{one.workspace}/project", {"PWD": f"{one.workspace}/{name}"}) == real


@pytest.mark.parametrize("pwd", ["", "project", ".", "/proc/self/cwd", "/" + "x" * 5000, "/" + "x/" * 5000])
def test_what_is_no_name_of_it_is_not_taken(pwd: str, one: Service) -> None:
    assert said(one, f"{one.workspace}/project", {"PWD": pwd}) == os.path.realpath(one.workspace / "project")


def test_without_one_it_is_the_real_name(one: Service) -> None:
    assert said(one, f"{one.workspace}/link", {}) == os.path.realpath(one.workspace / "project")


def test_the_name_may_lie_outside_the_workspace(one: Service) -> None:
    outside = harness.open_directory(one.caller)
    try:
        (outside / "link").symlink_to(one.workspace / "project")
        assert said(one, f"{one.workspace}/project", {"PWD": f"{outside}/link"}) == f"{outside}/link"
    finally:
        shutil.rmtree(outside)


@pytest.fixture
def closed(one: Service) -> Iterator[Path]:
    """A link to the project that its caller cannot reach."""
    directory = harness.open_directory(DEV2)
    (directory / "closed").mkdir()
    (directory / "closed/link").symlink_to(one.workspace / "project")
    harness.give(directory / "closed", DEV2)
    (directory / "closed").chmod(0o700)
    yield directory / "closed/link"
    shutil.rmtree(directory)


@pytest.mark.needs_root
def test_it_is_looked_at_with_the_rights_of_the_caller(start_service: StartService, closed: Path, one: Service) -> None:
    assert said(one, f"{one.workspace}/project", {"PWD": str(closed)}) == os.path.realpath(one.workspace / "project")
    closed.parent.chmod(0o711)
    assert said(one, f"{one.workspace}/project", {"PWD": str(closed)}) == str(closed)


def test_it_is_mapped_as_the_directory_is(start_service: StartService) -> None:
    mapping = {"build": {"path_mapping": {"container_template": "/srv/in/{user}"}}}
    service = with_links(start_service("root" if inside() else "user", mapping))
    inner, link = f"/srv/in/{service.caller.name}", f"{service.workspace}/link"
    real = os.path.realpath(service.workspace / "project")
    assert said(service, f"{inner}/project", {"PWD": f"{inner}/link"}) == link
    assert said(service, f"{inner}/project", {"PWD": f"{inner}/other"}) == real
    assert said(service, link, {"PWD": link}) == link


def test_the_configuration_decides_before_the_caller(start_service: StartService) -> None:
    fixed = {"build": {"environment": {"set": {"PWD": "/fixed"}}}}
    service = with_links(start_service("root" if inside() else "user", fixed))
    link = f"{service.workspace}/link"
    with RawCaller(service) as caller:
        exit_ = caller.ask("-s", cwd=link, env={"PWD": link}, features=[]).exit()
        assert caller.text().startswith("/fixed ")
    assert exit_["env_left_out"] == ["PWD"]


def test_one_that_was_not_taken_is_told_to_who_asks_for_details(one: Service) -> None:
    for pwd, told in ((f"{one.workspace}/link", None), ("/", ["PWD"]), ("", None)):
        with RawCaller(one) as caller:
            exit_ = caller.ask("-s", cwd=f"{one.workspace}/project", env={"PWD": pwd}, features=[]).exit()
            assert exit_.get("env_left_out") == told, pwd
