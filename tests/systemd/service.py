"""The installed build service on the machine, as its administrator and its callers use it.

There are two: the system's, and one user's own (`systemctl --user`). The tests drive both with the same words. What
they do is what README tells people to type; they never start the daemon themselves.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import harness
from daemon import merged, toml
from harness import PATIENCE_SEC
from harness_world import ROOT, User
from systemd.machine import ROOT_USER, Machine, end
from wire import WAITING

USERS_GID = 100
"""The group of the system's socket, `users`, on Debian."""

DEVELOPER = User("dev1", 20001, 20001, (USERS_GID,), Path("/home/dev1"))
"""Builds through the system's service."""

OWNER = User("owner", 20003, 20003, (), Path("/home/owner"))
"""Has a service of its own; the system's is not open to it."""

SOCKET = "build-service.socket"
SERVICE = "build-service.service"

MAKEFILE = f"""quick:
\t@echo quick
slow:
{WAITING}stubborn:
\t@trap '' TERM; echo make $$PPID waits; read x < gate
"""
"""`slow` waits at the gate; so does `stubborn`, and it does not end when it is told to."""


def install(machine: Machine, scratch: Path, source: Path = ROOT) -> None:
    """`make install` of the source tree onto the machine; `scratch` takes what is built."""
    options = [f"DESTDIR={machine.root}", f"DIST={scratch}/dist", f"DIST_PYTHONS={sys.executable}"]
    command = ["make", "-s", "-C", str(source), "install", *options]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert done.returncode == 0, done.stdout


def source_with_version(version: str, directory: Path) -> Path:
    """A copy of the source tree that says it is of another version."""
    unwanted = shutil.ignore_patterns(".*", "__pycache__", "dist", "tests")
    shutil.copytree(ROOT, directory, ignore=unwanted)
    init = directory / "lib/buildcore/__init__.py"
    changed, count = re.subn(r'(__version__ = ").*"', rf'\g<1>{version}"', init.read_text())
    assert count == 1
    init.write_text(changed)
    return directory


def add_user(machine: Machine, user: User) -> None:
    """Makes the account on the machine, with a home, a workspace in it, and a project."""
    groups = [f"--groups={','.join(map(str, user.groups))}"] if user.groups else []
    machine.output("groupadd", f"--gid={user.gid}", user.name)
    options = [f"--uid={user.uid}", f"--gid={user.gid}", *groups, "--create-home", "--shell=/bin/sh"]
    machine.output("useradd", *options, user.name)
    harness.write_tree(machine.path(user.home), {"workspace/Makefile": MAKEFILE}, user)


