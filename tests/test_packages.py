"""The packages: made by `make rpm`, `make deb` and `make wheel`, installed by the real rpm, dpkg and pip, and used.

rpm and dpkg install into roots of their own, which have the programs of this machine's /usr, nothing else of it, and
in which the packages' scripts run. No test installs anything on the machine.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Union

import pytest

import harness
import tools
from daemon import Service
from harness import TREE, write_tree
from harness_world import User

SERVICE, CLIENT = "build-service", "build-service-client"
CONFIG = "etc/build-service/config.toml"
NEW_VERSION = "99.0.0"
NEW_LINE = "# new in this version\n"
"""Ends the config.toml of the new version."""

OUR_LINE = "# ours\n"
"""Ends a config.toml that the administrator changed."""

SEARCH_PATH = f"{os.environ['PATH']}:/usr/sbin:/sbin"
"""dpkg wants to see ldconfig and start-stop-daemon."""

SOURCES = sorted(path.relative_to(TREE / "lib").as_posix() for path in (TREE / "lib/buildcore").rglob("*.py"))
MODULES = [source.removesuffix(".py").removesuffix("/__init__").replace("/", ".") for source in SOURCES]
TOOLS = {"rpm": ("rpmbuild", "rpm"), "deb": ("dpkg-deb", "dpkg")}

# What hosts have of what the packages ask for, and whether that is enough.
ROCKY = {
    "10": (["python3 = 3.12.9", "/usr/bin/make"], True),
    "9": (["python3 = 3.9.21", "python3-pip = 21.3.1", "/usr/bin/make"], True),
    "9 without a TOML reader": (["python3 = 3.9.21", "/usr/bin/make"], False),
    "9 without make": (["python3 = 3.9.21", "python3-tomli = 2.0.1"], False),
    "8": (["platform-python = 3.6.8", "python3.11 = 3.11.11", "/usr/bin/make"], True),
    "8 with its own Python alone": (["platform-python = 3.6.8", "python3 = 3.6.8", "/usr/bin/make"], False),
}
DEBIAN = {
    "12": ({"python3": "3.11.2-1", "make": "4.3-4.1"}, True),
    "12 without make": ({"python3": "3.11.2-1"}, False),
    "11": ({"python3": "3.9.2-3", "make": "4.3-4.1"}, True),
    "10": ({"python3": "3.7.3-1", "make": "4.2.1-1.2"}, False),
}

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


Command = Sequence[Union[str, "os.PathLike[str]"]]

# --- making them --------------------------------------------------------------------------------------------------


def attempt(argv: Command, **options: Any) -> subprocess.CompletedProcess[str]:
    """Runs a command to its end, without questions, whatever comes of it."""
    env = {**os.environ, "PATH": SEARCH_PATH}
    return subprocess.run(argv, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, **options)


def run(argv: Command, **options: Any) -> subprocess.CompletedProcess[str]:
    """The same, and it must succeed."""
    done = attempt(argv, **options)
    assert done.returncode == 0, f"{argv}\n{done.stdout}\n{done.stderr}"
    return done


def make(tree: Path, *targets: str, umask: int = 0o022) -> Path:
    """`make TARGETS` in a source tree; returns its directory dist."""
    variables = [f"PYTHON={sys.executable}", f"DIST_PYTHONS={sys.executable}"]
    run(["make", "-s", "-C", tree, *variables, *targets], umask=umask)
    return tree / "dist"


def copy_of_the_sources(directory: Path) -> Path:
    """The source tree, without what git or a build left in it."""
    left_out = shutil.ignore_patterns(".*", "__pycache__", "*.egg-info", "build", "dist")
    return Path(shutil.copytree(TREE, directory, ignore=left_out))


class Packages(NamedTuple):
    """The two packages of one build."""

    service: Path
    client: Path


def build(kind: str, tree: Path, umask: int = 0o022) -> Packages:
    """`make rpm` or `make deb`."""
    tools.need(*TOOLS[kind])
    directory = make(tree, kind, umask=umask)
    (service,) = directory.glob(f"{SERVICE}[-_][0-9]*.{kind}")
    (client,) = directory.glob(f"{CLIENT}[-_][0-9]*.{kind}")
    return Packages(service, client)


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return copy_of_the_sources(tmp_path_factory.mktemp("packages") / "tree")


@pytest.fixture(scope="module")
def rpms(tree: Path) -> Packages:
    return build("rpm", tree)


@pytest.fixture(scope="module")
def debs(tree: Path) -> Packages:
    return build("deb", tree)


@pytest.fixture(scope="module", params=["rpm", "deb"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def both(kind: str, request: pytest.FixtureRequest) -> Packages:
    """The packages of this version, of either kind."""
    found: Packages = request.getfixturevalue(f"{kind}s")
    return found


@pytest.fixture(scope="module")
def newer(kind: str, tmp_path_factory: pytest.TempPathFactory) -> Packages:
    """Those of a later version, with another default configuration."""
    tree = copy_of_the_sources(tmp_path_factory.mktemp("newer") / "tree")
    module, config = tree / "lib/buildcore/__init__.py", tree / "etc/config.toml"
    module.write_text(re.sub("(?m)^__version__ = .*", f'__version__ = "{NEW_VERSION}"', module.read_text()))
    config.write_text(config.read_text() + NEW_LINE)
    return build(kind, tree)


# --- what is in them ----------------------------------------------------------------------------------------------


def listed(package: Path) -> dict[str, tuple[str, str]]:
    """What a package installs, but for directories: {path: (mode, owner and group)}."""
    if package.suffix == ".rpm":
        columns = r"[%{FILEMODES:perms} %{FILEUSERNAME}/%{FILEGROUPNAME} %{FILENAMES}\n]"
        lines = run(["rpm", "-qp", "--qf", columns, package]).stdout.splitlines()
    else:
        lines = run(["dpkg-deb", "--contents", package]).stdout.splitlines()
    entries = [line.partition(" -> ")[0].split() for line in lines]
    return {entry[-1].lstrip("."): (entry[0], entry[1]) for entry in entries if not entry[0].startswith("d")}


def installed_by_make(package: Path) -> dict[str, tuple[str, str]]:
    """The same without what is added for one kind of package: Debian's documents, the client's license."""
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


def stand_in_rpm(directory: Path, provides: Sequence[str]) -> Path:
    """A package that is a whole host: all that is named, and a shell."""
    lines = [f"Provides: {name}" for name in ["/bin/sh", *provides]]
    head = ["Name: host", "Version: 1", "Release: 1", "Summary: host", "License: MIT", "BuildArch: noarch"]
    write_tree(directory, {"host.spec": "\n".join([*head, *lines, "%description", "%files", ""])})
    places = [f"--define=_topdir {directory}", f"--define=_tmppath {directory}"]
    run(["rpmbuild", "-bb", "--quiet", *places, directory / "host.spec"])
    return directory / "RPMS/noarch/host-1-1.noarch.rpm"


def stand_in_status(installed: Mapping[str, str]) -> str:
    """dpkg's records of a host that has these, given as {name: version}."""
    stanza = (
        "Package: {}\nStatus: install ok installed\nArchitecture: all\nVersion: {}\n"
        "Maintainer: nobody\nDescription: stands for the package of this name\n\n"
    )
    return "".join(stanza.format(name, version) for name, version in installed.items())


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


