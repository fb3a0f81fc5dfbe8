"""Mounts as /proc/PID/mountinfo lists them (proc(5)), and the names that a place of a file system has by them.

Both sides use it: the caller tells in which mount its directory lies, the service looks for the same place in its own.
Values in, values out. Syntax of Python 3.6: the client loads it at each start.
"""

from .protocol.lines import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import List, Optional, Tuple

MAX_NAMES = 16
"""How many names of one place are tried, at most."""

_OF_OTHERS = ("9p", "ceph", "cifs", "fuse", "nfs", "nfs4", "smb3", "virtiofs")
_OF_IMAGES = "fuse.fuse-overlayfs"
_ESCAPED = (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\"))


class Mount(Record):
    """One mount: the file system's `device` as "major:minor", what of it is mounted (`root`, a path in it), and where
    (`point`)."""

    __slots__ = ("device", "file_system", "point", "root")

    def __init__(self, device: str, root: str, point: str, file_system: str) -> None:
        self.device = device
        self.root = root
        self.point = point
        self.file_system = file_system


def mount_of(mountinfo: str, number: str) -> "Optional[Mount]":
    """Return the mount with that number (mnt_id of /proc/PID/fdinfo), None where there is none."""
    begin = ("\n" + mountinfo).find("\n%s " % number)
    return None if begin < 0 else _mount(mountinfo[begin:].partition("\n")[0])


def names_of(mountinfo: str, device: str, place: str) -> "List[str]":
    """Return the names that `place`, a path in the file system `device`, has by its mounts, at most MAX_NAMES: by the
    one that shows the least of it first, of equals by the last, which is on top.

    Nothing says that a name leads there: what is mounted over it may hide it.
    """
    found: "List[Tuple[int, int, str]]" = []
    for line in mountinfo.split("\n"):
        mount = _mount(line) if " %s " % device in line else None
        below = None if mount is None or mount.device != device else below_of(mount.root, place)
        if mount is not None and below is not None:
            found.append((len(mount.root), len(found), joined(mount.point, below)))
    names = [name for _, _, name in sorted(found, reverse=True)]
    return list(dict.fromkeys(names))[:MAX_NAMES]


def may_be_twice(file_system: str) -> bool:
    """Tell whether one directory may have two devices in one kernel, as file systems that another machine or program
    serves can be mounted twice; not so what images lie in, which is nowhere else."""
    return file_system in _OF_OTHERS or (file_system.startswith("fuse.") and file_system != _OF_IMAGES)


def below_of(root: str, path: str) -> "Optional[str]":
    """Return the part of `path` that is below `root`, "" where it is that itself, None where it is elsewhere."""
    if path == root:
        return ""
    root = root.rstrip("/") + "/"
    return path[len(root) :] if path.startswith(root) else None


def joined(directory: str, below: str) -> str:
    """Return the name of what is `below` a directory, as `below_of` gives it."""
    return directory.rstrip("/") + "/" + below if below else directory


def _mount(line: str) -> "Optional[Mount]":
    before, _, after = line.partition(" - ")
    fields = before.split(" ")
    if len(fields) < 6 or not after:
        return None
    return Mount(fields[2], _unescaped(fields[3]), _unescaped(fields[4]), after.split(" ")[0])


def _unescaped(name: str) -> str:
    if "\\" in name:
        for escaped, char in _ESCAPED:
            name = name.replace(escaped, char)
    return name
