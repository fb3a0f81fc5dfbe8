"""Programs started where a filter refuses one system call, as those of containers and of agents' sandboxes do."""

from __future__ import annotations

import errno
import platform

SOCKET, CONNECT = {"x86_64": (41, 42), "aarch64": (198, 203)}[platform.machine()]
"""The numbers of socket(2) and connect(2)."""

_PROGRAM = """
import ctypes, os, struct, sys
number, error = int(sys.argv[1]), int(sys.argv[2])
def instruction(code, true, false, value):
    return struct.pack("HBBI", code, true, false, value)
LOAD, IS, RETURN = 0x20, 0x15, 0x06  # bpf(4); the call's number is the first of struct seccomp_data
program = (instruction(LOAD, 0, 0, 0) + instruction(IS, 0, 1, number)
           + instruction(RETURN, 0, 0, 0x00050000 | error) + instruction(RETURN, 0, 0, 0x7FFF0000))
buffer = ctypes.create_string_buffer(program, len(program))
filters = struct.pack("HxxxxxxP", 4, ctypes.addressof(buffer))
libc = ctypes.CDLL(None)
if libc.prctl(38, 1, 0, 0, 0) != 0 or libc.prctl(22, 2, ctypes.c_char_p(filters), 0, 0) != 0:
    sys.exit("no seccomp")
os.execv(sys.argv[3], sys.argv[3:])
"""


def launcher(python: str, call: int, error: int = errno.EPERM) -> list[str]:
    """The command line, before that of a program, that starts it where that system call has this error."""
    return [python, "-I", "-c", _PROGRAM, str(call), str(error)]
