"""Directories as the caller's eyes see them: opened, resolved by the kernel, and held under the workspace.

Everything here runs with the effective ids of the caller, so nothing is revealed that the caller could not
see for itself. A directory that was checked is kept open as a descriptor (O_PATH, open(2)), and the build
enters that descriptor: swapping a name in between changes nothing. Only the command's own path options are
read again by the command. Must never change what it looks at.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ..core import arguments, mounts, openfiles
from ..core.errors import BuildError
from ..core.protocol.location import Location
from ..core.text import escape
from .proctable import SCARCE

_NOT_OPEN = -1
_NOT_HANDED_OVER = "of what the caller has open, the build has standard input alone"
_OTHER = "cwd must be the same directory on the host: %s is another one there (mount the host's into the container)"
_DIRECTORY = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
_ITSELF = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
PATH_MAX = 4096
"""Bytes in the longest name that the kernel takes, the NUL at its end included (limits.h)."""

MAX_LINKS = 40
"""How many symbolic links the kernel follows on the way of one path (path_resolution(7))."""


class PathError(BuildError):
    """A path is not where the caller may build; the text is the line to refuse it with."""

    kind = "path"


class ElsewhereError(PathError):
    """The caller's directory is not in its workspace."""

    beside = True


class MissingError(ElsewhereError):
    """The host has no directory of that name, or none that the caller may enter."""


@dataclass(frozen=True)
class Directory:
    """A directory (or a file in its place): an O_PATH descriptor of it, and the kernel's own name for it."""

    fd: int
    real: str

    def close(self) -> None:
        if self.fd != _NOT_OPEN:
            os.close(self.fd)


def open_directory(path: str, base: Directory | None = None) -> Directory:
    """Open the directory `path`, relative to `base`, and return it with its real name; raises OSError."""
    return _open(path, base, _DIRECTORY)


def open_file(path: str, base: Directory | None = None) -> Directory:
    """The same for whatever `path` is, symbolic links followed."""
    return _open(path, base, os.O_PATH | os.O_CLOEXEC)


def _open(path: str, base: Directory | None, flags: int) -> Directory:
    fd = os.open(_bytes(path), flags, dir_fd=None if base is None else base.fd)
    try:
        return Directory(fd, _real_name(fd))
    except OSError:
        os.close(fd)
        raise


def enter(
    workspace: str, candidates: Iterable[str], location: Location | None = None
) -> tuple[Directory, Directory, int]:
    """Open the workspace and the caller's cwd, by the first of `candidates`, host names of it, that leads there.

    That is the first one which is the directory at `location`, as far as `is_same` can tell, and in the workspace;
    without a location the first one that exists. Returns both directories and the index of the candidate. Raises
    PathError when there is none.
    """
    try:
        root = open_directory(workspace)
    except OSError as exc:
        raise ElsewhereError(
            f"cwd must be under workspace: {escape(workspace)}: {exc.strerror} on the host"
        ) from exc
    try:
        cwd, index = _open_first(candidates, location, root)
    except BaseException:
        root.close()
        raise
    return root, cwd, index


def is_same(directory: Directory, location: Location) -> bool | None:
    """Tell whether `directory` is the one at `location`, by device and inode; None where the numbers do not tell."""
    status = os.fstat(directory.fd)
    device = f"{os.major(status.st_dev)}:{os.minor(status.st_dev)}"
    if device == location.device:
        return str(status.st_ino) == location.inode
    return None if location.mount is not None and mounts.may_be_twice(location.mount.file_system) else False


def leads_to(path: str, directory: Directory) -> bool:
    """Tell whether the absolute `path` leads to `directory`, by device and inode; False where that cannot be told."""
    try:
        found = os.stat(_bytes(path))
    except OSError:
        return False
    ours = os.fstat(directory.fd)
    return (found.st_dev, found.st_ino) == (ours.st_dev, ours.st_ino)


def hold_arguments(command: str, args: Sequence[str], cwd: Directory, workspace: Directory) -> None:
    """Raise PathError unless every path option in `args` stays under the workspace, as `command` will read it.

    `args` are the arguments as the command gets them, with host paths. What does not exist is held by the name
    that it would have: the command itself is the one to say that it is missing.
    """
    found = arguments.path_arguments(command, args)
    for walk in arguments.directory_walks(command, found):
        here = cwd
        try:
            for step in walk:
                before, here = here, _locate(step, here)
                if before is not cwd:
                    before.close()
                hold(step.option, here.real, step.value, workspace)
            for argument in found:
                if argument.role is arguments.Role.PATH and not openfiles.is_anyone_s(argument.value):
                    if openfiles.is_open_file(argument.value):
                        raise PathError(f"{argument.option} cannot be {argument.value}: {_NOT_HANDED_OVER}")
                    target = _locate(argument, here)
                    target.close()
                    hold(argument.option, target.real, argument.value, workspace)
        finally:
            if here is not cwd:
                here.close()


