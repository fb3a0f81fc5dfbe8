"""Builds that will not end: timeout and cancellation end everything of them, however they hide, trace or multiply.

What even SIGKILL does not end is named in the log.
"""

from __future__ import annotations

import os
import re
import select
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

import harness
from daemon import Service, running_service
from harness import popen_as, write_tree
from harness_world import DEV1
from hostile import settings
from wire import RawCaller, assert_ended, at_rest

pytestmark = pytest.mark.needs_root

BOMB_PROCESSES = 100
"""How many processes a fork bomb of these tests may have."""

ALL_READY_SEC = 4
"""The timeout of a build that has to get ready, on a busy machine, beside all the others."""


@pytest.fixture(scope="module")
def one() -> Iterator[Service]:
    """A service for all tests: each of them leaves it at rest."""
    with running_service("root", settings()) as service:
        yield service


# --- builds that will not end -----------------------------------------------------------------------------------------

PRELUDE = """
import ctypes, os, resource, signal, sys, time
libc = ctypes.CDLL(None, use_errno=True)
PR_SET_PDEATHSIG, PR_SET_NAME, PR_SET_CHILD_SUBREAPER = 1, 15, 36
CLONE_VM, CLONE_VFORK, CLONE_PARENT, CLONE_NEWUSER, CLONE_NEWPID = 0x100, 0x4000, 0x8000, 0x10000000, 0x20000000
PTRACE_CONT, PTRACE_SEIZE, PTRACE_INTERRUPT, PTRACE_O_TRACEEXIT = 7, 0x4206, 0x4207, 0x40
os.set_inheritable(os.open("alive", os.O_WRONLY), True)  # whoever lives holds it: the last one ends the stream

def ready():
    os.write(1, b"ready\\n")

def wait():
    while True:
        signal.pause()

def ignore_everything():
    for number in range(1, 65):
        if number not in (signal.SIGKILL, signal.SIGSTOP, signal.SIGCHLD, 32, 33):
            signal.signal(number, signal.SIG_IGN)

def child(*works):
    pid = os.fork()
    if pid == 0:
        try:
            for work in works:
                work()
        finally:
            os._exit(0)
    return pid

def name(text):
    libc.prctl(PR_SET_NAME, text, 0, 0, 0)

def clone(flags):  # a child that sleeps for ever
    stack = ctypes.create_string_buffer(1 << 16)
    top = ctypes.c_void_p((ctypes.addressof(stack) + len(stack)) & ~15)
    return libc.clone(ctypes.cast(libc.pause, ctypes.c_void_p), top, flags | signal.SIGCHLD, None)

def state(pid):
    return open("/proc/%d/stat" % pid).read().rpartition(")")[2].split()[0]

def once(found):
    while not found():
        time.sleep(0.001)

def ptrace(request, pid, data=0):
    if libc.ptrace(request, pid, ctypes.c_ulong(0), ctypes.c_ulong(data)) != 0:
        raise OSError(ctypes.get_errno(), "ptrace")
"""

