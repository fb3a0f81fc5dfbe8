"""build-ctl as the tests start it, and what its doctor found."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import harness
from daemon import Service
from harness import BIN, run_as
from harness_world import User

Done = subprocess.CompletedProcess[str]

ON_A_HOST = (
    f"import sys; sys.path.insert(0, {str(harness.TREE / 'lib')!r})\n"
    "from buildcore.caller import build_ctl, doctor\n"
    "doctor.in_container = lambda: False\n"
    "sys.exit(build_ctl.main(sys.argv[1:]))\n"
)
"""build-ctl on a machine that is no container, whatever this one is."""


def ctl(service: Service, *arguments: str, cwd: Path | None = None, user: User | None = None, **options: Any) -> Done:
    """Runs `build-ctl ARGUMENTS` as the caller, with the socket of its daemon."""
    env = {"BUILD_SERVICE_SOCKET": str(service.daemon.socket), **options.pop("env", {})}
    return run_as(user or service.caller, [BIN / "build-ctl", *arguments], cwd or service.workspace, env, **options)


def ctl_on_host(service: Service, *arguments: str, user: User | None = None) -> Done:
    env = {"BUILD_SERVICE_SOCKET": str(service.daemon.socket)}
    command = [f"{harness.python_directory()}/python3", "-I", "-c", ON_A_HOST, *arguments]
    return run_as(user or service.caller, command, "/", env)


def findings(done: Done) -> dict[str, str]:
    """The lines of a doctor by `STATE CHECK`, the last of each."""
    assert "Traceback" not in done.stderr, done.stderr
    lines = [re.fullmatch(r"(ok|warning|failure) +([a-z ]+): (.*)", line) for line in done.stdout.splitlines()]
    assert all(lines), done.stdout
    return {f"{line[1]} {line[2]}": line[3] for line in lines if line}


def failure(done: Done, check: str) -> str:
    """The one failure, which is of that check."""
    found = {key: line for key, line in findings(done).items() if key.startswith("failure")}
    assert list(found) == [f"failure {check}"], done.stdout
    assert done.returncode == 1
    assert "; to mend it: " in found[f"failure {check}"]
    return found[f"failure {check}"]
