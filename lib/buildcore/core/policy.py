"""What may run, decided from values alone: request + settings + account in, a plan or a refusal out.

Nothing here looks at the machine: directories are opened and checked by `paths`, the plan is obeyed by
`launch` and `supervisor`. A session calls it once per request. It must never pass on a name of the caller's environment
that the settings do not allow.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from posixpath import join
from typing import NamedTuple

from . import arguments, leftpaths, mounts, programs, variables
from .errors import BuildError
from .protocol.requests import Request
from .settings import Build, Environment, Timeouts
from .text import escape

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
DEFAULT_SHELL = "/bin/sh"  # of an account that names none (passwd(5))
DEFAULT_UMASK = 0o022
_JOBSERVER_OPTIONS = ("--jobserver-auth", "--jobserver-fds")
_JOBS_WITHOUT_LIMIT = "-j"
_END_OF_OPTIONS = "--"
_MAKEFLAGS_NAMES = ("MAKEFLAGS", "GNUMAKEFLAGS")
_PWD = "PWD"
_READ_ANEW = (*_MAKEFLAGS_NAMES, arguments.MAKEFILES, _PWD)
"""What a build has from its caller in the host's words, not in the caller's; empty they are as good as not there."""

MAX_LEFT_OUT_CHARS = 16 << 10
"""How much of the names that are left out is told: what one who reads slowly has to take, with its last event."""


class PolicyError(BuildError):
    """The settings do not allow what was asked for; the text is the line to refuse it with."""

    kind = "not_allowed"


class View(NamedTuple):
    """How a caller names its workspace: what is `container_root` to it, is `host_root` on the host."""

    container_root: str
    host_root: str

    @property
    def maps(self) -> bool:
        """Whether the two are different names."""
        return self.container_root != self.host_root

    def to_host(self, path: str) -> str:
        """Return the host's name of `path`, which stays as it is when relative or not below container_root."""
        if not path.startswith("/") or not self.maps:
            return path
        root, name = _plain(self.container_root), _plain(path)
        if name == root:
            return self.host_root
        below = root.rstrip("/") + "/"
        return join(self.host_root, name[len(below) :]) if name.startswith(below) else path


def _plain(path: str) -> str:
    """Return an absolute path without repeated slashes and `.`; `..` stays: behind a symbolic link it is not
    what the text says (path_resolution(7))."""
    return "/" + "/".join(part for part in path.split("/") if part not in ("", "."))


class CommandError(PolicyError):
    """The command is not in the allowlist."""

    beside = True


@dataclass(frozen=True)
class Plan:
    """What a permitted request comes to, before any path of it was looked at.

    `views` are the ways to read the caller's paths, the likelier first; `workspace` is the host directory that
    the build must stay in; times are in seconds; a PWD in `environment` that is empty is for whoever enters the
    directory to fill in.
    """

    command: str
    """By what name its arguments are read."""
    program: str
    """A path of the host, or, of a program of the workspace, the caller's own: see `in_workspace`."""
    args: tuple[str, ...]
    cwd: str
    views: tuple[View, ...]
    workspace: str
    user: str
    home: str
    environment: Mapping[str, str]
    umask: int
    timeout_sec: int
    grace_sec: int
    pause_sec: int
    makefiles: str | None = None
    """What of `environment` is the caller's own MAKEFILES, which names files as its arguments do."""
    pwd: str | None = None
    """The caller's own PWD, an absolute path as it names it: the build's, where that leads to its directory."""
    taken: frozenset[str] = frozenset()
    """The names of all that `environment` has from the caller."""
    in_workspace: bool = False
    """Whether `program` is one of the caller's workspace: for whoever looks for it there to hold there."""


@dataclass(frozen=True)
class Caller:
    """What the policy needs to know of the caller's account (passwd(5))."""

    name: str
    home: str
    shell: str


def plan(request: Request, build: Build, caller: Caller, inherited: Mapping[str, str]) -> Plan:
    """Return what `request` comes to under the settings `build`; raises PolicyError.

    `inherited` is the service's own environment.
    """
    mapping = build.path_mapping
    host_root = mapping.host_root(caller.name, caller.home, build.workspace_root)
    container_root = mapping.container_root(caller.name, caller.home, build.workspace_root)
    views = dict.fromkeys((View(container_root, host_root), View(host_root, host_root)))
    asked = request.env or {}
    taken = frozenset(variables.allowed(build.environment.allow, asked)).difference(build.environment.set)
    program, in_workspace = _program(request.command, build)
    return Plan(
        command=program if in_workspace else request.command,  # never that of a tool whose arguments are known
        program=program,
        args=request.args,
        cwd=request.cwd,
        views=tuple(views),
        workspace=host_root,
        user=caller.name,
        home=caller.home,
        environment=_environment(asked, build.environment, caller, inherited),
        umask=DEFAULT_UMASK if request.umask is None else request.umask,
        timeout_sec=_timeout(request.timeout_sec, build.timeouts),
        grace_sec=build.timeouts.grace_sec,
        pause_sec=build.timeouts.max_sec,
        makefiles=asked[arguments.MAKEFILES] if arguments.MAKEFILES in taken else None,
        pwd=asked[_PWD] if _PWD in taken and _is_logical(asked[_PWD]) else None,
        taken=taken,
        in_workspace=in_workspace,
    )


