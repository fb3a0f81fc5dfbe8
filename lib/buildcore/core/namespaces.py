"""Whose root the root of a container is, from a /proc/PID/uid_map (user_namespaces(7)). Syntax of Python 3.6."""

EVERY_UID = ["0", "0", "4294967295"]


def has_the_host_s_uids(uid_map: str) -> bool:
    """Tell whether each uid of the user namespace that this text shows is the same one outside: its root is root."""
    return uid_map.split() == EVERY_UID
