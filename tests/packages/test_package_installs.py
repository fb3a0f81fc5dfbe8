"""The packages on a host: installed, upgraded and removed by the real rpm and dpkg, also under a service that runs."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import harness
import tools
from daemon import Service
from harness import write_tree
from harness_world import User
from packages.building import Packages, build, copy_of_the_sources, listed, run
from packages.host import Host, fresh_host

NEW_VERSION = "99.0.0"
NEW_LINE = "# new in this version\n"
"""Ends the config.toml of the new version."""

OUR_LINE = "# ours\n"
"""Ends a config.toml that the administrator changed."""


@pytest.fixture(scope="module")
def newer(kind: str, tmp_path_factory: pytest.TempPathFactory) -> Packages:
    """Those of a later version, with another default configuration."""
    tree = copy_of_the_sources(tmp_path_factory.mktemp("newer") / "tree")
    module, config = tree / "lib/buildcore/__init__.py", tree / "etc/config.toml"
    module.write_text(re.sub("(?m)^__version__ = .*", f'__version__ = "{NEW_VERSION}"', module.read_text()))
    config.write_text(config.read_text() + NEW_LINE)
    return build(kind, tree)


@pytest.fixture
def host(kind: str) -> Iterator[Host]:
    with fresh_host(kind) as host:
        yield host


@pytest.fixture
def rocky() -> Iterator[Host]:
    with fresh_host("rpm") as host:
        yield host


@pytest.fixture
def debian() -> Iterator[Host]:
    with fresh_host("deb") as host:
        yield host


@pytest.mark.needs_root
def test_the_programs_of_a_package_run_with_the_configuration_that_came_along(host: Host, both: Packages) -> None:
    host.install(both)
    programs = [path for package in both for path in listed(package) if path.startswith("/usr/bin/")]
    for program in programs:
        assert run([f"{host.root}{program}", "--version"]).stdout.startswith(Path(program).name)
    checked = run([host.root / "usr/bin/build-service", "--config", host.config, "--check-config"])
    assert checked.stderr == ""


@pytest.mark.needs_root
def test_the_socket_s_directory_is_there_at_once(host: Host, both: Packages) -> None:
    tools.need("systemd-tmpfiles")
    host.install(both)
    made = (host.root / "run/build-service").stat()
    assert (made.st_mode & 0o7777, made.st_uid) == (0o755, 0)


@pytest.mark.needs_root
def test_an_upgrade_keeps_a_changed_configuration_and_offers_the_new_one(
    host: Host, both: Packages, newer: Packages
) -> None:
    host.install(both)
    ours = host.config.read_text() + OUR_LINE
    host.config.write_text(ours)
    host.install(newer)
    assert host.config.read_text() == ours
    assert host.beside_config(rpm=".rpmnew", deb=".dpkg-dist").read_text().endswith(NEW_LINE)
    assert f"build-service {NEW_VERSION}" in run([host.root / "usr/bin/build-service", "--version"]).stdout


@pytest.mark.needs_root
def test_an_upgrade_replaces_a_configuration_that_is_as_it_came(host: Host, both: Packages, newer: Packages) -> None:
    host.install(both)
    host.install(newer)
    assert host.config.read_text().endswith(NEW_LINE)
    assert [path.name for path in host.config.parent.iterdir()] == ["config.toml"]


@pytest.mark.needs_root
def test_a_removal_keeps_a_changed_configuration(host: Host, both: Packages) -> None:
    host.install(both)
    ours = host.config.read_text() + OUR_LINE
    host.config.write_text(ours)
    host.remove()
    assert host.beside_config(rpm=".rpmsave", deb="").read_text() == ours
    assert not (host.root / "usr/bin/build-service").exists()


@pytest.mark.needs_root
def test_nothing_is_left_where_nothing_was_changed(host: Host, both: Packages) -> None:
    before = host.files()
    host.install(both)
    host.purge()
    assert host.files() == before


@pytest.mark.needs_root
def test_a_purge_takes_a_changed_configuration_and_the_logs_along(debian: Host, debs: Packages) -> None:
    before = debian.files()
    debian.install(debs)
    debian.config.write_text(debian.config.read_text() + OUR_LINE)
    write_tree(debian.root / "var/log/build-service", {"build-service.log": "a line\n"})
    debian.remove()
    debian.purge()
    assert debian.files() == before


@pytest.mark.needs_root
@pytest.mark.parametrize("preset", ["enable", "disable"])
def test_on_rocky_linux_the_host_s_presets_say_whether_the_socket_is_enabled(
    rocky: Host, rpms: Packages, preset: str
) -> None:
    tools.need("systemctl")
    write_tree(rocky.root / "etc/systemd/system-preset", {"00-host.preset": f"{preset} build-service.*\n"})
    rocky.install(rpms)
    assert rocky.socket_is_enabled() == (preset == "enable")
    rocky.remove()
    assert not rocky.socket_is_enabled()


@pytest.mark.needs_root
def test_on_debian_the_socket_is_enabled_and_an_upgrade_minds_who_disabled_it(
    debian: Host, debs: Packages
) -> None:
    tools.need("systemctl")
    debian.install(debs)
    assert debian.socket_is_enabled()
    run(["chroot", debian.root, "systemctl", "disable", "build-service.socket"])
    debian.install(debs)
    assert not debian.socket_is_enabled()


@pytest.mark.needs_root
def test_an_upgrade_reloads_a_running_service_and_ends_nothing(host: Host, both: Packages, newer: Packages) -> None:
    host.install(both)
    calls = host.record_systemctl(active=True)
    host.install(newer)
    assert "reload build-service.service" in calls.read_text().splitlines()
    assert not re.search("stop|restart|kill|disable", calls.read_text())


@pytest.mark.needs_root
def test_an_upgrade_starts_no_service_that_does_not_run(host: Host, both: Packages, newer: Packages) -> None:
    host.install(both)
    calls = host.record_systemctl(active=False)
    host.install(newer)
    assert "daemon-reload" in calls.read_text().splitlines()
    assert not re.search("^(re)?start .*service$|[^-]reload", calls.read_text(), re.MULTILINE)


@pytest.mark.needs_root
def test_an_upgrade_whose_reload_fails_says_so_in_a_line_and_is_an_upgrade_all_the_same(
    host: Host, both: Packages, newer: Packages
) -> None:
    host.install(both)
    host.record_systemctl(active=True, reloads=False)
    said = host.install(newer).stderr
    assert "build-service: not reloaded, the version before goes on serving; see: journalctl -u build-service\n" in said
    assert NEW_VERSION in run([host.root / "usr/bin/build-service", "--version"]).stdout


@pytest.mark.needs_root
def test_a_removal_stops_service_and_socket(host: Host, both: Packages) -> None:
    host.install(both)
    calls = host.record_systemctl(active=True)
    host.remove()
    assert re.search("(stop|disable --now) build-service.socket build-service.service", calls.read_text())


@pytest.fixture
def upgraded(
    host: Host,
    both: Packages,
    newer: Packages,
    start_service: Callable[..., Service],
    workspace: Callable[[User], Path],
) -> Iterator[Service]:
    """A running service over which the newer version was installed during a build, which has to end well."""
    host.install(both)
    service = start_service("root", programs=host.root / "usr/bin")
    directory = workspace(service.caller)
    write_tree(directory, {"Makefile": "all:\n\t@echo began; cat fifo\n"}, service.caller)
    os.mkfifo(directory / "fifo")
    harness.give(directory / "fifo", service.caller)
    build = service.popen("make", cwd=directory)
    assert build.stdout
    harness.read_until(build.stdout.fileno(), "began")
    host.install(newer)
    yield service
    (directory / "fifo").write_text("ended\n")
    assert (*build.communicate(), build.returncode) == (b"ended\n", b"", 0)


def assert_it_builds(service: Service, directory: Path) -> None:
    write_tree(directory, {"Makefile": "all:\n\t@id -un\n"}, service.caller)
    built = service.run("make", cwd=directory)
    assert (built.stdout, built.stderr, built.returncode) == (f"{service.caller.name}\n", "", 0)


@pytest.mark.needs_root
def test_a_service_goes_on_building_while_its_package_is_upgraded(
    upgraded: Service, workspace: Callable[[User], Path]
) -> None:
    for _ in range(3):  # by sessions that were forked ahead, and by new ones
        assert_it_builds(upgraded, workspace(upgraded.caller))


@pytest.mark.needs_root
def test_the_reload_of_an_upgrade_brings_the_new_version_and_ends_no_build(
    upgraded: Service, workspace: Callable[[User], Path]
) -> None:
    os.kill(upgraded.daemon.pid, signal.SIGHUP)
    upgraded.daemon.await_log(f"version={NEW_VERSION}")
    assert_it_builds(upgraded, workspace(upgraded.caller))