def _locate(argument: arguments.PathArgument, base: Directory) -> Directory:
    """Return the argument's path as seen from `base`, with its real name; without a descriptor where it cannot
    be opened. Raises PathError where it is too long to be a name, or has none that leads back to it (pipes, deleted
    files), and OSError where the machine has no room to look."""
    path = _bytes(argument.value)
    try:
        try:
            fd = os.open(path, os.O_PATH | os.O_CLOEXEC, dir_fd=base.fd)
        except OSError as exc:
            if exc.errno in (errno.ENAMETOOLONG, *SCARCE):
                raise
            return Directory(_NOT_OPEN, _text(_name_without_file(path, base)))
        try:
            return Directory(fd, _real_name(fd))
        except BaseException:
            os.close(fd)
            raise
    except OSError as exc:
        if exc.errno in SCARCE:
            raise
        raise PathError(
            f"{argument.option} must be under workspace: {escape(argument.value)}: {exc.strerror} on the host"
        ) from exc


def _name_without_file(path: bytes, base: Directory) -> bytes:
    """Return the name that `path`, which cannot be opened, would have as seen from `base`: the kernel's own as far as
    it is there, symbolic links followed, and behind that what is written. Raises OSError as `_locate` does.

    Each component is looked up once, from the one before it: os.path.realpath goes through the whole name for each.
    """
    try:
        here = os.open(b"/" if path.startswith(b"/") else b".", _DIRECTORY, dir_fd=base.fd)
    except OSError as exc:
        if exc.errno in SCARCE:
            raise
        return _no_longer_than_a_name(os.path.join(_bytes(base.real), path))  # it is not there, or nothing is below it
    rest = path.split(b"/")[::-1]  # from the last one to the next
    links = 0
    try:
        while rest:
            try:
                there = os.open(rest[-1] or b".", _ITSELF, dir_fd=here)
            except OSError as exc:
                if exc.errno in SCARCE:
                    raise
                break
            link = _target(there)
            if link is None:
                os.close(here)
                here = there
                rest.pop()
                continue
            os.close(there)
            links += 1
            if links > MAX_LINKS:
                break
            rest[-1:] = link.split(b"/")[::-1]
            if link.startswith(b"/"):
                os.close(here)
                here = os.open(b"/", _DIRECTORY)
        return _no_longer_than_a_name(os.path.join(_bytes(_real_name(here)), *rest[::-1]))
    finally:
        os.close(here)


def _target(fd: int) -> bytes | None:
    """Return what the symbolic link that `fd` holds leads to, None for what is none (readlinkat(2))."""
    try:
        return os.readlink(b"", dir_fd=fd)
    except OSError:
        return None


def _no_longer_than_a_name(path: bytes) -> bytes:
    name = os.path.normpath(path)
    if len(name) >= PATH_MAX:
        raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG))
    return name


def hold(option: str, real: str, shown: str, workspace: Directory) -> None:
    """Raise PathError, naming `option`, unless the real name `real` is the workspace's or below it."""
    root = workspace.real
    if real != root and not real.startswith(root.rstrip("/") + "/"):
        raise PathError(f"{option} must be under workspace: {escape(shown)} is not under {escape(root)}")


def close_all(directories: Iterable[Directory]) -> None:
    """Close every directory of `directories`."""
    for directory in directories:
        directory.close()


def _open_first(candidates: Iterable[str], location: Location | None, workspace: Directory) -> tuple[Directory, int]:
    missing: PathError | None = None
    other: PathError | None = None
    outside: PathError | None = None
    for index, candidate in enumerate(candidates):
        try:
            cwd = open_directory(candidate)
        except OSError as exc:
            line = f"cwd must be under workspace: {escape(candidate)}: {exc.strerror} on the host"
            missing = missing or (PathError(line) if exc.errno in SCARCE else MissingError(line))
            continue
        try:
            if location is not None and is_same(cwd, location) is False:
                other = other or ElsewhereError(_OTHER % escape(candidate))
            else:
                hold("cwd", cwd.real, candidate, workspace)
                return cwd, index
        except PathError as exc:
            outside = outside or ElsewhereError(str(exc))
        except BaseException:
            cwd.close()
            raise
        cwd.close()
        if location is None:
            break
    raise outside or other or missing or ElsewhereError("cwd must be under workspace: no directory on the host")


def _real_name(fd: int) -> str:
    """Return the kernel's name for an open file, proved to lead to the same file; raises OSError."""
    name = os.readlink(b"/proc/self/fd/%d" % fd)
    named, held = os.stat(name), os.fstat(fd)
    if not os.path.samestat(named, held):  # the kernel says "NAME (deleted)", or the name was taken meanwhile
        raise FileNotFoundError(2, os.strerror(2))
    return _text(name)


def _bytes(path: str) -> bytes:
    """Return the file name that `path` stands for, whatever locale this process runs in (PEP 383)."""
    return path.encode("utf-8", "surrogateescape")


def _text(path: bytes) -> str:
    return path.decode("utf-8", "surrogateescape")
