"""Where a directory is to this side's kernel: what the service compares its own with, and finds it by.

Containers share the kernel with their host, so the same directory has the same device and inode there; and the mount
that it lies in tells where in a file system it is (proc(5)). Syntax of Python 3.6, and few imports: it runs at each
start.
"""

import os

from ..core import mounts
from ..core.protocol.location import Location

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Optional


def location(directory: str = ".") -> "Optional[Location]":
    """Return where `directory` is; None where that cannot be told, its mount None where that alone cannot."""
    try:
        fd = os.open(directory.encode("utf-8", "surrogateescape"), os.O_PATH | os.O_DIRECTORY)
    except OSError:
        return None
    try:
        status = os.fstat(fd)
        device = "%d:%d" % (os.major(status.st_dev), os.minor(status.st_dev))
        return Location(device, str(status.st_ino), _mount(fd))
    finally:
        os.close(fd)


def _mount(fd: int) -> "Optional[mounts.Mount]":
    try:
        number = _read("/proc/self/fdinfo/%d" % fd).partition("mnt_id:")[2].split("\n")[0].strip()
        return mounts.mount_of(_read("/proc/self/mountinfo"), number) if number else None
    except OSError:
        return None


def _read(path: str) -> str:
    with open(path, "rb", 0) as file:
        return file.read().decode("utf-8", "surrogateescape")
