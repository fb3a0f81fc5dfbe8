"""The packages that `make rpm` and `make deb` make: what is in them, and what they ask of a host."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import tools
from harness import write_tree
from packages.building import Packages, attempt, build, copy_of_the_sources, listed, make
from packages.host import DEBIAN, ROCKY, stand_in_rpm, stand_in_status

# What rpmlint and lintian say of these packages that is meant to be so.
TOLERATED_BY_RPMLINT = {
    "files-duplicate",  # the default configuration is there for reading as well
    "invalid-license",  # this one and those of manual pages: not as rpmlint's own default configuration wants it
    "manpage-not-compressed",
    "no-manual-page-for-binary",
    "no-changelogname-tag",  # CHANGELOG.md tells
    "no-group-tag",  # a thing of the past
    "no-packager-tag",
    "no-signature",  # whoever publishes a package signs it
    "no-url-tag",
    "only-non-binary-in-usr-lib",  # the units
    "requires-on-release",  # service and client are of one build
}
TOLERATED_BY_LINTIAN = {
    "bogus-mail-host",  # whoever publishes a package has an address
    "bogus-mail-host-in-debian-changelog",
    "initial-upload-closes-no-bugs",
    "shell-script-fails-syntax-check",  # a zip archive follows the script
}


# --- what is in them ----------------------------------------------------------------------------------------------


def installed_by_make(package: Path) -> dict[str, tuple[str, str]]:
    """What `listed` gives, without what is added for one kind of package: Debian's documents, the client's license."""
    added = ("/usr/share/doc/", "/usr/share/licenses/")
    return {path: entry for path, entry in listed(package).items() if not path.startswith(added)}


def test_each_file_of_make_install_is_in_one_of_the_packages(both: Packages, tree: Path, tmp_path: Path) -> None:
    make(tree, "install", f"DESTDIR={tmp_path}", "PREFIX=/usr")
    installed = [f"/{path.relative_to(tmp_path)}" for path in tmp_path.rglob("*") if not path.is_dir()]
    packaged = [path for package in both for path in installed_by_make(package)]
    assert sorted(re.sub(r"(/man/.*)\.gz$", r"\1", path) for path in packaged) == sorted(installed)


def test_the_client_s_package_has_what_a_container_needs_and_no_daemon(both: Packages) -> None:
    client = installed_by_make(both.client)
    assert {"/usr/bin/build-cli", "/usr/share/build-service/make-wrapper.sh"} <= set(client)
    assert all(re.search(r"/(build-cli|build-ctl|make-wrapper|Containerfile)\b", path) for path in client)


def test_all_files_are_root_s_and_nobody_else_may_write_them(both: Packages) -> None:
    for package in both:
        for path, (mode, owner) in listed(package).items():
            executable = path.startswith("/usr/bin/") or path.endswith(".sh")
            assert (mode, owner) == ("-rwxr-xr-x" if executable else "-rw-r--r--", "root/root"), path


def test_rpm_and_deb_hold_the_same_files(rpms: Packages, debs: Packages) -> None:
    for rpm, deb in zip(rpms, debs):
        assert installed_by_make(rpm) == installed_by_make(deb)


def test_two_builds_of_the_same_sources_are_the_same_to_the_byte(kind: str, both: Packages, tmp_path: Path) -> None:
    again = build(kind, copy_of_the_sources(tmp_path / "elsewhere"), umask=0o077)
    for one, other in zip(both, again):
        assert (one.name, one.read_bytes()) == (other.name, other.read_bytes())


def test_rpmlint_finds_nothing_but_what_is_meant(rpms: Packages) -> None:
    tools.need("rpmlint")
    shown = attempt(["rpmlint", *rpms]).stdout
    found = set(re.findall(r"^\S+: [EW]: (\S+)", shown, re.MULTILINE))
    assert "2 packages" in shown and found <= TOLERATED_BY_RPMLINT, shown


def test_lintian_finds_nothing_but_what_is_meant(debs: Packages, tmp_path: Path) -> None:
    tools.need("lintian")
    shown = attempt(["env", f"TMPDIR={tmp_path}", "lintian", "--allow-root", *debs])  # it leaves files there
    found = set(re.findall(r"^[EW]: \S+: (\S+)", shown.stdout, re.MULTILINE))
    assert shown.returncode in (0, 2) and found <= TOLERATED_BY_LINTIAN, shown


# --- what they ask of a host --------------------------------------------------------------------------------------


@pytest.mark.parametrize("release", ROCKY)
def test_on_rocky_linux_rpm_asks_for_what_the_service_needs(release: str, rpms: Packages, tmp_path: Path) -> None:
    provides, enough = ROCKY[release]
    host = stand_in_rpm(tmp_path, provides)
    checked = attempt(["rpm", "--dbpath", tmp_path / "db", "-U", "--test", "--justdb", host, *rpms])
    assert (checked.returncode == 0) == enough, checked


@pytest.mark.parametrize("release", DEBIAN)
def test_on_debian_apt_asks_for_what_the_service_needs(release: str, debs: Packages, tmp_path: Path) -> None:
    installed, enough = DEBIAN[release]
    tools.need("apt-get")
    write_tree(tmp_path, {"status": stand_in_status(installed), "lists/.keep": "", "cache/.keep": ""})
    sources = {"Etc::sourcelist": "none", "Etc::sourceparts": "none"}
    places = {"State": ".", "State::status": "status", "Cache": "cache", **sources}
    options = [f"-oDir::{name}={tmp_path / place}" for name, place in places.items()]
    checked = attempt(["apt-get", "--simulate", *options, "install", *debs])
    assert (checked.returncode == 0) == enough, checked