HOSTILE = {
    "ignores every signal": "ignore_everything(); ready(); wait()",
    "is stopped, and so are its children": """
ignore_everything()
stopped = child(lambda: os.kill(os.getpid(), signal.SIGSTOP), wait)
child(lambda: once(lambda: state(stopped) == state(os.getppid()) == "T"), ready, wait)
os.kill(os.getpid(), signal.SIGSTOP)
wait()
""",
    "forks daemons with other names": """
def daemon(text):
    return lambda: (os.setsid(), child(ignore_everything, lambda: name(text), lambda: os.chdir("/"), wait))
for text in (b"kworker/0:1", b") S 1 (", b"python3", b"build-service", b""):
    os.waitpid(child(daemon(text)), 0)
ready()
wait()
""",
    "has sessions and groups of its own": """
for leave in (os.setsid, lambda: os.setpgid(0, 0)) * 3:
    child(leave, ignore_everything, lambda: child(leave, wait), wait)
ready()
wait()
""",
    "sends its orphans signals at its death": """
def die_with(number):
    libc.prctl(PR_SET_PDEATHSIG, number, 0, 0, 0)
for number in (signal.SIGSTOP, signal.SIGCONT, signal.SIGUSR1):
    child(ignore_everything, lambda: die_with(number), lambda: child(lambda: die_with(number), wait), wait)
ready()
wait()
""",
    "takes its orphans itself": """
ignore_everything()
libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
for _ in range(5):
    os.waitpid(child(lambda: child(os.setsid, wait)), 0)
ready()
wait()
""",
    "has children that are not its own": """
ignore_everything()
for _ in range(3):
    clone(CLONE_PARENT)
ready()
wait()
""",
    "answers SIGTERM with more processes": """
def more(number, frame):
    for _ in range(5):
        child(os.setsid, ignore_everything, wait)
signal.signal(signal.SIGTERM, more)
ready()
wait()
""",
    "waits for a vforked child": """
pid = os.getpid()
child(lambda: once(lambda: state(pid) == "D"), ready, ignore_everything, wait)
ignore_everything()
clone(CLONE_VFORK | CLONE_VM)
""",
    "holds its children by ptrace": """
ignore_everything()
traced = [child(ignore_everything, wait), child(os.setsid, ignore_everything, wait)]
for pid in traced:
    ptrace(PTRACE_SEIZE, pid, PTRACE_O_TRACEEXIT)
    ptrace(PTRACE_INTERRUPT, pid)
once(lambda: all(state(pid) == "t" for pid in traced))
ready()
wait()
""",
    "is held by its child's ptrace": """
ignore_everything()
def hold():
    ignore_everything()
    ptrace(PTRACE_SEIZE, os.getppid(), PTRACE_O_TRACEEXIT)
    ptrace(PTRACE_INTERRUPT, os.getppid())
    once(lambda: state(os.getppid()) == "t")
child(hold, ready, wait)
wait()
""",
    "hides in a pid namespace": """
ignore_everything()
libc.unshare(CLONE_NEWUSER | CLONE_NEWPID)  # where the machine lets its users have one
child(os.setsid, lambda: child(os.setsid, ignore_everything, wait), ignore_everything, ready, wait)
wait()
""",
    "fills its limit of processes": f"""
resource.setrlimit(resource.RLIMIT_NPROC, ({BOMB_PROCESSES}, {BOMB_PROCESSES}))
for _ in range({BOMB_PROCESSES}):
    try:
        child(os.setsid, ignore_everything, wait)
    except BlockingIOError:
        break
ready()
wait()
""",
    "is a fork bomb": f"""
resource.setrlimit(resource.RLIMIT_NPROC, ({BOMB_PROCESSES}, {BOMB_PROCESSES}))
ignore_everything()
first = os.getpid()
told = False
while True:
    try:
        if os.fork() == 0:
            os.setsid()
            name(b"bomb")
    except BlockingIOError:
        if os.getpid() == first and not told:
            told = True
            ready()
        time.sleep(0.001)
""",
}
"""Builds by what they do: each says that it is ready, and none means to end."""


class HostileBuild:
    """A build of HOSTILE in a directory of its own, and the means to see that nothing of it lives."""

    def __init__(self, service: Service, caller: RawCaller, name: str) -> None:
        self.caller = caller
        self.directory = service.workspace / re.sub(r"\W+", "-", name)
        write_tree(self.directory, {"build.py": PRELUDE + HOSTILE[name]}, DEV1)
        fifo = self.directory / "alive"
        fifo.unlink(missing_ok=True)
        os.mkfifo(fifo)
        harness.give(fifo, DEV1)
        harness.give(self.directory, DEV1)
        self._alive = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)

    def ask(self, **fields: object) -> None:
        self.caller.ask("-I", "build.py", command="python3", cwd=str(self.directory), **fields)

    def await_nothing_lives(self) -> None:
        """The end of the stream that every process of the build holds open."""
        poll = select.poll()
        poll.register(self._alive, 0)
        assert poll.poll(harness.PATIENCE_SEC * 1000), f"something of {self.directory.name!r} lives"

    def close(self) -> None:
        os.close(self._alive)


@contextmanager
def hostile_build(service: Service, name: str) -> Iterator[HostileBuild]:
    with RawCaller(service) as caller:
        build = HostileBuild(service, caller, name)
        try:
            yield build
        finally:
            build.close()


