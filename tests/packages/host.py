"""Hosts where packages are installed: roots of their own, which have the programs of this machine's /usr.

Nothing else of the machine is in them, and the packages' scripts run there. No test installs anything on the machine.
"""

from __future__ import annotations

import contextlib
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest

import harness
import tools
from harness import write_tree
from packages.building import CLIENT, SERVICE, TOOLS, Packages, attempt, run

CONFIG = "etc/build-service/config.toml"

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