# --- on a host ----------------------------------------------------------------------------------------------------


class Host:
    """A root with rpm's or dpkg's records, where all that the packages depend on counts as installed."""

    def __init__(self, kind: str, directory: Path) -> None:
        self.directory = directory
        self.root = directory / "root"
        self.config = self.root / CONFIG
        self._rpm: list[str | Path] = ["rpm", "--root", self.root] if kind == "rpm" else []
        self._dpkg: list[str | Path] = ["dpkg", "--root", self.root, "--force-confdef", "--force-confold"]
        if self._rpm:
            run([*self._rpm, "-U", stand_in_rpm(directory / "host", ROCKY["10"][0])])
        else:
            status = stand_in_status(DEBIAN["12"][0])
            write_tree(self.root / "var/lib/dpkg", {"status": status, "info/.keep": "", "updates/.keep": ""})

    def install(self, packages: Packages) -> subprocess.CompletedProcess[str]:
        """Installs them, or goes on to them from another version."""
        return run([*self._rpm, "-U", *packages] if self._rpm else [*self._dpkg, "-i", *packages])

    def remove(self) -> None:
        """As an administrator removes them who may want them back."""
        run([*self._rpm, "-e", SERVICE, CLIENT] if self._rpm else [*self._dpkg, "-r", SERVICE, CLIENT])

    def purge(self) -> None:
        """Removes all there is of them. rpm has no word for that: it leaves a changed configuration, and no more."""
        run([*self._rpm, "-e", SERVICE, CLIENT] if self._rpm else [*self._dpkg, "-P", SERVICE, CLIENT])

    def beside_config(self, rpm: str, deb: str) -> Path:
        """The configuration's file with the suffix that this kind of host gives to another one beside it."""
        return self.config.with_suffix(f".toml{rpm if self._rpm else deb}")

    def socket_is_enabled(self) -> bool:
        return (self.root / "etc/systemd/system/sockets.target.wants/build-service.socket").is_symlink()

    def files(self) -> set[Path]:
        """Every file in /etc and /var/log, and what /usr has more than the machine's."""
        places = [self.root / "etc", self.root / "var/log", self.directory / "upper"]
        return {path for place in places for path in place.rglob("*") if path.is_symlink() or not path.is_dir()}

    def record_systemctl(self, active: bool, reloads: bool = True) -> Path:
        """From here on systemd seems to run, and what systemctl is called with goes to the file that is returned."""
        stand_in = f"""#!/bin/sh
            [ "$1" != --quiet ] || shift
            echo "$*" >>/run/calls
            case $1 in
            is-enabled) echo enabled ;;
            is-active) exit {0 if active else 3} ;;
            reload) exit {0 if reloads else 1} ;;
            esac"""
        allow = "#!/bin/sh\n"  # policy-rc.d: of a machine whose own forbids scripts to start services
        for name, text in {"bin/systemctl": stand_in, "sbin/policy-rc.d": allow}.items():
            (self.root / "usr" / name).unlink(missing_ok=True)
            write_tree(self.root / "usr", {name: text})
        write_tree(self.root / "run", {"systemd/system/.keep": "", "calls": ""})
        return self.root / "run/calls"


