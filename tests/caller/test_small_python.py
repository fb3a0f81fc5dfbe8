"""The client and build-ctl run on a Python with the modules of Debian's python3-minimal alone."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence

import pytest

import harness
from clients import makefile, told
from daemon import Service
from doctors import findings
from harness import run_as

MISSING = (
    "asyncio", "bz2", "concurrent", "contextvars", "ctypes", "dataclasses", "decimal", "fractions", "html", "http",
    "json", "lzma", "multiprocessing", "pprint", "queue", "shlex", "shutil", "sqlite3", "statistics", "tomllib",
    "unittest", "uuid", "xml",
)
"""Of the modules that a whole Python has, what others of its packages bring (Debian 12, libpython3.11-minimal)."""

SMALL = (
    f"import sys; sys.modules.update(dict.fromkeys({MISSING!r})); sys.path.insert(0, {str(harness.TREE / 'lib')!r})\n"
    "from buildcore.caller import {0}\n"
    "sys.exit({0}.main(sys.argv[1:]))\n"
)


def small(one: Service, program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    python = f"{harness.python_directory()}/python3"
    env = {"BUILD_SERVICE_SOCKET": str(one.daemon.socket)}
    return run_as(one.caller, [python, "-I", "-S", "-c", SMALL.format(program), *arguments], one.workspace, env)


def test_the_client_builds(one: Service) -> None:
    makefile(one, "all:\n\t@echo built\n")
    assert told(small(one, "build_cli", "make")) == ("built\n", "", 0)


@pytest.mark.parametrize("arguments", [("doctor",), ("doctor", "--json"), ("commands",), ("agents",)], ids=" ".join)
def test_build_ctl_works(arguments: Sequence[str], one: Service) -> None:
    done = small(one, "build_ctl", *arguments)
    assert (done.stderr, done.returncode) == ("", 0)
    if arguments == ("doctor",):
        assert findings(done)["ok command"]
