"""The command `build-ctl`: tells what stands between a caller and its build, and what may be built.

People start it on the host and in containers, shell completion starts it too. Syntax of Python 3.6. It must never
show a traceback, and changes nothing.
"""

import os
import signal
from typing import Dict, List, Sequence

from .. import __version__
from ..core import jsontext
from ..core.errors import BuildError
from . import agents, build_cli, catcher, client, doctor

USAGE = """\
usage: build-ctl doctor [--json] [--socket PATH] [--config FILE] [COMMAND [ARG]...]
       build-ctl commands [--socket PATH]
       build-ctl agents"""
FAILURE = 1
DEFAULT_COMMAND = ("make",)


class UsageError(BuildError):
    """The command line is not usable."""

    kind = "usage"


def main(argv: Sequence[str]) -> int:
    """Run the command with the arguments `argv`, its own name left out; return the exit code.

    For `doctor` that is 0 only when a build would work.
    """
    build_cli.keep_standard_descriptors()
    try:
        return _run([client.text(os.fsencode(word)) for word in argv])
    except (UsageError, build_cli.UsageError) as exc:
        return _fail(str(exc).split("\n"))
    except BuildError as exc:
        return _fail([str(exc)])
    except BrokenPipeError:
        catcher.die_by(signal.SIGPIPE)
    except OSError as exc:
        return _fail(["build-ctl: %s" % (exc.strerror or exc)])


def _run(words: List[str]) -> int:
    if words[:1] in (["-h"], ["--help"]):
        _print(*USAGE.split("\n"))
        return 0
    if words[:1] == ["--version"]:
        _print("build-ctl " + __version__)
        return 0
    if words[:1] == ["doctor"]:
        options = _options(words[1:], ("--socket", "--config"), ("--json",))
        return _doctor(options, words[len(words) - int(options["rest"]) :])
    if words[:1] == ["commands"]:
        options = _options(words[1:], ("--socket",), ())
        if int(options["rest"]):
            raise UsageError("build-ctl: commands takes no argument\n" + USAGE)
        for name in doctor.allowed_commands(options.get("--socket")):
            _print(name)
        return 0
    if words[:1] == ["agents"]:
        if words[1:]:
            raise UsageError("build-ctl: agents takes no argument\n" + USAGE)
        _print(*agents.lines())
        return 0
    raise UsageError("build-ctl: %s\n%s" % ("unknown command " + words[0] if words else "no command", USAGE))


def _options(words: List[str], with_value: Sequence[str], flags: Sequence[str]) -> Dict[str, str]:
    """Return the options before the first other word, and as `rest` how many words are left."""
    found = {}
    while words and words[0].startswith("-"):
        name, equals, value = words[0].partition("=")
        words = words[1:]
        if name == "--" and not equals:
            break
        if name in flags and not equals:
            found[name] = "1"
        elif name in with_value and (equals or words):
            found[name] = value if equals else words[0]
            words = words if equals else words[1:]
        else:
            raise UsageError("build-ctl: unknown option %s, or its value is missing\n%s" % (name, USAGE))
    return dict(found, rest=str(len(words)))


def _doctor(options: Dict[str, str], command: Sequence[str]) -> int:
    if command and not command[0]:
        raise UsageError("build-ctl: the command is empty\n" + USAGE)
    findings = []
    for finding in doctor.examine(command or DEFAULT_COMMAND, options.get("--socket"), options.get("--config")):
        findings.append(finding)
        if "--json" not in options:
            fix = "; to mend it: " + finding.fix if finding.fix else ""
            _print("%-8s %s: %s%s" % (finding.state, finding.check, finding.message, fix))
    works = all(finding.state != doctor.FAILURE for finding in findings)
    if "--json" in options:
        checks = [
            {"check": each.check, "state": each.state, "message": each.message, "fix": each.fix} for each in findings
        ]
        _print(jsontext.encode({"ok": works, "checks": checks}, ascii_only=True))
    return 0 if works else FAILURE


def _print(*lines: str) -> None:
    build_cli.write_all(1, _printable(lines))


def _printable(lines: Sequence[str]) -> bytes:
    """Return `lines`, with what is not printable as an escape: part of them is a caller's or a service's."""
    shown = ("".join(char if char.isprintable() else _code(char) for char in line) for line in lines)
    return "".join(line + "\n" for line in shown).encode("utf-8")


def _code(char: str) -> str:
    return {"\n": "\\n"}.get(char) or ("\\u%04x" if ord(char) <= 0xFFFF else "\\U%08x") % ord(char)


def _fail(lines: Sequence[str]) -> int:
    try:
        os.write(2, _printable(lines))
    except OSError:
        pass
    return FAILURE
