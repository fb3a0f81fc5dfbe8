"""The login uid: on whose account the kernel's audit trail puts what a process does, whatever it becomes later.

It passes fork(2), setresuid(2) and execve(2). A service of the system has none, and who has none may set any; one that
was started by hand has the administrator's. So a build is given its caller's, as pam_loginuid(8) does for a login.
"""

from __future__ import annotations

import os
from contextlib import suppress

PATH = "/proc/self/loginuid"


def own() -> int | None:
    """Return the login uid of this process, 4294967295 for none; None where the kernel knows no login uids."""
    try:
        with open(PATH, "rb") as file:
            return int(file.read())
    except OSError:
        return None


def give(uid: int) -> None:
    """Set this process's login uid, as far as the kernel lets it.

    It does where there is none, and to root with CAP_AUDIT_CONTROL, unless it was told to let nobody
    (auditctl(8), --loginuid-immutable).
    """
    with suppress(OSError):
        fd = os.open(PATH, os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(fd, b"%d" % uid)
        finally:
            os.close(fd)
