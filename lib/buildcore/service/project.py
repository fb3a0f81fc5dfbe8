"""Finds the program of a caller's workspace that a request names, and tells why it would not start.

The planner calls it, with the effective ids of the caller: what is seen is what the caller sees. The program is then
started by its name, as the caller, and may be another one by that time: the caller's own doing, in its own workspace,
where its makefiles run what they like. Must never open a program for reading, nor start one.
"""

from __future__ import annotations

import os
import stat

from ..core import policy, programs
from ..core.settings import Build
from ..system import paths
from . import launch


def find(
    plan: policy.Plan, view: policy.View, build: Build, cwd: paths.Directory, workspace: paths.Directory
) -> tuple[str, str]:
    """Return the path of the program that `plan` names, as the host names it, from `cwd` on; and its real name.

    It is a regular file that lies in the workspace, symbolic links followed, and the settings `build` allow the name
    that it is called by. Raises PathError, PolicyError or StartError.
    """
    path = view.to_host(plan.program)
    directory, _, name = path.rpartition("/")
    try:
        parent = paths.open_directory(directory or "/", cwd)
        try:
            paths.hold("command", os.path.join(parent.real, name), path, workspace)
            below = os.path.relpath(os.path.join(parent.real, name), workspace.real)
            if not programs.is_named(below, build.workspace_commands):
                raise policy.not_allowed(plan.program, build)
            found = paths.open_file(name, parent)
        finally:
            parent.close()
    except OSError as exc:
        raise launch.cannot_run(path, exc.strerror) from exc
    try:
        paths.hold("command", found.real, path, workspace)
        mode = os.fstat(found.fd).st_mode
    finally:
        found.close()
    if not stat.S_ISREG(mode):
        raise launch.cannot_run(path, "it is a directory" if stat.S_ISDIR(mode) else "it is no regular file")
    return path, found.real
