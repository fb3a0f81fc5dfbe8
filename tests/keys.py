"""What builds of the tests do with keys (keyrings(7)): a program of its own, `python3 -I keys.py OPERATION...`.

Prints one line for each operation, its words apart by colons: what the kernel returned, or the name of the errno. It
needs nothing but Python, whoever runs it; keyctl(1) need not be installed.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
import sys

THREAD, SESSION, USER = -1, -3, -4
SPECIAL = {"session": SESSION, "user": USER}

NUMBERS = {("x86_64", 8): 250, ("aarch64", 8): 219, ("riscv64", 8): 219, ("ppc64le", 8): 271, ("s390x", 8): 280}
KEYCTL = NUMBERS.get((os.uname().machine, struct.calcsize("P")), 0)
"""The number of keyctl(2); that of add_key(2) is two less everywhere."""

libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long


def keyctl(operation: int, *arguments: int | bytes) -> int:
    return call(KEYCTL, operation, *arguments)


def call(number: int, *arguments: int | bytes) -> int:
    converted = [ctypes.c_long(each) if isinstance(each, int) else each for each in arguments]
    result = libc.syscall(ctypes.c_long(number), *converted)
    if result < 0:
        raise OSError(ctypes.get_errno(), "keyctl")
    return int(result)


def add(keyring: str, name: str, payload: str) -> str:
    value = payload.encode()
    return str(call(KEYCTL - 2, b"user", name.encode(), value, len(value), number(keyring)))


def read(key: str) -> str:
    buffer = ctypes.create_string_buffer(100)
    size = call(KEYCTL, 11, number(key), ctypes.cast(buffer, ctypes.c_void_p).value or 0, 100)
    return buffer.raw[:size].decode()


def find(keyring: str, name: str) -> str:
    return str(keyctl(10, number(keyring), b"user", name.encode(), 0))


def update(key: str, payload: str) -> str:
    return str(keyctl(2, number(key), payload.encode(), len(payload.encode())))


def fill(keyring: str) -> str:
    """Adds keys until there is no room for one more."""
    for count in range(100_000):
        try:
            add(keyring, f"filling {count}", "x")
        except OSError as exc:
            return errno.errorcode[exc.errno or 0]
    return "room for all"


def visible() -> str:
    """The serial numbers of the keys that /proc/keys shows this process."""
    with open("/proc/keys") as file:
        return " ".join(str(int(line.split()[0], 16)) for line in file)


def owner(key: str) -> str:
    """The uid whose key it is."""
    buffer = ctypes.create_string_buffer(200)
    call(KEYCTL, 6, number(key), ctypes.cast(buffer, ctypes.c_void_p).value or 0, 200)
    return buffer.value.decode().split(";")[1]


def number(key: str) -> int:
    return SPECIAL[key] if key in SPECIAL else int(key)


OPERATIONS = {
    "add": add,
    "read": read,
    "find": find,
    "update": update,
    "fill": fill,
    "owner": owner,
    "visible": visible,
    "id": lambda key: str(keyctl(0, number(key), 0)),
    "revoke": lambda key: str(keyctl(3, number(key))),
    "clear": lambda key: str(keyctl(7, number(key))),
    "permit": lambda key: str(keyctl(5, number(key), 0x3F3F3F3F)),
    "own": lambda key, uid: str(keyctl(4, number(key), int(uid), -1)),
    "link": lambda key, keyring: str(keyctl(8, number(key), number(keyring))),
    "join": lambda: str(keyctl(1, 0)),
    "join_named": lambda name: str(keyctl(1, name.encode())),
    "to_parent": lambda: str(keyctl(18)),
    "default": lambda value: str(keyctl(14, int(value))),
    "time_out": lambda key, seconds: str(keyctl(15, number(key), int(seconds))),
}


def do(operation: str) -> str:
    name, *arguments = operation.split(":")
    try:
        return OPERATIONS[name](*arguments)
    except OSError as exc:
        return errno.errorcode[exc.errno or 0]


if __name__ == "__main__":
    for line in sys.argv[1:]:
        print(do(line), flush=True)
