"""Where a caller is, for the log: its process, its container and whose root that one has, its SELinux label.

Nothing is decided by it.
A session calls it once. What the caller's pid says is what /proc shows at that moment; the uid, which decides, comes
from `identity`. Must never fail: what cannot be told is left out.
"""

from __future__ import annotations

import re
import socket

from ..core import namespaces

SHORT_ID = 12
"""How much of a container's id podman and docker show."""

_SO_PEERSEC = 31
_LABEL_BYTES = 1024


def describe(connection: socket.socket, pid: int) -> dict[str, object]:
    """Return the fields of a log line: `peer_pid`, `container`, `userns`, `label`, each None for nothing to tell.

    `pid` is the peer's as the socket tells it, 0 when it cannot be seen from here. `userns` is "host" for a container
    whose root is the host's, and may become any of its users.
    """
    container = _container(pid) if pid else None
    userns = "host" if container and _is_of_the_host(pid) else None
    return {"peer_pid": pid or None, "container": container, "userns": userns, "label": _label(connection)}


def _is_of_the_host(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/uid_map", encoding="ascii") as file:
            return namespaces.has_the_host_s_uids(file.read())
    except OSError:
        return False


def _container(pid: int) -> str | None:
    """Return the short id of the container in whose control group the process is (cgroups(7))."""
    try:
        with open(f"/proc/{pid}/cgroup", encoding="utf-8", errors="replace") as file:
            found = re.findall(r"(?<![0-9a-f])[0-9a-f]{64}(?![0-9a-f])", file.read())
    except OSError:
        return None
    return found[-1][:SHORT_ID] if found else None


def _label(connection: socket.socket) -> str | None:
    """Return the SELinux label that the peer connected with (SO_PEERSEC); AppArmor's names are left out."""
    try:
        raw = connection.getsockopt(socket.SOL_SOCKET, _SO_PEERSEC, _LABEL_BYTES)
    except OSError:
        return None
    label = raw.rstrip(b"\0").decode("utf-8", "replace")
    return label if label.count(":") >= 3 else None
