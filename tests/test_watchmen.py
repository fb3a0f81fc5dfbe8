"""The watchmen of conftest.py at work: each test here runs pytest on a test that does what they watch for.

What a watchman does not see is paid for by whatever test comes next, in some orders of the tests and not in others.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import harness_world
from forked import in_child
from harness_world import ROOT

HEAD = """
import contextlib, os, resource, signal, subprocess, sys, threading, time
import pytest
import harness, harness_world
from forked import fork, identity, identity_of

LET_GO = threading.Event()
resource.setrlimit(resource.RLIMIT_CORE, (1, 1))
"""

LIMIT_SEC = 3
"""Of the tests that are cut off, and of ending what they started: a busy machine takes more than one for that."""

HANG = "while True:\n        with contextlib.suppress(Exception):\n            time.sleep(60)\n"

Outcome = Callable[[str], str]


@pytest.fixture
def outcome(tmp_path: Path) -> Outcome:
    """outcome(tests) is what pytest prints of them; as root it runs in a private world of its own."""
    options = ["-q", "-rA", "--tb=line", "--color=no", "-p", "conftest", "-p", "no:randomly", "-p", "no:cacheprovider"]

    def run(tests: str) -> str:
        os.environ.pop(harness_world.INSIDE, None)
        harness_world.enter()
        tmp_path.mkdir(parents=True, exist_ok=True)
        (tmp_path / "pytest.ini").touch()
        (tmp_path / "test_it.py").write_text(HEAD + tests)
        own = {"COLUMNS": "200", "PYTHONPATH": f"{ROOT}/tests:{ROOT}/lib", "BUILD_TEST_LIMIT_SEC": str(LIMIT_SEC)}
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
        command = [sys.executable, "-B", "-m", "pytest", *options, "test_it.py"]
        done = subprocess.run(
            command, env={**environment, **own}, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        return done.stdout.decode()

    return lambda tests: str(in_child(lambda: run(tests)))


def counts(said: str) -> dict[str, int]:
    """How many tests passed and failed, and behind how many there was an error."""
    last = said.rstrip().rpartition("\n")[2]
    return {word.rstrip("s"): int(number) for number, word in re.findall(r"(\d+) (passed|failed|errors?)", last)}


def errors(said: str) -> dict[str, str]:
    """What was said behind a test, for each of which something was."""
    return dict(re.findall(r"^_+ ERROR at teardown of (\w+) _+\n(.*)$", said, re.MULTILINE))


def each_a_test(changes: dict[str, str]) -> str:
    """A test for each of the changes, test_0 and so on."""
    return "".join(f"def test_{number}():\n    {change}\n" for number, change in enumerate(changes))


PROCESS = {
    "os.environ['LEFT'] = 'x'": "variable LEFT is new",
    "os.environ['HOME'] = 'x'": "variable HOME changed",
    "del os.environ['PATH']": "variable PATH is gone",
    "os.chdir('/')": "the working directory changed",
    "os.umask(0o031)": "the umask changed",
    "sys.path.append('/nowhere')": "the path of modules changed",
    "signal.signal(signal.SIGUSR1, print)": "handler of SIGUSR1 changed",
    "signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR2])": "blocked SIGUSR2 is new",
    "resource.setrlimit(resource.RLIMIT_CORE, (0, 1))": "limit RLIMIT_CORE changed",
    "threading.Thread(target=LET_GO.wait, name='left').start()": "thread left is new",
}


def test_who_changes_the_process_of_all_tests_is_named_and_the_next_one_does_not_suffer(outcome: Outcome) -> None:
    joined = "[each.join() for each in threading.enumerate() if each.name == 'left']"
    last = f"def test_last():\n    LET_GO.set()\n    {joined}\n"
    found = errors(outcome(each_a_test(PROCESS) + last))
    assert found == {f"test_{number}": f"left behind: {problem}" for number, problem in enumerate(PROCESS.values())}


WORLD = {
    "open('/etc/passwd', 'a').write('x:x:40000:1::/:/bin/sh\\n')": "file /run/passwd changed",
    "harness.open_directory().rename('/run/left')": "file /run/left is new",
    "open('/tmp/left', 'w').close()": "file /tmp/left is new",
    "harness_world.DEV1.home.chmod(0o755)": "file /home/dev1 changed",
    "os.rmdir('/home/dev2/workspace')": "file /home/dev2/workspace is gone",
    "subprocess.run(['mount', '--bind', '/etc', '/mnt'], check=True)": "mount /mnt is new",
}


@pytest.mark.needs_root
def test_who_changes_the_private_world_is_named_and_the_next_one_does_not_suffer(outcome: Outcome) -> None:
    found = errors(outcome(each_a_test(WORLD)))
    assert found == {f"test_{number}": f"left behind: {problem}" for number, problem in enumerate(WORLD.values())}


@pytest.mark.needs_root
def test_a_home_holds_nothing_of_the_test_before_and_what_its_module_put_there(outcome: Outcome) -> None:
    said = outcome(
        "WORKSPACE = harness_world.DEV1.home / 'workspace'\n"
        "@pytest.fixture(scope='module')\n"
        "def shared():\n"
        "    (WORKSPACE / 'shared').touch()\n"
        "@pytest.mark.parametrize('number', range(2))\n"
        "def test_it(number, shared):\n"
        "    assert os.listdir(WORKSPACE) == ['shared']\n"
        "    (WORKSPACE / 'directory').mkdir()\n"
        "    (WORKSPACE / 'directory' / 'ran').touch()\n"
        "    (WORKSPACE / 'link').symlink_to('/etc')\n"
        "    (WORKSPACE.parent / 'link').symlink_to('workspace')\n"
    )
    assert counts(said) == {"passed": 2}, said


def test_who_leaves_a_process_is_named_and_it_is_ended(outcome: Outcome) -> None:
    said = outcome(
        "def test_it():\n    fork(signal.pause)\n"
        "def test_next():\n    assert not harness.descendants(os.getpid())\n"
    )
    assert counts(said) == {"passed": 2, "error": 1}, said
    assert errors(said)["test_it"].startswith("leaked processes: "), said


# --- the time limit ---------------------------------------------------------------------------------------------------


def test_who_hangs_is_cut_off_though_it_takes_any_exception(outcome: Outcome) -> None:
    said = outcome(
        "from hypothesis import given, strategies\n"
        f"def test_body():\n    {HANG}"
        f"def test_twice():\n  try:\n    {HANG}  finally:\n    {HANG}"
        f"@given(strategies.integers())\ndef test_example(number):\n    {HANG}"
        f"@pytest.fixture\ndef own():\n    {HANG}"
        "def test_fixture(own):\n    pass\n"
    )
    assert counts(said) == {"failed": 3, "error": 1}, said
    for name in ("FAILED test_it.py::test_body", "FAILED test_it.py::test_twice", "FAILED test_it.py::test_example"):
        assert f"{name} - conftest.TooLong: the test runs for more than {LIMIT_SEC} s\n" in said
    assert f"ERROR test_it.py::test_fixture - conftest.TooLong: the test runs for more than {LIMIT_SEC} s\n" in said


@pytest.mark.needs_root
def test_a_fork_bomb_of_who_is_cut_off_is_ended_whole(outcome: Outcome) -> None:
    said = outcome(
        "def bomb():\n"
        "    resource.setrlimit(resource.RLIMIT_NPROC, (40, 40))\n"
        "    identity.permanently_become(identity_of(harness_world.OUTSIDER), no_new_privs=True)\n"
        "    while True:\n"
        "        with contextlib.suppress(BlockingIOError):\n"
        "            os.fork()\n"
        f"def test_it():\n    fork(bomb)\n    {HANG}"
        "def test_next():\n    assert not harness.descendants(os.getpid())\n"
    )
    assert counts(said) == {"passed": 1, "failed": 1, "error": 1}, said
    assert re.match("leaked processes: .* and [0-9]+ more$", errors(said)["test_it"]), said


@pytest.mark.needs_root
def test_a_build_of_who_is_cut_off_is_ended_with_its_service(outcome: Outcome) -> None:
    said = outcome(
        "def test_it(start_service):\n"
        "    service = start_service('root')\n"
        "    harness.write_tree(service.workspace, {'Makefile': 'all:\\n\\t@sleep 60 & sleep 60\\n'}, service.caller)\n"
        "    service.run('make', timeout=60)\n"
        "def test_next():\n    assert not harness.descendants(os.getpid())\n"
    )
    assert counts(said) == {"passed": 1, "failed": 1}, said