def ending_of(service: Service, build: HostileBuild, how: str) -> str:
    return service.daemon.await_log(rf"build {how} .*cwd={re.escape(str(build.directory))} ")


def test_when_their_callers_go_away_nothing_is_left_of_any_of_them_all_at_once(one: Service) -> None:
    with ExitStack() as stack:
        builds = [stack.enter_context(hostile_build(one, name)) for name in HOSTILE]
        for build in builds:
            build.ask()
        for build in builds:
            build.caller.await_output("ready\n")
        for build in builds:
            build.caller.close()
        for build in builds:
            build.await_nothing_lives()
            assert "survivors" not in ending_of(one, build, "cancelled")
    assert at_rest(one.daemon)


def test_a_timeout_leaves_nothing_of_any_of_them_all_at_once(one: Service) -> None:
    with ExitStack() as stack:
        builds = [stack.enter_context(hostile_build(one, name)) for name in HOSTILE]
        for build in builds:
            build.ask(timeout_sec=ALL_READY_SEC)
        for build in builds:
            exit_ = build.caller.exit()
            assert (exit_["code"], exit_["timed_out"]) == (124, True), (build.directory.name, build.caller.text())
            assert "ready\n" in build.caller.text(), (build.directory.name, build.caller.text())
            build.await_nothing_lives()
            assert "survivors" not in ending_of(one, build, "timed out")
    assert at_rest(one.daemon)


def test_a_build_that_ends_well_leaves_nothing_either(one: Service) -> None:
    """What the daemons do that its main process left."""
    with hostile_build(one, "forks daemons with other names") as build:
        script = (build.directory / "build.py").read_text().rpartition("wait()")[0]
        write_tree(build.directory, {"build.py": script}, DEV1)
        build.ask()
        assert build.caller.exit()["code"] == 0
        build.await_nothing_lives()
        assert "survivors" not in ending_of(one, build, "completed")
    assert at_rest(one.daemon)


# --- what cannot be ended ---------------------------------------------------------------------------------------------

HOLD = """
import ctypes, sys
libc = ctypes.CDLL(None, use_errno=True)
PTRACE_SEIZE, PTRACE_O_TRACEEXIT = 0x4206, 0x40
for pid in map(int, sys.argv[1:]):
    if libc.ptrace(PTRACE_SEIZE, pid, ctypes.c_ulong(0), ctypes.c_ulong(PTRACE_O_TRACEEXIT)) != 0:
        sys.exit("ptrace: %d" % ctypes.get_errno())
print("held", flush=True)
input()
"""
"""Holds processes by a stop at their exit, which outlives SIGKILL until the tracer lets go (ptrace(2), BUGS)."""


def test_what_even_sigkill_does_not_end_is_named_in_the_log_and_holds_its_caller_no_longer_than_the_ladder(
    one: Service,
) -> None:
    """The tracer is the caller's as well, and no part of the build."""
    script = "import os, signal\nprint(os.getpid(), os.fork() or os.getpid(), 'ready', flush=True)\nsignal.pause()\n"
    write_tree(one.workspace, {"held.py": script}, DEV1)
    python = f"{harness.python_directory()}/python3"
    with RawCaller(one) as caller:
        text = caller.ask("-I", "held.py", command="python3", timeout_sec=1, cwd=str(one.workspace))
        said = text.await_output(r"ready\n[^\n]*ready\n")
        pids = sorted(set(re.findall(r"\d+", said)), key=int)
        assert len(pids) == 2, said
        hold = popen_as(DEV1, [python, "-I", "-c", HOLD, *pids], "/", stdin=-1, stdout=subprocess.PIPE)
        with hold as tracer:
            assert tracer.stdout
            harness.read_until(tracer.stdout.fileno(), "held\n")
            exit_ = caller.exit()
            assert (exit_["code"], exit_["timed_out"]) == (124, True)
            line = one.daemon.await_log(r"build timed out .* args=\[.*held.py.*survivors=")
            assert {f"python3[{pid}]" for pid in pids} == set(re.findall(r"python3\[\d+\]", line)), line
            tracer.communicate(b"\n")
    assert_ended(*map(int, pids))
    assert at_rest(one.daemon)
