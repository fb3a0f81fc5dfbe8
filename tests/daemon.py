"""The real daemon as the tests start it, with a configuration of their own, and the real client for it.

The demo and the benchmark use it too. It works in both flavours of the harness.
"""

from __future__ import annotations

import grp
import json
import os
import re
import select
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

from harness import (
    BIN,
    PATIENCE_SEC,
    SYSTEM_PATH,
    await_in_directory,
    current_user,
    daemon_path,
    eventually_no_zombies,
    give,
    open_directory,
    popen_as,
    read_until,
    run_as,
    write_tree,
)
from harness_world import DEV1, User, inside

# --- its configuration --------------------------------------------------------------------------------------------


def toml(settings: Mapping[str, Any]) -> str:
    """A nested dict as TOML: strings, integers, booleans, lists and tables."""
    lines = _toml_lines(settings, ())
    return "\n".join(lines) + "\n"


def _toml_lines(table: Mapping[str, Any], path: tuple[str, ...]) -> Iterator[str]:
    inner = {key: value for key, value in table.items() if isinstance(value, Mapping)}
    if path:
        yield "[" + ".".join(_toml_text(part) for part in path) + "]"
    for key, value in table.items():
        if key not in inner:
            yield f"{_toml_text(key)} = {_toml_value(value)}"
    for key, value in inner.items():
        yield from _toml_lines(value, (*path, key))


