"""The package of the client in C: `make deb-static-client` and `make rpm-static-client`."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

import tools
from packages.building import TOOLS, attempt, copy_of_the_sources, listed, make, run
from packages.test_packages import TOLERATED_BY_LINTIAN, TOLERATED_BY_RPMLINT, installed_by_make

KINDS = ("deb", "rpm")
STATIC = {"statically-linked-binary", "position-independent-executable-suggested"}
"""What both say of a static program."""


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The package of each kind."""
    for kind in KINDS:
        tools.need(*TOOLS[kind])
    tree = copy_of_the_sources(tmp_path_factory.mktemp("static") / "tree")
    dist = make(tree, *(f"{kind}-static-client" for kind in KINDS))
    return {kind: next(dist.glob(f"build-service-client-static[-_][0-9]*.{kind}")) for kind in KINDS}


def test_it_is_the_program_the_wrapper_and_the_page(packages: dict[str, Path]) -> None:
    for package in packages.values():
        assert installed_by_make(package) == {
            "/usr/bin/build-cli": ("-rwxr-xr-x", "root/root"),
            "/usr/share/build-service/make-wrapper.sh": ("-rwxr-xr-x", "root/root"),
            "/usr/share/man/man1/build-cli.1.gz": ("-rw-r--r--", "root/root"),
        }, listed(package)


@pytest.mark.needs_root
@pytest.mark.parametrize("kind", KINDS)
def test_it_runs_where_nothing_else_is(kind: str, packages: dict[str, Path], tmp_path: Path) -> None:
    unpack = {"deb": "dpkg-deb -x {} .", "rpm": "rpm2cpio {} | busybox cpio -id"}[kind].format(packages[kind])
    tools.need("busybox")
    run(["sh", "-ec", unpack], cwd=tmp_path)
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev/null").touch()
    done = subprocess.run(["chroot", tmp_path, "/usr/bin/build-cli", "make"], capture_output=True, text=True)
    assert (done.stderr, done.returncode) == ("build-service socket not found at /run/build-service.sock\n", 1)


def test_it_asks_for_no_package_and_stands_in_for_the_other_client(packages: dict[str, Path]) -> None:
    control = run(["dpkg-deb", "--field", packages["deb"]]).stdout
    assert "\nDepends:" not in control and "\nConflicts: build-service-client\n" in control
    required = run(["rpm", "-qp", "--requires", packages["rpm"]]).stdout.split("\n")
    assert not [line for line in required if line and not line.startswith(("rpmlib(", "/bin/sh"))]
    assert "build-service-client" in run(["rpm", "-qp", "--conflicts", packages["rpm"]]).stdout.split()


def test_lint_finds_nothing_but_what_is_meant(packages: dict[str, Path], tmp_path: Path) -> None:
    tools.need("lintian", "rpmlint")
    shown = attempt(["env", f"TMPDIR={tmp_path}", "lintian", "--allow-root", packages["deb"]]).stdout
    assert set(re.findall(r"^[EW]: \S+: (\S+)", shown, re.MULTILINE)) <= TOLERATED_BY_LINTIAN | STATIC, shown
    shown = attempt(["rpmlint", packages["rpm"]]).stdout
    assert set(re.findall(r"^\S+: [EW]: (\S+)", shown, re.MULTILINE)) <= TOLERATED_BY_RPMLINT | STATIC, shown
