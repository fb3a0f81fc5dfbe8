"""The caller's programs as the tests start them, and what came of it."""

from __future__ import annotations

import os
import shlex
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from daemon import Service
from fake_server import CALLER
from harness import BIN, run_as, write_tree


def makefile(service: Service, text: str) -> None:
    write_tree(service.workspace, {"Makefile": text}, service.caller)


def client(
    *arguments: str | os.PathLike[str], env: Mapping[str, str] | None = None, cwd: str = "/", **options: Any
) -> subprocess.CompletedProcess[str]:
    return run_as(CALLER, [BIN / "build-cli", *arguments], Path(cwd), env, **options)


def told(done: subprocess.CompletedProcess[str]) -> tuple[str, str, int]:
    return done.stdout, done.stderr, done.returncode


def shell(service: Service, script: str, **options: Any) -> subprocess.CompletedProcess[str]:
    """Runs sh with the client's command line in place of CLIENT."""
    command = " ".join(shlex.quote(os.fspath(word)) for word in service.argv())
    text = script.replace("CLIENT", command)
    return run_as(service.caller, ["/bin/sh", "-c", text], service.workspace, **options)