@contextlib.contextmanager
def scratch_root(directory: Path) -> Iterator[None]:
    """Makes directory/root: its /usr is a layer over the machine's, its /etc has accounts and nothing else."""
    root = directory / "root"
    mounts = {
        "usr": ["-t", "overlay", "-o", f"lowerdir=/usr,upperdir={directory}/upper,workdir={directory}/work", "overlay"],
        "dev": ["--bind", "/dev"],
        "proc": ["--bind", "/proc"],
    }
    for name in ("upper", "work", "root/etc", "root/run", "root/var/tmp", *(f"root/{name}" for name in mounts)):
        (directory / name).mkdir(parents=True)
    for name in ("bin", "sbin", "lib", "lib64"):
        (root / name).symlink_to(f"usr/{name}")
    for name in ("passwd", "group"):
        shutil.copyfile(f"/etc/{name}", root / "etc" / name)
    with contextlib.ExitStack() as stack:
        for name, arguments in mounts.items():
            mounted = attempt(["mount", *arguments, root / name])
            if mounted.returncode:
                pytest.skip(f"a root of its own cannot be mounted here: {mounted.stderr.strip()}")
            stack.callback(run, ["umount", root / name])
        yield


@contextlib.contextmanager
def fresh_host(kind: str) -> Iterator[Host]:
    tools.need(*TOOLS[kind])
    directory = harness.open_directory()
    with scratch_root(directory):
        yield Host(kind, directory)
    shutil.rmtree(directory)


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


# --- the wheel ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def wheel(tree: Path) -> Path:
    write_tree(tree, {"build/lib/buildcore/left_by_an_older_build.py": ""})
    (path,) = make(tree, "wheel").glob("*.whl")
    return path


@pytest.fixture(scope="module")
def clean_python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of a new virtual environment with the wheel and what it depends on."""
    directory = tmp_path_factory.mktemp("venv")
    run([sys.executable, "-m", "venv", directory])
    run([directory / "bin/python", "-m", "pip", "install", "--quiet", wheel])
    return directory / "bin/python"


def test_the_wheel_holds_the_library_and_no_more(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        packed = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert packed == {"buildcore/py.typed", *SOURCES}


def test_two_wheels_of_the_same_sources_are_the_same_to_the_byte(wheel: Path, tmp_path: Path) -> None:
    (again,) = make(copy_of_the_sources(tmp_path / "elsewhere"), "wheel", umask=0o077).glob("*.whl")
    assert (again.name, again.read_bytes()) == (wheel.name, wheel.read_bytes())


def test_each_module_can_be_imported_where_the_wheel_is_installed(clean_python: Path) -> None:
    program = (
        "import importlib, sys, buildcore\n"
        "for name in sys.argv[1:]: importlib.import_module(name)\n"
        "print(buildcore.__file__)"
    )
    shown = run([clean_python, "-I", "-W", "error", "-c", program, *MODULES], cwd="/")
    assert Path(shown.stdout.strip()).is_relative_to(clean_python.parent.parent)


def test_a_type_checker_sees_the_types_of_the_installed_library(clean_python: Path, tmp_path: Path) -> None:
    wrong = "from buildcore.system import config\n\nsettings: int = config.parse('')\n"
    write_tree(tmp_path, {"program.py": wrong})
    options: list[str | Path] = ["--strict", "--python-executable", clean_python, "--cache-dir", tmp_path / "cache"]
    checked = attempt([sys.executable, "-m", "mypy", *options, "program.py"], cwd=tmp_path)
    assert 'has type "Settings", variable has type "int"' in checked.stdout
    assert "Found 1 error" in checked.stdout