class Installed:
    """The service that is installed on the machine: the system's, or OWNER's own.

    `administrator` is who runs systemctl, `caller` who builds.
    """

    def __init__(self, machine: Machine, own: bool) -> None:
        self.machine = machine
        self.own = own
        self.administrator = OWNER if own else ROOT_USER
        self.caller = OWNER if own else DEVELOPER
        self.workspace = self.caller.home / "workspace"
        self.runtime = Path(f"/run/user/{OWNER.uid}") if own else Path("/run")
        self.socket = self.runtime / "build-service/build-service.sock"
        self.config = (OWNER.home / ".config" if own else Path("/etc")) / "build-service/config.toml"
        self.cursor = machine.cursor()
        self._clients: list[subprocess.Popen[bytes]] = []
        self._drop_ins: list[Path] = []

    # --- as the administrator ---

    def try_systemctl(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Runs systemctl, for a user with --user."""
        options = ["--user"] if self.own else []
        env = {"XDG_RUNTIME_DIR": str(self.runtime)}
        return self.machine.run("systemctl", *options, *arguments, user=self.administrator, env=env)

    def systemctl(self, *arguments: str) -> str:
        """Runs a systemctl that must not fail, and returns what it printed."""
        done = self.try_systemctl(*arguments)
        assert done.returncode == 0, f"{done.args} ended with {done.returncode}\n{done.stdout}{done.stderr}"
        return done.stdout.rstrip("\n")

    def show(self, name: str, unit: str = SERVICE) -> str:
        """A property of the unit, as `systemctl show` prints it."""
        return self.systemctl("show", "--property", name, "--value", unit)

    def await_property(self, name: str, pattern: str, unit: str = SERVICE) -> str:
        """Waits until a property of the unit matches as a whole; systemctl has no way to wait, so this asks again."""
        deadline = time.monotonic() + PATIENCE_SEC
        while not re.fullmatch(pattern, value := self.show(name, unit)):
            assert time.monotonic() < deadline, f"{name} of {unit} is {value!r}, not {pattern}"
        return value

    @property
    def main_pid(self) -> int:
        """The arbiter, by its pid on the machine."""
        return int(self.show("MainPID"))

    def signal_main(self, name: str) -> None:
        """Sends the signal to the arbiter, past systemd."""
        self.machine.output("sh", "-c", f"kill -{name} {self.main_pid}")

    def configure(self, settings: Mapping[str, Any] | None = None) -> None:
        """Writes the configuration: what suits a test, and `settings`."""
        self.write_config(toml(merged({"logging": {"console": True}}, settings or {})))

    def write_config(self, text: str) -> None:
        """Writes the configuration, right or wrong."""
        root = self.machine.path("/")
        harness.write_tree(root, {str(self.config).lstrip("/"): text}, self.administrator)

    def drop_in(self, text: str) -> None:
        """Adds to the unit until the end of the test, as `systemctl edit` does."""
        kind = "user" if self.own else "system"
        directory = self.machine.path(f"/etc/systemd/{kind}/{SERVICE}.d")
        directory.mkdir(parents=True, exist_ok=True)
        self._drop_ins.append(directory / "test.conf")
        self._drop_ins[-1].write_text(text)
        self.systemctl("daemon-reload")

    def undo_drop_in(self) -> None:
        """Takes away what was added to the unit."""
        for path in self._drop_ins:
            path.unlink(missing_ok=True)
        if self._drop_ins:
            self.systemctl("daemon-reload")
            self._drop_ins.clear()

    def await_watchdog_kicks(self, count: int = 4) -> None:
        """Waits until systemd heard so many more kicks of the watchdog."""
        for _ in range(count):
            last = self.show("WatchdogTimestampMonotonic")
            self.await_property("WatchdogTimestampMonotonic", rf"(?!{last}$)\d+")

    def journal(self, pattern: str) -> str:
        """Waits until the unit's messages since the beginning of the test match, and returns them.

        For a user's unit these are all of the user's: a process that ends at once is often too fast for the journal
        to find out its unit.
        """
        matches = [f"_UID={OWNER.uid}"] if self.own else [f"_SYSTEMD_UNIT={SERVICE}", "+", f"UNIT={SERVICE}"]
        return self.machine.await_journal(self.cursor, matches, pattern)

    # --- as a caller ---

    def client(self, *arguments: str) -> tuple[str, ...]:
        """The command line of build-cli."""
        return ("build-cli", "--socket", str(self.socket), *arguments)

    def build(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Builds in the caller's workspace, to the end."""
        return self.machine.run(*self.client(*arguments), user=self.caller, cwd=self.workspace)

    def start_build(self, *arguments: str) -> subprocess.Popen[bytes]:
        """Starts a build in the caller's workspace; its client is ended with the test if it still runs then."""
        self._clients.append(self.machine.popen(*self.client(*arguments), user=self.caller, cwd=self.workspace))
        return self._clients[-1]

    def start_waiting_build(self, target: str) -> subprocess.Popen[bytes]:
        """Starts a build and waits until it waits at the gate."""
        client = self.start_build("make", target)
        assert client.stdout is not None
        harness.read_until(client.stdout.fileno(), "waits\n")
        return client

    def await_waiting_caller(self) -> None:
        """Waits until a caller is in the socket's queue: the socket's far end has no inode yet (proc(5), net/unix).

        No event tells of that, so this looks again and again.
        """
        table = self.machine.path("/proc/1/net/unix")
        deadline = time.monotonic() + PATIENCE_SEC
        while not re.search(rf" +0 {self.socket}$", table.read_text(), re.MULTILINE):
            assert time.monotonic() < deadline, "no caller waits in the socket"
            time.sleep(0.01)

    # --- around a test ---

    def prepare(self) -> None:
        """The state that each test begins in: the socket is enabled and open, the daemon does not run."""
        self.configure()
        self.systemctl("enable", "--now", SOCKET)
        self.rest()
        self.cursor = self.machine.cursor()

    def rest(self) -> None:
        """Ends the clients, takes away what the test added to the unit, and stops the daemon."""
        for client in self._clients:
            with client:  # closes its pipes
                if client.poll() is None:
                    end(client)
        self._clients.clear()
        self.undo_drop_in()
        self.systemctl("stop", SERVICE)
        self.try_systemctl("reset-failed", SERVICE)
