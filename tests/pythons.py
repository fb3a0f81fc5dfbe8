"""Runs the tests of the shipped programs with other Pythons: `make test-pythons`.

The tests themselves keep the Python that they have, which `make test` covers; what they start, the single files of
`make dist`, runs with the oldest and the newest other Python of this machine that can serve, from 3.9 on, or with all
of them (`--all`). An older one, from 3.6 on, runs the client alone. At the end it prints which were covered, and fails
where fewer than MIN_COVERED were.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import harness

CLIENT = (
    "caller/test_build_cli.py",
    "caller/test_build_cli_output.py",
    "caller/test_build_cli_signals.py",
    "caller/test_client.py",
)
PROGRAMS = (
    *CLIENT,
    "caller/test_build_ctl.py",
    "caller/test_doctor.py",
    "caller/test_doctor_places.py",
    "service/test_activation.py",
    "service/test_callers.py",
    "service/test_reload.py",
)
MIN_COVERED = 2
AT_ONCE = 3
"""So many Pythons are tried side by side: most of the time the tests wait."""
TESTS = Path(__file__).resolve().parent


def version_of(python: str) -> tuple[int, ...]:
    run = subprocess.run([python, "-I", "-S", "-V"], capture_output=True, text=True, check=True)
    return tuple(map(int, re.findall(r"\d+", run.stdout)[:3]))


def can_serve(python: str) -> bool:
    """Whether it can run the daemon: it is new enough and has a reader of TOML."""
    program = "import sys; sys.path.insert(0, sys.argv[1]); from buildcore.system import config; config.parse('')"
    library = str(TESTS.parent / "lib")
    return subprocess.run([python, "-I", "-c", program, library], capture_output=True).returncode == 0


def chosen(every: bool) -> list[str]:
    """The Pythons to run, by version; the oldest that is a client alone comes first."""
    pythons = sorted(harness.other_pythons(6), key=version_of)
    serving = [python for python in pythons if can_serve(python) and version_of(python)[:2] != sys.version_info[:2]]
    clients = [python for python in pythons if version_of(python) < (3, 9)]
    return [*clients[:1], *(serving if every else dict.fromkeys([*serving[:1], *serving[-1:]]))]


def run(python: str) -> bool:
    """Runs the tests with `python`, as root in a private world of their own, and prints what they print at the end."""
    files = PROGRAMS if can_serve(python) else CLIENT
    env = {**os.environ, "BUILD_TEST_PYTHON": python, "BUILD_TEST_BIN": "dist"}
    command = [sys.executable, "-B", str(TESTS / "run.py"), "-q", *(str(TESTS / file) for file in files)]
    output = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    done = subprocess.run(command, cwd=TESTS.parent, env=env, text=True, **output)
    print(f"\n== Python {'.'.join(map(str, version_of(python)))}: {', '.join(files)}\n{done.stdout}", flush=True)
    return done.returncode == 0


def main() -> None:
    pythons = chosen("--all" in sys.argv)
    subprocess.run(["make", "-s", "dist", f"DIST_PYTHONS={' '.join(pythons)}"], cwd=TESTS.parent, check=True)
    with ThreadPoolExecutor(AT_ONCE) as pool:
        passed = [python for python, good in zip(pythons, pool.map(run, pythons)) if good]
    for python in pythons:
        role = "programs" if can_serve(python) else "client"
        outcome = "passed" if python in passed else "FAILED"
        print(f"Python {'.'.join(map(str, version_of(python)))} ({role}): {outcome}")
    if len(pythons) < MIN_COVERED:
        print(f"fewer than {MIN_COVERED} further Pythons are at hand: install one, python3.N on PATH")
    sys.exit(passed != pythons or len(pythons) < MIN_COVERED)


if __name__ == "__main__":
    main()