def views_by_mounts(cwd: str, mount: mounts.Mount, mountinfo: str) -> tuple[View, ...]:
    """Return the ways to read the paths of a caller whose `cwd` lies in `mount`: one for each name that the place has
    by the mounts of this side, the likelier first. What a name leads to is for whoever opens it to compare."""
    below = mounts.below_of(_plain(mount.point), _plain(cwd))
    if below is None:
        return ()
    place = mounts.joined(mount.root, below)
    return tuple(_view(cwd, mount.point, below, name) for name in mounts.names_of(mountinfo, mount.device, place))


def _view(cwd: str, point: str, below: str, name: str) -> View:
    """Return the view of all of the mount where the names of both sides are the same below it, else of `cwd` alone."""
    if not below:
        return View(point, name)
    return View(point, name[: -len(below) - 1] or "/") if name.endswith("/" + below) else View(cwd, name)


def host_arguments(plan: Plan, view: View) -> tuple[str, ...]:
    """Return the plan's arguments with every path in them as the host names it, read in the caller's `view`.

    A `~` in front is replaced here by the caller's home directory, as GNU make would do it, so that what is
    checked is what make opens. Raises PolicyError for another user's home, `~name`, and for a path that make computes.
    """
    return _as_the_host_names_them(plan.command, plan.args, plan, view)


def host_makefiles(plan: Plan, view: View) -> str | None:
    """Return the caller's own MAKEFILES as `host_arguments` does it with the one among its arguments; None for none."""
    if plan.makefiles is None:
        return None
    (definition,) = _as_the_host_names_them(arguments.MAKE_COMMANDS[0], (makefiles(plan.makefiles),), plan, view)
    return definition.removeprefix(makefiles(""))


def makefiles(value: str) -> str:
    """Return the argument of make that does what MAKEFILES with this value in its environment does."""
    return f"{arguments.MAKEFILES}={value}"


def _as_the_host_names_them(command: str, args: tuple[str, ...], plan: Plan, view: View) -> tuple[str, ...]:
    found = arguments.path_arguments(command, args)
    return tuple(arguments.rewrite(args, found, lambda path: view.to_host(_without_tilde(path, plan))))


def host_pwd(plan: Plan, view: View) -> str | None:
    """Return the host's name of what the caller calls its directory, to be compared with the directory itself; None for
    none."""
    return None if plan.pwd is None else view.to_host(plan.pwd)


def _is_logical(path: str) -> bool:
    """Whether a PWD is one that a shell would go by (POSIX, pwd -L): absolute, without `.` and `..`."""
    return path.startswith("/") and not {".", ".."} & set(path.split("/"))


def left_out(plan: Plan, request: Request, has_pwd: bool) -> tuple[str, ...]:
    """Return the names of the variables that the caller sent and the build does not have, or not so: sorted, of
    MAX_LEFT_OUT_CHARS at most. `has_pwd` tells whether the build has the caller's own PWD.

    The service's own words for what the caller sent (see _READ_ANEW) are as good as the caller's.
    """
    asked = request.env or {}
    names = [name for name, value in asked.items() if plan.environment.get(name) != value]
    names = [name for name in names if name not in _READ_ANEW or (name not in plan.taken and asked[name].strip())]
    if _PWD in plan.taken and asked[_PWD] and not has_pwd:
        names.append(_PWD)
    told: list[str] = []
    room = MAX_LEFT_OUT_CHARS
    for name in sorted(names):
        room -= len(name)
        if room < 0:
            break
        told.append(name)
    return tuple(told)


def paths_left(plan: Plan, view: View, args: Sequence[str]) -> tuple[str, ...]:
    """Return the names of what holds paths of the container where the host has others: among `args`, as the host gets
    them, and in what the build has from its caller's environment. See `leftpaths`."""
    rewritten = (_PWD, arguments.MAKEFILES)
    theirs = {name: plan.environment.get(name, "") for name in sorted(plan.taken) if name not in rewritten}
    return leftpaths.names_of(view.container_root, view.host_root, args, theirs)


