"""Prints names.h for the client in C: the names and lines that it has in common with the library, from the library.

    client_names.py >names.h
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent / "lib"))

import buildcore
from buildcore.caller import agents, build_cli, client, left_out
from buildcore.core.protocol import events, requests


def quoted(text: str) -> str:
    """A C string, for text in printable ASCII and newlines."""
    return '"%s"' % text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def listed(texts: Iterable[str]) -> str:
    """What stands in a list of strings, NULL at its end."""
    return "{%s}" % ", ".join([*map(quoted, texts), "NULL"])


def definitions() -> dict[str, str]:
    known = [f"{{{quoted(each.name)}, {quoted(each.short)}, {listed(each.variables)}}}" for each in agents.AGENTS]
    return {
        "VERSION": quoted(buildcore.__version__),
        "USAGE": quoted(build_cli.USAGE),
        "DEFAULT_SOCKETS": ", ".join(map(quoted, client.DEFAULT_SOCKETS)),
        "DEFAULTS": str(len(client.DEFAULT_SOCKETS)),
        "MOUNT": quoted(agents.MOUNT),
        "AGENTS": f"{{{', '.join(known)}}}",
        "MAX_AGENT_VARIABLES": str(max(len(each.variables) for each in agents.AGENTS)),
        "FORWARDED": listed(sorted(client.FORWARDED_NAMES)),
        "FORWARDED_PREFIXES": listed(client.FORWARDED_PREFIXES),
        "QUIET": listed(sorted(left_out.QUIET)),
        "QUIET_PREFIXES": listed(left_out.QUIET_PREFIXES),
        "MAX_NAMES_CHARS": str(left_out.MAX_NAMES_CHARS),
        "MAX_REQUEST_BYTES": str(requests.MAX_REQUEST_BYTES),
        "MAX_EVENT_BYTES": str(events.MAX_EVENT_BYTES),
        "TOO_LONG": quoted(f"an event longer than {events.MAX_EVENT_BYTES} bytes"),
    }


if __name__ == "__main__":
    print("/* Made by client_names.py. */")
    for name, value in definitions().items():
        print(f"#define {name} {value}")
