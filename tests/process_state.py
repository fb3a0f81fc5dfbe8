"""What the kernel keeps for a process over fork(2) and execve(2), shown and set: a program of its own, for any user.

`python3 -I process_state.py show` prints all of it as JSON. `... start FILE PROGRAM...` sets all that it may, writes
what it then is to FILE, and becomes PROGRAM.
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import platform
import resource
import signal
import sys
import termios
from typing import Any

NUMBERS = {"x86_64": (252, 251, 239, 238), "aarch64": (31, 30, 236, 237)}
IOPRIO_GET, IOPRIO_SET, GET_MEMPOLICY, SET_MEMPOLICY = NUMBERS.get(platform.machine(), (0, 0, 0, 0))

PRCTL = {
    "pdeathsig": (2, True),
    "dumpable": (3, False),
    "keepcaps": (7, False),
    "securebits": (27, False),
    "timer_slack": (30, False),
    "subreaper": (37, True),
    "no_new_privs": (39, False),
    "thp_disable": (42, False),
}
"""Each attribute's number to get it (prctl(2)), and whether it comes back through a pointer."""

SET_PDEATHSIG, SET_TIMER_SLACK, SET_SUBREAPER, SET_THP_DISABLE = 1, 29, 36, 41
ADDR_NO_RANDOMIZE = 0x0040000
IDLE_PRIORITY = 2 << 13 | 6  # best effort, 6
MPOL_INTERLEAVE = 3
CLONE_NEWUTS = 0x04000000
LIMITS = 16  # RLIM_NLIMITS

libc = ctypes.CDLL(None, use_errno=True)


def prctl(option: int, by_pointer: bool) -> int:
    value = ctypes.c_int(0)
    result = libc.prctl(option, ctypes.byref(value) if by_pointer else 0, 0, 0, 0)
    return int(value.value) if by_pointer and result == 0 else int(result)


def memory_policy() -> int:
    mode = ctypes.c_int(-1)
    libc.syscall(GET_MEMPOLICY, ctypes.byref(mode), None, 0, None, 0)
    return mode.value


def content(path: str) -> str:
    try:
        with open(path) as file:
            return file.read().strip("\0\n")
    except OSError:
        return "none"


def status(*names: str) -> dict[str, str]:
    lines = dict(line.split(":", 1) for line in content("/proc/self/status").splitlines())
    return {name: lines.get(name, "none").strip() for name in names}


def terminal() -> str:
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY))
    except OSError as exc:
        return os.strerror(exc.errno or 0)
    return "there"


def show() -> dict[str, Any]:
    stat = content("/proc/self/stat").rpartition(")")[2].split()
    return {
        **{name: prctl(*how) for name, how in PRCTL.items()},
        **status("CapInh", "CapAmb", "CapBnd", "SigBlk", "SigIgn", "SigPnd", "ShdPnd", "Seccomp"),
        **status("Speculation_Store_Bypass", "SpeculationIndirectBranch"),
        "nice": os.nice(0),
        "io_priority": libc.syscall(IOPRIO_GET, 1, 0),
        "scheduler": os.sched_getscheduler(0),
        "affinity": sorted(os.sched_getaffinity(0)),
        "memory_policy": memory_policy(),
        "limits": [resource.getrlimit(number) for number in range(LIMITS)],
        "personality": libc.personality(0xFFFFFFFF),
        "coredump_filter": content("/proc/self/coredump_filter"),
        "namespaces": {name: os.readlink(f"/proc/self/ns/{name}") for name in os.listdir("/proc/self/ns")},
        "cgroup": content("/proc/self/cgroup"),
        "root": [os.stat("/").st_dev, os.stat("/").st_ino],
        "timers": [list(signal.getitimer(number)) for number in range(3)],
        "terminal": terminal(),
        "terminal_number": stat[4],
        "session": os.getsid(0),
        "autogroup": content("/proc/self/autogroup").split(" ")[0],
        "lsm": {name: content(f"/proc/self/attr/{name}") for name in ("exec", "fscreate", "keycreate", "sockcreate")},
    }


def disturb() -> None:
    """Sets what root may set, each to something that is not the default."""
    os.setsid()
    master, slave = os.openpty()
    fcntl.ioctl(slave, termios.TIOCSCTTY, 0)
    for fd in (master, slave):
        os.set_inheritable(fd, True)  # the terminal stays as long as somebody has its other end
    libc.prctl(SET_TIMER_SLACK, 123456, 0, 0, 0)
    libc.prctl(SET_PDEATHSIG, int(signal.SIGUSR2), 0, 0, 0)
    libc.prctl(SET_SUBREAPER, 1, 0, 0, 0)
    libc.prctl(SET_THP_DISABLE, 1, 0, 0, 0)
    libc.personality(ADDR_NO_RANDOMIZE)
    libc.syscall(IOPRIO_SET, 1, 0, IDLE_PRIORITY)
    libc.syscall(SET_MEMPOLICY, MPOL_INTERLEAVE, ctypes.byref(ctypes.c_ulong(1)), 64)
    libc.unshare(CLONE_NEWUTS)
    os.nice(5)
    os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    resource.setrlimit(resource.RLIMIT_NOFILE, (333, 4444))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 12345))
    with open("/proc/self/coredump_filter", "w") as file:
        file.write("0x1")
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)
    sets = (ctypes.c_uint32 * 6)()
    libc.capget(header, sets)
    sets[2] = 1 << 7 | 1 << 0  # inheritable: CAP_SETUID, CAP_CHOWN
    libc.capset(header, sets)
    libc.prctl(47, 2, 0, 0, 0)  # PR_CAP_AMBIENT_RAISE
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR2})
    for timer in (signal.ITIMER_REAL, signal.ITIMER_VIRTUAL, signal.ITIMER_PROF):
        signal.setitimer(timer, 1000)


def main() -> None:
    if sys.argv[1] == "start":
        disturb()
        with open(sys.argv[2], "w") as file:
            json.dump(show(), file)
        os.execv(sys.argv[3], sys.argv[3:])
    print(json.dumps(show()))


if __name__ == "__main__":
    main()
