"""The machine of the tests: a systemd that was booted in namespaces, and ways to run programs on it as anybody.

The fixtures boot one for all tests. A test runs what an administrator or a developer types, sees the machine's files
below `Machine.path`, and finds its processes under their pids out here. Nothing here knows of the build service.
"""

from __future__ import annotations

import os
import select
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

import harness
from harness import text
from harness_world import User

BOOT_SEC = 90.0
"""How long booting may take on a busy machine."""

STEP_SEC = 60.0
"""How long one command may take on a busy machine."""

NAMESPACES = ("--mount", "--pid", "--cgroup", "--uts", "--ipc", "--net")
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
ROOT_USER = User("root", 0, 0, (), Path("/root"))


class Machine:
    """One machine, up from `with` on; at the end of the block it is gone with everything that runs on it."""

    def __init__(self, directory: Path, group: str) -> None:
        """`directory` holds its file system as `root`, `group` is the control group that it runs in."""
        self.root = directory / "root"
        self.init_pid = 0
        self._group = group
        self._console = directory / "console"
        self._notify_path = directory / "notify"
        self._supervisor: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Machine:
        boot = [sys.executable, "-B", "-m", "systemd.boot", str(self.root), self._group, str(self._notify_path)]
        try:
            with self._booting(), open(self._console, "ab") as console:
                self._supervisor = subprocess.Popen(boot, stdin=subprocess.DEVNULL, stdout=console, stderr=console)
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def _end(self) -> None:
        """Ends it at once: with the first process of its pid namespace the kernel ends all."""
        if self._supervisor is not None:
            below = harness.descendants(self._supervisor.pid)
            self._supervisor.kill()  # first, so that it boots nothing any more
            self._supervisor.wait()
            harness.kill_all(below)

    def reboot(self) -> None:
        """Has it go down and come up again."""
        with self._booting():
            self.run("systemctl", "reboot")

    @contextmanager
    def _booting(self) -> Iterator[None]:
        """Waits, at the end of the block, until the machine that was started in it is up.

        systemd says so as a service would. It goes on to tell things afterwards, and would wait for someone who does
        not listen: so the socket is there no longer than for this.
        """
        self._notify_path.unlink(missing_ok=True)
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notifications:
            notifications.bind(str(self._notify_path))
            yield
            deadline = time.monotonic() + BOOT_SEC
            said = b""
            while b"READY=1" not in said.splitlines():
                ready = select.select([notifications], [], [], max(0.0, deadline - time.monotonic()))[0]
                assert ready, f"the machine did not boot:\n{self._console.read_text(errors='replace')}"
                said = notifications.recv(4096)
        assert self._supervisor is not None
        table = harness.processes()
        below = harness.descendants(self._supervisor.pid, table)
        self.init_pid = next(process.pid for process in below if table[process.parent].name == "unshare")

    def path(self, inside: str | os.PathLike[str]) -> Path:
        """Where a file of the machine is found from out here, also below a mount of its own (/run, /tmp)."""
        return Path("/proc", str(self.init_pid), "root", os.fspath(inside).lstrip("/"))

    # --- running programs ---

    def argv(
        self,
        user: User,
        command: Sequence[str | os.PathLike[str]],
        cwd: str | os.PathLike[str] = "/",
        env: Mapping[str, str] | None = None,
    ) -> list[str]:
        """The command line that runs `command` on the machine as `user`, with the groups that a login has."""
        environment = {"PATH": PATH, "HOME": str(user.home), "USER": user.name, "LANG": "C.UTF-8", **(env or {})}
        enter = ["nsenter", f"--target={self.init_pid}", *NAMESPACES, "--"]
        become = ["setpriv", f"--reuid={user.uid}", f"--regid={user.gid}", "--init-groups", "--"]
        variables = [f"{name}={value}" for name, value in environment.items()]
        words = [os.fspath(word) for word in command]
        return [*enter, *become, "env", "-i", f"--chdir={os.fspath(cwd)}", *variables, *words]

    def popen(
        self,
        *command: str | os.PathLike[str],
        user: User = ROOT_USER,
        cwd: str | os.PathLike[str] = "/",
        env: Mapping[str, str] | None = None,
        **options: Any,
    ) -> subprocess.Popen[bytes]:
        """Starts a program; stdout and stderr are pipes unless `options` say otherwise."""
        options = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
        return subprocess.Popen(self.argv(user, command, cwd, env), **options)

    def run(self, *command: str | os.PathLike[str], **options: Any) -> subprocess.CompletedProcess[str]:
        """Runs a program to its end; `options` as for popen."""
        with self.popen(*command, **options) as process:
            try:
                out, err = process.communicate(timeout=STEP_SEC)
            except BaseException:
                end(process)
                raise
        return subprocess.CompletedProcess(command, process.returncode, text(out), text(err))

    def output(self, *command: str | os.PathLike[str], **options: Any) -> str:
        """Runs a program that must not fail, and returns what it printed, without the last line's end."""
        done = self.run(*command, **options)
        assert done.returncode == 0, f"{command} ended with {done.returncode}\n{done.stdout}{done.stderr}"
        return done.stdout.rstrip("\n")

    # --- the journal ---

    def cursor(self) -> str:
        """The journal's present end."""
        shown = self.output("journalctl", "--quiet", "--lines=1", "--output=cat", "--show-cursor")
        return shown.rpartition("-- cursor: ")[2]

    def await_journal(self, cursor: str, matches: Sequence[str], pattern: str) -> str:
        """Waits until what the journal has beyond the cursor matches; returns that, one message a line."""
        follow = ["journalctl", "--follow", "--no-tail", f"--after-cursor={cursor}", "--output=cat", *matches]
        with self.popen(*follow) as journal:
            assert journal.stdout is not None
            try:
                return harness.read_until(journal.stdout.fileno(), pattern)
            finally:
                end(journal)


def end(process: subprocess.Popen[bytes]) -> None:
    """Ends a program that was started on a machine: what was started out here waits for it and ends as it did."""
    below = harness.descendants(process.pid)
    if below:
        harness.kill_all(below)
    else:
        process.kill()
    process.wait()
