"""The demonstration, `make demo`: the real service on a private socket builds a small C project, live on the screen.

As root two users build, inside the private world of harness_world, so no account of the machine is used; as an ordinary
user the single-user service builds for that user. The wrapper stands in PATH as `make`, as it would in a container.
Nothing keeps running, and everything that was written is removed again; the log is shown before that.
"""

from __future__ import annotations

import shutil
import signal
import sys
from pathlib import Path

import harness
import harness_world
from daemon import Daemon
from harness import BIN
from harness_world import DEV1, DEV2, User

PROJECT = {
    "Makefile": """all: greeting
\t@echo "built by $$(id -un) (groups: $$(id -Gn)) in $(CURDIR)"
greeting: main.o words.o
\t$(CC) -o $@ $^
\t./greeting
%.o: %.c words.h
\t$(CC) -Wall -c -o $@ $<
""",
    "words.h": "const char *words(void);\n",
    "words.c": '#include "words.h"\n\nconst char *words(void)\n{\n    return "Hello from the host";\n}\n',
    "main.c": '#include <stdio.h>\n#include "words.h"\n\nint main(void)\n{\n    puts(words());\n    return 0;\n}\n',
}


def say(words: str) -> None:
    """A line of the demonstration itself, apart from what the builds say."""
    print(f"\n# {words}", flush=True)


def missing_tools() -> list[str]:
    """What the demonstration's project needs and this machine lacks."""
    return [name for name in ("make", "cc") if shutil.which(name, path=harness.SYSTEM_PATH) is None]


def container_path(directory: Path) -> str:
    """A PATH where `make` is the wrapper, as an image has it."""
    directory.mkdir()
    directory.chmod(0o755)
    (directory / "make").symlink_to(BIN / "make-wrapper.sh")
    (directory / "build-cli").symlink_to(BIN / "build-cli")
    return f"{directory}:{harness.environment_of(DEV1)['PATH']}"


def build(daemon: Daemon, caller: User, path: str) -> None:
    """One caller types `make` and sees the build."""
    project = harness.write_tree(daemon.workspace_of(caller) / "greeting", PROJECT, caller)
    env = {"PATH": path, "BUILD_SERVICE_SOCKET": str(daemon.socket)}
    say(f"{caller.name} types `make -j2` in {project}")
    run = harness.run_as(caller, ["make", "-j2"], project, env, stdout=None, stderr=None)
    if run.returncode:
        raise SystemExit(f"the build ended with {run.returncode}; the daemon says:\n{daemon.errors()}")
    harness.run_as(caller, ["ls", "-l", "greeting"], project, stdout=None)


def main() -> int:
    missing = missing_tools()
    if missing:
        print(f"the demo needs {' and '.join(missing)}: apt-get or dnf install gcc make", file=sys.stderr)
        return 1
    two_users = harness_world.inside()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    callers = [DEV1, DEV2] if two_users else [harness.current_user()]
    with Daemon() as daemon:
        say(f"build-service runs as {daemon.user.name}, pid {daemon.pid}, socket {daemon.socket}")
        path = container_path(daemon.directory / "container-bin")
        for caller in callers:
            build(daemon, caller, path)
        daemon.stop()
        say(f"the service was told to stop, and has; its log, {daemon.log_path}:")
        print(*daemon.log_lines(), sep="\n")
        directory = daemon.directory
    where = ", in a file system of its own that ends with this program" if two_users else ""
    say(f"nothing runs any more; {directory} is removed again{where}")
    return 0


if __name__ == "__main__":
    harness_world.restart_inside()
    try:
        sys.exit(main())
    except (AssertionError, RuntimeError) as exc:
        sys.exit(f"the demo failed: {exc}")