def _toml_value(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(_toml_value(item) for item in value) + "]"
    return str(value) if isinstance(value, (int, float)) else _toml_text(os.fspath(value))


def _toml_text(value: str) -> str:
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with the values of `over`, table by table; a value None takes a key out."""
    result = dict(base)
    for key, value in over.items():
        old = result.get(key)
        result[key] = merged(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return {key: value for key, value in result.items() if value is not None}


def installed_tools() -> dict[str, str]:
    """The build tools of this machine, as the allow-list of `build.commands`."""
    found = {name: shutil.which(name, path=SYSTEM_PATH) for name in ("make", "ninja", "cmake")}
    return {name: path for name, path in found.items() if path}


# --- daemon and client --------------------------------------------------------------------------------------------


class Daemon:
    """The real build-service in a directory of its own, serving from `with` on until the end of the block.

    `settings` go over defaults that suit a test; `user` starts it as that user, a single-user service. `arguments`
    follow the command line; `programs` is the directory of the daemon's and the client's program. Leaving the block
    stops it by SIGTERM and asserts that it ended well. `launcher` goes before the command line, with the descriptors
    `pass_fds` open; then the socket may be somebody else's, who removes it.
    """

    def __init__(
        self,
        settings: Mapping[str, Any] | None = None,
        *,
        user: User | None = None,
        arguments: Sequence[str] = (),
        env: Mapping[str, str] | None = None,
        programs: Path = BIN,
        launcher: Sequence[str] = (),
        pass_fds: Sequence[int] = (),
    ) -> None:
        self._launcher = launcher
        self._pass_fds = list(pass_fds)
        self.user = user or current_user()
        self.programs = programs
        self.directory = open_directory(self.user)
        self.settings = merged(self._defaults(), settings or {})
        self.socket = Path(self.settings["service"]["socket_path"])
        self._makes_directory = not self.socket.parent.exists()
        self.log_path = Path(self.settings["logging"]["directory"]) / "build-service.log"
        self.config = self.directory / "config.toml"
        write_tree(self.directory, {"config.toml": toml(self.settings), "home/.keep": ""}, self.user)
        self._arguments = list(arguments)
        self._env = dict(env or {})
        self._process: subprocess.Popen[bytes] | None = None

    def _defaults(self) -> dict[str, Any]:
        privileged = self.user.uid == 0
        return {
            "schema_version": "1",
            "service": {
                "socket_path": str(self.directory / "build-service.sock"),
                "socket_group": "builders" if privileged and inside() else grp.getgrgid(self.user.gid).gr_name,
                "socket_mode": "0660",
            },
            "build": {
                "workspace_root": "/home" if privileged and inside() else str(self.directory / "home"),
                "commands": installed_tools(),
            },
            "logging": {"directory": str(self.directory / "log")},
        }

    def workspace_of(self, caller: User) -> Path:
        """The workspace that this daemon serves to the caller, made if it is not there."""
        path = Path(self.settings["build"]["workspace_root"]) / caller.name / "workspace"
        write_tree(path, {".keep": ""}, caller)
        return path

    @property
    def pid(self) -> int:
        """The arbiter."""
        assert self._process is not None, "the daemon was not started"
        return self._process.pid

    def start(self) -> Daemon:
        """Starts it and waits for its ready line."""
        reader, writer = os.pipe()
        try:
            with open(self.directory / "stderr", "ab") as errors:
                program = self.programs / "build-service"
                options = ["--config", str(self.config), "--ready-fd", str(writer), *self._arguments]
                self._process = popen_as(
                    self.user,
                    [*self._launcher, program, *options],
                    cwd="/",
                    env={"PATH": daemon_path(), **self._env},
                    pass_fds=[writer, *self._pass_fds],
                    stdin=subprocess.DEVNULL,
                    stdout=errors,
                    stderr=errors,
                )
            os.close(writer)
            writer = -1
            read_until(reader, r"\Aready\n")
            if not self._launcher:  # that may hold the descriptor too
                assert select.select([reader], [], [], PATIENCE_SEC)[0] and not os.read(reader, 1), "it is not closed"
        except BaseException as exc:
            self.kill()
            raise AssertionError(f"the daemon did not get ready: {exc}\n{self.errors()}") from exc
        finally:
            os.close(reader)
            if writer >= 0:
                os.close(writer)
        return self

    def stop(self) -> None:
        """SIGTERM; it must end with exit code 0, take its socket along, and leave no zombie and no traceback."""
        process = self._process
        assert process is not None, "the daemon was not started"
        if process.returncode is not None:
            return
        zombies = eventually_no_zombies(process.pid)
        process.terminate()
        try:
            code = process.wait(PATIENCE_SEC)
        finally:
            self.kill()
        assert code == 0, f"the daemon ended with {code}\n{self.errors()}"
        assert not zombies, f"the daemon did not reap {zombies}"
        assert "Traceback" not in self.errors(), self.errors()
        assert self._launcher or not self.socket.exists(), f"{self.socket} is still there"

    def kill(self) -> None:
        """SIGKILL to the arbiter alone, if it still runs."""
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait()

    def errors(self) -> str:
        """What it wrote to its stdout and stderr."""
        path = self.directory / "stderr"
        return path.read_text(errors="replace") if path.exists() else ""

    def log_lines(self) -> list[str]:
        """What the log holds by now; the writer is a process of its own, so a line may still be on its way."""
        return self.log_path.read_text(errors="surrogateescape").splitlines() if self.log_path.exists() else []

    def await_log(self, pattern: str, seconds: float = PATIENCE_SEC, count: int = 1) -> str:
        """Waits until `count` lines of the log match, and returns the last of them."""
        self.log_path.parent.mkdir(exist_ok=True)
        give(self.log_path.parent, self.user)

        def found() -> str | None:
            lines = [line for line in self.log_lines() if re.search(pattern, line)]
            return lines[count - 1] if len(lines) >= count else None

        try:
            return str(await_in_directory(self.log_path.parent, found, seconds))
        except AssertionError as exc:
            raise AssertionError(f"no log line {pattern!r} in\n" + "\n".join(self.log_lines())) from exc

    def await_error(self, pattern: str) -> None:
        """Waits until its stderr matches."""
        await_in_directory(self.directory, lambda: re.search(pattern, self.errors()))

    def remove(self) -> None:
        """Removes its directory, and the socket's where that was missing and is empty."""
        shutil.rmtree(self.directory, ignore_errors=True)
        if self._makes_directory:
            with suppress(OSError):
                self.socket.parent.rmdir()

    def __enter__(self) -> Daemon:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.stop()
        except AssertionError:
            if error is None:
                raise
        finally:
            self.remove()


class Service(NamedTuple):
    """A running daemon and one caller of it."""

    daemon: Daemon
    caller: User
    workspace: Path

    def argv(self, *arguments: str | os.PathLike[str]) -> list[str | os.PathLike[str]]:
        """The command line of the client for this daemon."""
        return [self.daemon.programs / "build-cli", "--socket", self.daemon.socket, *arguments]

    def run(
        self, *arguments: str | os.PathLike[str], cwd: Path | None = None, **options: Any
    ) -> subprocess.CompletedProcess[str]:
        """Runs `build-cli --socket ... ARGUMENTS` as the caller, in its workspace; options as for run_as."""
        return run_as(options.pop("user", self.caller), self.argv(*arguments), cwd or self.workspace, **options)

    def popen(
        self, *arguments: str | os.PathLike[str], cwd: Path | None = None, **options: Any
    ) -> subprocess.Popen[bytes]:
        """Starts the same; stdout and stderr are pipes unless `options` say otherwise."""
        options = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
        return popen_as(options.pop("user", self.caller), self.argv(*arguments), cwd or self.workspace, **options)


@contextmanager
def running_service(flavour: str, settings: Mapping[str, Any] | None = None, **options: Any) -> Iterator[Service]:
    """A daemon of the flavour `root` or `user` with one caller; `options` as for Daemon."""
    if flavour == "root":
        assert inside(), "the flavour root needs the private world: run tests/run.py as root"
        caller = DEV1
    else:
        caller = DEV1 if inside() else current_user()
        options["user"] = caller
    with Daemon(settings, **options) as daemon:
        yield Service(daemon, caller, daemon.workspace_of(caller))
