"""Finds out what a request comes to, beside the session and not in it, so that nothing there holds the session up.

A file system that does not answer (NFS, FUSE, an automount) keeps whoever looks at a path of it waiting in the kernel,
where no deadline and no hang-up are seen; and a long request takes its time. So a thread looks, and the session minds
its caller, the stop and the time meanwhile. The thread has the session's effective ids, the caller's.

A thread that was given up on lives as long as its process. Such a session says why, and ends: it must not change its
ids any more, for which the C library waits until each thread has done so (nptl(7)), and not fork.
"""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

from ..core import policy
from ..core.arguments import MAKE_COMMANDS
from ..core.errors import BuildError
from ..core.protocol import events
from ..core.protocol.location import Location
from ..core.protocol.requests import Request
from ..core.settings import MAPPING_AUTO, Build
from ..core.text import escape
from ..core.tools.make import MAKEFILES
from ..system import paths
from . import launch, project
from .handed import Handed
from .watch import Late, Watch

PLAN_SEC = 10.0
"""How long it may take to plan, in seconds."""

TOO_SLOW = f"build-service cannot serve this request: looking at its paths took more than {PLAN_SEC:.0f} s"


@dataclass(frozen=True)
class Planned:
    """What is to run, the directory that it runs in, open, and the real name of the workspace that holds it.

    `program` is the real name of what runs, `timeout_sec` is in seconds, and whole. `view` is how the caller's paths
    were read; `told` is an Exit with what the caller is to be told of that, whatever comes of the build.
    """

    command: launch.Command
    stdio: launch.Stdio
    cwd: paths.Directory
    workspace: str
    program: str
    timeout_sec: int
    view: policy.View
    told: events.Exit


class Planning:
    """One request being planned. `given_up` tells that a thread of it lives on, and so what may be done no more."""

    def __init__(self, work: Callable[[], Planned]) -> None:
        """`work` is called in the thread, once; what it raises, `wait` raises."""
        self.given_up = False
        self._work = work
        self._planned: Planned | None = None
        self._failure: BaseException | None = None

    def wait(self, watch: Watch) -> Planned:
        """Return what the work returned. Raises what it raised; what `watch` raises, BuildError in place of Late."""
        told, tell = os.pipe2(os.O_CLOEXEC)
        thread = threading.Thread(target=self._run, args=(tell,), daemon=True)
        try:
            thread.start()
        except RuntimeError as exc:
            os.close(told)
            os.close(tell)
            raise BuildError("build-service cannot serve this request: the host has no room for a thread") from exc
        self.given_up = True
        try:
            watch.until_readable(told)
        except Late as exc:
            raise BuildError(TOO_SLOW) from exc
        thread.join()
        self.given_up = False
        os.close(told)
        if self._failure is not None:
            raise self._failure
        assert self._planned is not None
        return self._planned

    def _run(self, tell: int) -> None:
        try:
            self._planned = self._work()
        except BaseException as exc:
            self._failure = exc
        finally:
            os.close(tell)


def plan(
    request: Request,
    build: Build,
    account: policy.Caller,
    inherited: Mapping[str, str],
    entered: Callable[[str], None],
    handed: Handed,
) -> Planned:
    """Return what `request` comes to under the settings `build`, looked at with the rights of this process.

    `inherited` is the service's own environment; `entered` is called with the real name of the directory as soon as it
    is known; `handed` is what came along. Raises BuildError with the line to refuse it with, StartError where a check
    finds that it would not start.
    """
    plan = policy.plan(request, build, account, inherited)
    stdio = launch.Stdio(handed.named(request.descriptors), request.merge_output)
    handed.check(stdio.handed)
    workspace, cwd, view = _enter(plan, request.location, build.path_mapping.mode)
    try:
        entered(cwd.real)
        args = policy.host_arguments(plan, view)
        paths.hold_arguments(plan.command, args, cwd, workspace)
        makefiles = policy.host_makefiles(plan, view)
        if makefiles is not None:  # make reads it where its arguments lead to; another command, or what it starts, here
            all_args = [policy.makefiles(makefiles), *(args if plan.command in MAKE_COMMANDS else ())]
            paths.hold_arguments(MAKE_COMMANDS[0], all_args, cwd, workspace)
        program = plan.program
        if plan.in_workspace:
            path, program = project.find(plan, view, build, cwd, workspace)
            plan = replace(plan, program=path)
        problem = launch.why_not(program) if request.check else None
        if problem:
            raise launch.cannot_run(plan.program, problem)
        pwd = policy.host_pwd(plan, view)
        name = pwd if pwd is not None and paths.leads_to(pwd, cwd) else cwd.real
        told = events.Exit(
            0,
            timeout_sec=plan.timeout_sec,
            env_left_out=policy.left_out(plan, request, name == pwd),
            paths_left=policy.paths_left(plan, view, args),
            path_mapping=view if view.maps else None,
            cwd_compared=request.location is None or paths.is_same(cwd, request.location) is not None,
        )
        command = _command(plan, args, makefiles, name)
        command = replace(command, niceness=request.niceness, limits=request.limits)
        return Planned(command, stdio, cwd, workspace.real, program, plan.timeout_sec, view, told)
    except BaseException:
        cwd.close()
        raise
    finally:
        workspace.close()


def _enter(
    plan: policy.Plan, location: Location | None, mode: str
) -> tuple[paths.Directory, paths.Directory, policy.View]:
    """Open the workspace and the caller's directory; return both, and the way in which its paths are to be read.

    The configured ways come first; those that follow from mounts are looked for where none of them leads there.
    """
    tried: list[policy.View] = []

    def candidates() -> Iterator[str]:
        for view in plan.views:
            tried.append(view)
            yield view.to_host(plan.cwd)
        if mode == MAPPING_AUTO and location is not None and location.mount is not None:
            for view in policy.views_by_mounts(plan.cwd, location.mount, _mountinfo()):
                tried.append(view)
                yield view.to_host(plan.cwd)

    try:
        workspace, cwd, index = paths.enter(plan.workspace, candidates(), location)
    except paths.MissingError as exc:
        mapping = plan.views[0]
        if not mapping.maps:
            raise
        known = f"{escape(mapping.container_root)} in the container is {escape(mapping.host_root)} there"
        raise paths.MissingError(f"{exc} ({known}: build.path_mapping)") from exc
    return workspace, cwd, tried[index]


def _mountinfo() -> str:
    try:
        with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape", newline="\n") as file:
            return file.read()
    except OSError:
        return ""


def _command(plan: policy.Plan, args: tuple[str, ...], makefiles: str | None, pwd: str) -> launch.Command:
    environment = dict(plan.environment)
    if makefiles is not None:
        environment[MAKEFILES] = makefiles
    if environment.get("PWD") == "":
        environment["PWD"] = pwd
    return launch.Command(
        program=plan.program,
        argv=(_name(plan, environment.get("PATH", "")), *args),
        environment=environment,
        umask=plan.umask,
        timeout_sec=plan.timeout_sec,
        grace_sec=plan.grace_sec,
        pause_sec=plan.pause_sec,
    )


def _name(plan: policy.Plan, search_path: str) -> str:
    """Return argv[0]: the command's bare name where the build's PATH leads it to the same program.

    make calls itself by that name again, `$(MAKE)`, and shows it in what it prints. A program of the workspace has the
    path that it was called by, which is what a script finds in `$0`: the kernel puts it there (execve(2)).
    """
    if plan.in_workspace:
        return plan.program
    found = shutil.which(plan.command, path=search_path)
    if found is not None and os.path.exists(plan.program) and os.path.samefile(found, plan.program):
        return plan.command
    return plan.program