def _without_tilde(path: arguments.PathArgument, plan: Plan) -> str:
    if path.computed:
        raise PolicyError(f"{path.option} must not refer to variables or commands: {escape(path.value)}")
    if not path.expands_home:
        return path.value
    before, _, name = path.value.partition("~")
    user, slash, rest = name.partition("/")
    if user in ("", plan.user) and not before.strip("./"):
        return plan.home + slash + rest
    if path.role is arguments.Role.FREE:
        return path.value
    raise PolicyError(f"{path.option} must be under workspace: {escape(path.value)} is another user's home")


def _makeflags(value: str, name: str) -> str:
    """Return the caller's MAKEFLAGS fit for the host. Raises PolicyError for what would lead make elsewhere.

    make 4.4 and later obeys -C and -f there, and expands variables first; make itself never puts them there.
    """
    value = without_jobserver(value)
    if arguments.refers_to_variables(value):
        raise PolicyError(f"{name} must not refer to variables: {escape(value)}")
    for path in arguments.path_arguments("make", arguments.makeflags_arguments(value)):
        if path.role is not arguments.Role.FREE:
            raise PolicyError(f"{path.option} must not stand in {name}: give it on the command line")
    return value


def without_jobserver(makeflags: str) -> str:
    """Return MAKEFLAGS without the jobserver that it names: its descriptors or fifo do not exist on the host.

    Words are separated by blanks that no backslash precedes, and the variable definitions behind `--` stay as
    they are (GNU make manual, "Communicating Options to a Sub-make" and "POSIX Jobserver Interaction"). Make
    before 4.2 says `-j` without a number beside its jobserver; alone that would mean jobs without limit.
    """
    words = _words(makeflags)
    end = words.index(_END_OF_OPTIONS) if _END_OF_OPTIONS in words else len(words)
    options = [word for word in words[:end] if word.partition("=")[0] not in _JOBSERVER_OPTIONS]
    if len(options) < end:
        options = [word for word in options if word != _JOBS_WITHOUT_LIMIT]
    kept = options + words[end:]
    return " ".join(kept) if len(kept) > 1 or not makeflags.startswith(" ") else " " + "".join(kept)


def _words(text: str) -> list[str]:
    words: list[str] = []
    pieces: list[str] = []  # of the word that is not ended yet
    for piece in text.split(" "):
        pieces.append(piece)
        if (len(piece) - len(piece.rstrip("\\"))) % 2 == 0:  # an odd one makes the blank behind it part of the word
            words.append(" ".join(pieces))
            pieces = []
    return words + ([" ".join(pieces)] if pieces else [])


def _program(command: str, build: Build) -> tuple[str, bool]:
    """Return the program that `command` means, and whether it is one of the workspace."""
    path = programs.of_workspace(command, build.commands, build.workspace_commands)
    if path is not None:
        return path, True
    if command not in build.commands:
        raise not_allowed(command, build)
    return build.commands[command], False


def not_allowed(command: str, build: Build) -> CommandError:
    """Return the refusal of `command`, with what is allowed, and for a path with the key that allows more."""
    allowed = ", ".join(programs.shown(build.commands, build.workspace_commands))
    end = "); a program of the workspace: build.workspace_commands on the host" if "/" in command else ")"
    return CommandError(f"command not allowed: {escape(command)} (allowed: {allowed}{end}")


def _timeout(asked: int | None, timeouts: Timeouts) -> int:
    return min(timeouts.default_sec if asked is None else asked, timeouts.max_sec)


def _environment(
    asked: Mapping[str, str], environment: Environment, caller: Caller, inherited: Mapping[str, str]
) -> dict[str, str]:
    own = {
        "HOME": caller.home,
        "USER": caller.name,
        "LOGNAME": caller.name,
        "SHELL": caller.shell or DEFAULT_SHELL,
        "PATH": inherited.get("PATH") or DEFAULT_PATH,
        _PWD: "",
    }
    result: dict[str, str] = {}
    for name in environment.allow:
        if name in own:
            result[name] = own[name]
        elif name in inherited:  # by its full name: what else the service has, a pattern must not give away
            result[name] = without_jobserver(inherited[name]) if name in _MAKEFLAGS_NAMES else inherited[name]
    for name in variables.allowed(environment.allow, asked):
        if name not in own:
            result[name] = _makeflags(asked[name], name) if name in _MAKEFLAGS_NAMES else asked[name]
    return {**result, **environment.set}
