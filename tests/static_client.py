"""The client in C as the tests build it, and its tests: `make test-static-client`.

It runs the tests of the client twice side by side, once with the program that `make static-client` makes, once with one
that stops at whatever AddressSanitizer and UBSan see. The tests are those of the client in Python: what holds for that
holds for both.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

TESTS = Path(__file__).resolve().parent
TREE = TESTS.parent
SOURCES = TREE / "lib/static_client"
SHIPPED, CHECKED = TREE / "build/client-shipped", TREE / "build/client-checked"
"""Where the program is made as it ships, and with sanitizers."""

MAX_LINES = 900
"""How many lines of C it may be, those that are blank left out: it is a second client, not a second product."""

FILES = (
    "caller/test_build_cli.py",
    "caller/test_build_cli_output.py",
    "caller/test_build_cli_signals.py",
    "caller/test_client.py",
    "caller/test_sandboxes.py",
    "caller/test_beside.py",
    "caller/test_left_out.py",
    "caller/test_tools_beside.py",
    "service/test_handed.py",
    "service/test_inherited.py",
    "service/test_order.py",
    "service/test_passed_signals.py",
    "service/test_same_directory.py",
    "service/test_stdin.py",
    "service/test_terminal.py",
    "service/test_variables_sent.py",
    "service/test_workspace_commands.py",
)
SANITIZERS = ("-g", "-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")
WARNINGS = ("-Wall", "-Wextra", "-Wshadow", "-Wconversion", "-Werror")
NO_LEAKS = """const char *__asan_default_options(void);
const char *__asan_default_options(void) { return "detect_leaks=0"; }
"""
"""The program ends at once, and frees nothing before."""


def make(directory: Path, **variables: str) -> Path:
    """Builds the program as users do, and returns it."""
    variables = {"DIST": str(directory), "PYTHON": sys.executable, **variables}
    words = [f"{name}={value}" for name, value in variables.items()]
    subprocess.run(["make", "-s", "static-client", *words], cwd=TREE, check=True)
    return directory / "build-cli-static"


def compile_checked(directory: Path, name: str, *others: Path, without: Sequence[str] = ()) -> Path:
    """Builds a program of the client's sources but `without`, and of `others`, with sanitizers; returns it."""
    program = directory / name
    names = subprocess.run([sys.executable, TREE / "etc/packaging/client_names.py"], check=True, capture_output=True)
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "names.h").write_bytes(names.stdout)
    (directory / "no_leaks.c").write_text(NO_LEAKS)
    sources = [path for path in sorted(SOURCES.glob("*.c")) if path.name not in without]
    made = program.with_name(f"{name}.{os.getpid()}")  # others may make it at the same time
    command = ["gcc", "-std=c11", *SANITIZERS, *WARNINGS, f"-I{directory}", f"-I{SOURCES}", "-o", made]
    subprocess.run([*command, *sources, directory / "no_leaks.c", *others], check=True)
    return made.replace(program)


def linked(directory: Path) -> Path:
    """Adds the other programs, for BUILD_TEST_BIN."""
    for name in ("build-ctl", "build-service"):
        if not (directory / name).is_symlink():
            (directory / name).symlink_to(os.path.relpath(TREE / "bin" / name, directory))
    return directory


def run(directory: Path) -> bool:
    """Runs the tests with the client of that directory, in a private world of their own, and prints what they print."""
    env = {**os.environ, "BUILD_TEST_BIN": str(directory.relative_to(TREE))}
    command = [sys.executable, "-B", str(TESTS / "run.py"), "-q", *(str(TESTS / file) for file in FILES)]
    output = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    done = subprocess.run(command, cwd=TREE, env=env, text=True, **output)
    print(f"\n== {directory.name}\n{done.stdout}", flush=True)
    return done.returncode == 0


def main() -> None:
    SHIPPED.mkdir(parents=True, exist_ok=True)
    make(SHIPPED).replace(SHIPPED / "build-cli")
    compile_checked(CHECKED, "build-cli")
    with ThreadPoolExecutor(2) as pool:
        passed = [*pool.map(run, [linked(SHIPPED), linked(CHECKED)])]
    sys.exit(not all(passed))


if __name__ == "__main__":
    main()
