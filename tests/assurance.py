"""Runs every attack on the service and prints what came of it, as the table of docs/ASSURANCE.md: `make assurance`.

Each row is a command that anyone can run again. How much is tried is bounded: FUZZ_SEC, DIFFERENTIAL, SOAK and MUTANTS
in the environment make it more. Fails where an attack got through.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
FUZZ_SEC = os.environ.get("FUZZ_SEC", "60")
DIFFERENTIAL = os.environ.get("DIFFERENTIAL", "1000")
SOAK = os.environ.get("SOAK", "500")
MUTANTS = os.environ.get("MUTANTS", "drop untouched")

PASSED = r"(\d+ passed)"


class Attack(NamedTuple):
    """An attack, the command that tries it, and the pattern in its output that says how much was tried."""

    name: str
    command: str
    tried: str


def tests(name: str, files: str) -> Attack:
    """`files` below tests/, without their test_ and .py, separated by blanks."""
    words = " ".join("tests/{}/test_{}.py".format(*file.split("/")) for file in files.split())
    return Attack(name, f'make test TESTS="{words}"', PASSED)


ATTACKS = (
    tests("ids: groups by the thousand, changed and handed-on sockets, failing drops", "service/hostile_identity"),
    tests(
        "a caller and a build against the session, and builds that will not end",
        "service/hostile_session service/hostile_builds",
    ),
    tests("directories that change while they are checked, wild names", "service/hostile_paths"),
    tests("calls that fail, full disks, jumping clocks, killed processes", "service/faults"),
    tests(
        "more than one's share of connections and log lines, endless callers",
        "service/limits service/denial service/log_budgets",
    ),
    tests(
        "requests, events and settings that are none",
        "core/requests core/events core/protocol core/keys system/config core/text",
    ),
    tests(
        "keys, login uids, memory and all else that a build could share with others or with the service",
        "service/keyrings service/login_uid service/oom service/inherited service/settled",
    ),
    tests("1 200 orphans that a tracer holds, and those of killed sessions", "service/orphans"),
    tests("builds that are held before they begin, or became somebody else", "service/starting service/set_user_id"),
    tests(
        "hidepid, numbers that are used again, groups that the account is not in",
        "service/hidden system/reused_numbers service/foreign_groups",
    ),
    tests("callers who never read", "service/deliveries"),
    tests("requests that take long, file systems that do not answer", "core/scale system/path_names service/planning"),
    tests("services that are kept from stopping", "service/stopping"),
    tests("makefiles outside, by MAKEFILES", "core/makefiles service/makefiles_held"),
    tests("logs and answers that look like something else", "caller/doctor_shows core/text_parse"),
    tests(
        "ids before the first byte, proofs, locks, control groups, what runs for whom",
        "service/session_ids service/proof service/socket_lock service/could_it_run system/cgroups system/regaining "
        "system/stopped_first",
    ),
    Attack(
        "modules that the environment names, rights that units give",
        'make test TESTS="tests/test_isolated.py tests/test_units.py"',
        PASSED,
    ),
    Attack("faults put into the code", f'make mutate MUTANTS="{MUTANTS}"', r"^all: (\d+ faults)"),
    Attack("inputs that a coverage-guided fuzzer makes", f"make fuzz SECONDS={FUZZ_SEC}", r"^all +(\d+)"),
    Attack(
        "command lines to the real make, ninja and cmake", f"make differential COUNT={DIFFERENTIAL}", r"^all +(\d+)"
    ),
    Attack("mixed builds of several users at once", f"make soak BUILDS={SOAK}", r"^ *(\d+ builds)"),
)


def main() -> None:
    failed = 0
    print("| attack | tried | what happened | run it again |\n|---|---|---|---|", flush=True)
    for attack in ATTACKS:
        done = subprocess.run(["sh", "-c", attack.command], cwd=ROOT, capture_output=True, text=True)
        found = re.findall(attack.tried, done.stdout, re.MULTILINE)
        outcome = "nothing got through" if done.returncode == 0 else "**FAILED**"
        command = attack.command.replace("|", "\\|")
        print(f"| {attack.name} | {found[-1] if found else '?'} | {outcome} | `{command}` |", flush=True)
        if done.returncode or not found:
            failed += 1
            print(done.stdout[-4000:] + done.stderr[-4000:], file=sys.stderr)
    sys.exit(failed)


if __name__ == "__main__":
    main()
