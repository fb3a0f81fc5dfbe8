"""Coding agents whose sandbox keeps their commands from Unix sockets: how each is known, and what opens it.

A sandbox of this kind is a filter on system calls (seccomp(2)) which answers EPERM to socket(2) or connect(2); it
cannot tell one socket from another. build-cli imports this only where it met that; `build-ctl agents` prints all.
Syntax of Python 3.6.
"""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Iterator, Mapping, Optional, Tuple


MOUNT = "-v /run/build-service:/run/build-service"
"""What gives a container the socket, as an option of podman run."""


class Agent:
    """One agent: its name, the variables that it gives its commands, which file has the settings, the lines that open
    its sandbox for the service, and the same in short."""

    def __init__(
        self, name: str, variables: "Tuple[str, ...]", file: str, lines: "Tuple[str, ...]", short: str
    ) -> None:
        self.name = name
        self.variables = variables
        self.file = file
        self.lines = lines
        self.short = short


AGENTS = (
    Agent(
        "Claude Code",
        ("CLAUDECODE",),
        "~/.claude/settings.json",
        ('{"sandbox": {"network": {"allowAllUnixSockets": true}}}',),
        "sandbox.network.allowAllUnixSockets in ~/.claude/settings.json",
    ),
    Agent(
        "Codex",
        ("CODEX_SANDBOX_NETWORK_DISABLED", "CODEX_SANDBOX"),
        "~/.codex/config.toml",
        ("[sandbox_workspace_write]", "network_access = true"),
        "network_access under [sandbox_workspace_write] in ~/.codex/config.toml",
    ),
    Agent(
        "Gemini CLI",
        ("GEMINI_CLI",),
        "the environment that it is started in, as its sandbox is a container",
        ('export SANDBOX_FLAGS="%s"' % MOUNT,),
        "SANDBOX_FLAGS=\"%s\" where it is started" % MOUNT,
    ),
)

INSTRUCTIONS = (
    "`make` here runs on the host, by way of the build service: type it as usual, in the project's directory.",
    "When a build does not start, run `build-ctl doctor` and do what it says; do not build in another way.",
)
"""What an agent is to be told, in the file of instructions that it reads (AGENTS.md, CLAUDE.md, GEMINI.md)."""


def running(environ: "Mapping[str, str]") -> "Optional[Agent]":
    """Return the agent whose command this process is, by its variables; None for none that is known."""
    for agent in AGENTS:
        if any(environ.get(name) for name in agent.variables):
            return agent
    return None


def hint(environ: "Mapping[str, str]") -> str:
    """Return what keeps this process from sockets, and what opens it, as part of a line."""
    agent = running(environ)
    if agent is None:
        return "a sandbox forbids it: that of an agent? build-ctl agents tells what opens it"
    return "the sandbox of %s forbids it: %s opens it" % (agent.name, agent.short)


def lines() -> "Iterator[str]":
    """Give what `build-ctl agents` prints."""
    for agent in AGENTS:
        yield "%s: in %s" % (agent.name, agent.file)
        for line in agent.lines:
            yield "    " + line
        yield ""
    yield "Instructions, in AGENTS.md, CLAUDE.md or GEMINI.md:"
    for line in INSTRUCTIONS:
        yield "    " + line
