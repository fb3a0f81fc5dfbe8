"""A build on its way to execve(2), where its user can hold it already: every end of a build is its end there as well.

fault_shim.c has the child stop itself when it has the caller's ids and comes to execve, as a SIGSTOP of another process
of that user does if it comes just then.
"""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from test_faults import Faults

import harness
from daemon import Service
from harness import PATIENCE_SEC, Process, await_exit, descendants, write_tree
from wire import RawCaller, assert_ended, at_rest

StartService = Callable[..., Service]

GRACE_SEC = 1
PROOF_SEC = 10.0
TRIAL_SEC = 60.0


@pytest.fixture
def faults() -> Iterator[Faults]:
    directory = harness.open_directory()
    made = Faults(directory)
    yield made
    made.close()
    shutil.rmtree(directory)


@pytest.fixture
def held(flavour: str, faults: Faults, start_service: StartService) -> Service:
    service = start_service(flavour, {"build": {"timeouts": {"grace_sec": GRACE_SEC}}}, env=faults.env)
    write_tree(service.workspace, {"Makefile": "quick:\n\t@echo quick\n"}, service.caller)
    return service


@contextmanager
def holding(faults: Faults, where: str = "stop") -> Iterator[None]:
    with faults.failing(where, 0, 0):
        yield
    assert faults.hits() == 1


def await_stopped(service: Service) -> Process:
    """The child that stands still. Nobody but its parent is told, so this looks again and again."""
    deadline = time.monotonic() + PATIENCE_SEC
    while True:
        for process in descendants(service.daemon.pid):
            if process.state == "T":
                return process
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_the_timeout_counts_from_the_fork(held: Service, faults: Faults) -> None:
    with holding(faults), RawCaller(held) as caller:
        exit_ = caller.ask("quick", features=[], timeout_sec=1).exit()
    assert (exit_["code"], exit_["timed_out"], caller.text()) == (124, True, "")
    assert 1000 <= exit_["duration_ms"] < 1000 + 1000 * PATIENCE_SEC
    held.daemon.await_log("build timed out .*exit_code=124 ")
    assert at_rest(held.daemon)


def test_a_cancel_ends_it(held: Service, faults: Faults) -> None:
    with holding(faults), RawCaller(held) as caller:
        caller.ask("quick", features=[])
        await_stopped(held)
        exit_ = caller.send(b'{"type":"cancel","signal":"INT"}\n').exit()
    assert (exit_["signal"], exit_["error"]["kind"], caller.text()) == (signal.SIGINT, "cancelled", "")
    assert at_rest(held.daemon)


def test_a_hang_up_ends_it(held: Service, faults: Faults) -> None:
    with holding(faults), RawCaller(held) as caller:
        caller.ask("quick")
        child = await_stopped(held)
    assert_ended(child.pid)
    held.daemon.await_log("build cancelled ")
    assert at_rest(held.daemon)


def test_the_end_of_the_service_ends_it(held: Service, faults: Faults) -> None:
    with holding(faults), RawCaller(held) as caller:
        caller.ask("quick", features=[])
        child = await_stopped(held)
        os.kill(held.daemon.pid, signal.SIGTERM)
        assert caller.exit()["error"]["kind"] == "stopping"
        assert await_exit(held.daemon.pid)
    assert_ended(child.pid)


def test_it_ends_with_its_session(held: Service, faults: Faults) -> None:
    with holding(faults), RawCaller(held) as caller:
        caller.ask("quick")
        child = await_stopped(held)
        os.kill(child.parent, signal.SIGKILL)
        assert_ended(child.pid)
    assert at_rest(held.daemon)
    assert held.run("make", "quick").stdout == "quick\n"


def test_who_holds_it_holds_nothing_of_the_service(held: Service, faults: Faults) -> None:
    dropped = held.daemon.user.uid == 0
    with holding(faults, "stop behind the drop" if dropped else "stop"), RawCaller(held) as caller:
        caller.ask("quick")
        child = await_stopped(held)
        open_ = {int(name): os.readlink(f"/proc/{child.pid}/fd/{name}") for name in os.listdir(f"/proc/{child.pid}/fd")}
        assert {fd for fd in open_ if fd < 3} == {0, 1, 2} and open_[0] == "/dev/null"
        (status,) = {fd for fd in open_ if fd > 2}  # on which a failure is told; execve(2) closes it
        assert all(open_[fd].startswith("pipe:") for fd in (1, 2, status))
        if os.geteuid() == 0:
            flags = Path(f"/proc/{child.pid}/fdinfo/{status}").read_text()
            assert int(flags.split("flags:")[1].split()[0], 8) & os.O_CLOEXEC
        os.kill(child.pid, signal.SIGCONT)
        assert caller.exit()["code"] == 0
    assert caller.text() == "quick\n"


def test_a_program_that_cannot_be_executed_is_one_line_and_no_build(flavour: str, start_service: StartService) -> None:
    directory = harness.open_directory()
    try:
        write_tree(directory, {"broken": "#!/nonexistent/interpreter\n"})
        service = start_service(flavour, {"build": {"commands": {"broken": str(directory / "broken")}}})
        with RawCaller(service) as caller:
            exit_ = caller.ask(command="broken", features=[]).exit()
        line = f"cannot run {directory}/broken: the host does not have what its first line names to run it"
        assert (caller.text(), exit_["code"], exit_["error"]) == (f"{line}\n", 1, {"kind": "start", "message": line})
        assert "duration_ms" not in exit_
        service.daemon.await_log("WARN build_service: build refused .*kind=start")
        assert at_rest(service.daemon)
        service.daemon.stop()
        assert not [line for line in service.daemon.log_lines() if "build started" in line]
    finally:
        shutil.rmtree(directory)


def test_a_scratch_child_that_is_held_keeps_no_service_from_saying_so(faults: Faults) -> None:
    program = (
        f"import sys; sys.path.insert(0, {str(harness.TREE / 'lib')!r})\n"
        "from buildcore.core.settings import Settings; from buildcore.service import proof\n"
        "try: proof.prove(Settings())\nexcept proof.ProofError as exc: print(exc)"
    )
    python = f"{harness.daemon_python_directory()}/python3"
    with holding(faults):
        done = harness.run_as(harness.current_user(), [python, "-I", "-c", program], "/", env=faults.env)
    said = f"{shutil.which('cat', path='/usr/bin:/bin')} /proc/self/status did not end within {PROOF_SEC:.0f} s\n"
    assert (done.stdout, done.stderr) == (said, "")


@pytest.mark.needs_root
def test_a_user_database_that_does_not_answer_ends_a_reload_and_not_the_service(
    faults: Faults, start_service: StartService
) -> None:
    service = start_service("root", env=faults.env)
    write_tree(service.workspace, {"Makefile": "quick:\n\t@echo quick\n"}, service.caller)
    with holding(faults, "stop at a group"):
        os.kill(service.daemon.pid, signal.SIGHUP)
        assert await_stopped(service).pid != service.daemon.pid
    faults.let_pass(round(TRIAL_SEC) + 1)
    os.kill(service.daemon.pid, signal.SIGCHLD)  # whatever wakes it: it looks at the clock
    service.daemon.await_log("reload refused, everything stays as it was")
    assert service.run("make", "quick").stdout == "quick\n"
