"""A real project builds through the service as it builds directly: the same output, exit code and files."""

from __future__ import annotations

import sample_project
import tools
from daemon import Service
from sample_project import build_directly_and_through, in_any_order

pytestmark = tools.needed(*tools.TO_COMPILE, "ar")


def test_the_sample_project_is_of_a_real_size() -> None:
    assert sum(name.endswith(".c") for name in sample_project.files()) >= 20


def test_a_serial_build_and_its_check_are_the_same_to_the_byte(service: Service) -> None:
    direct, served = build_directly_and_through(service, ["all", "check"])
    assert direct.code == 0, direct
    assert "app/numbers" in direct.files
    assert "never_used" in direct.stderr
    assert served == direct


def test_a_parallel_build_is_the_same_but_for_the_order_of_lines(service: Service) -> None:
    direct, served = build_directly_and_through(service, ["-j4", "check"])
    assert direct.code == 0, direct
    assert in_any_order(served) == in_any_order(direct)


def test_a_build_with_an_error_is_the_same_to_the_byte(service: Service) -> None:
    broken = {**sample_project.files(), "lib/square.c": "this is no C\n"}
    direct, served = build_directly_and_through(service, ["all"], broken)
    assert direct.code == 2, direct
    assert served == direct


def test_a_second_build_has_nothing_to_do_either_way(service: Service) -> None:
    sample_project.write(service.workspace / "project", service.caller)
    first = service.run("make", "-C", "project")
    again = service.run("make", "-C", "project")
    assert (first.returncode, again.returncode) == (0, 0)
    assert "cc" not in again.stdout
