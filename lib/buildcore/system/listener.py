"""The listening socket: bound by this process, or passed in by systemd (socket activation).

`main` calls it once, as it starts; the arbiter accepts on what it returns. A socket that somebody else
holds is never bound again, removed, or given another mode: it outlives the daemon, and whoever connects in between
waits in its queue. Must never replace a live server's socket, or anything that is no socket.
"""

from __future__ import annotations

import fcntl
import grp
import os
import socket
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from ..core.errors import BuildError
from ..core.settings import Service
from ..core.text import escape

BACKLOG = 1024
FIRST_PASSED_FD = 3  # SD_LISTEN_FDS_START, sd_listen_fds(3)


class ListenError(BuildError):
    """There is no socket to listen on; the text says why, in one line."""

    kind = "listen"


@dataclass(frozen=True)
class Endpoint:
    """The file of a listening socket: its path ("" for none), which file it is (stat(2)), and whether it is `ours`
    to remove when the service stops."""

    path: str
    device: int
    inode: int
    ours: bool

    def remove(self) -> None:
        """Remove the socket file if it is ours, unless another server has put its own in its place."""
        if not self.ours:
            return
        try:
            found = os.lstat(self.path)
            if (found.st_dev, found.st_ino) == (self.device, self.inode):
                os.unlink(self.path)
        except OSError:
            pass

    def open_to(self, settings: Service, private: bool) -> None:
        """Give the file the group and mode of `settings`, or this user's alone if `private`.

        Raises ListenError, also when another file has taken its place: that is held before it is changed.
        """
        group = None if private else group_id(settings.socket_group)
        try:
            fd = os.open(self.path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                found = os.fstat(fd)
                if (found.st_dev, found.st_ino) != (self.device, self.inode):
                    raise ListenError(f"{escape(self.path)} is not the socket of this service any more")
                held = f"/proc/self/fd/{fd}"  # chmod(2) takes no O_PATH descriptor, but its name
                if group is not None:
                    os.chown(held, -1, group)
                os.chmod(held, 0o600 if private else settings.socket_mode)
            finally:
                os.close(fd)
        except OSError as exc:
            raise _cannot_listen(self.path, exc) from exc


def passed(environ: Mapping[str, str], pid: int) -> tuple[socket.socket, Endpoint] | None:
    """Return the socket that systemd passed to the process `pid`, this one; None when it passed none.

    The rules are those of sd_listen_fds(3): LISTEN_FDS counts only where LISTEN_PID is this process. Raises
    ListenError for anything but one listening Unix stream socket.
    """
    if environ.get("LISTEN_PID") != str(pid) or environ.get("LISTEN_FDS", "0") in ("", "0"):
        return None
    count = environ["LISTEN_FDS"]
    if count != "1":
        raise ListenError(f"LISTEN_FDS is {escape(count)}: exactly one listening socket can be served")
    listener = adopt(FIRST_PASSED_FD)
    return listener, Endpoint(name_of(listener), 0, 0, ours=False)


def name_of(listener: socket.socket) -> str:
    """Return the path that the socket is bound to, "" for none (an abstract one)."""
    name = listener.getsockname()
    return name if isinstance(name, str) else ""


def adopt(fd: int) -> socket.socket:
    """Return the listening Unix stream socket that is open as `fd`. Raises ListenError."""
    try:
        listener = socket.socket(fileno=fd)
    except OSError as exc:
        raise ListenError(f"descriptor {fd}, passed to listen on, is no socket: {exc.strerror}") from exc
    kind = (listener.family, listener.getsockopt(socket.SOL_SOCKET, socket.SO_TYPE))
    accepts = listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    if kind != (socket.AF_UNIX, socket.SOCK_STREAM) or not accepts:
        listener.detach()
        raise ListenError(f"descriptor {fd}, passed to listen on, is no listening Unix stream socket")
    os.set_inheritable(fd, False)
    return listener


def bind(settings: Service, private: bool) -> tuple[socket.socket, Endpoint]:
    """Bind the service's socket and return it, listening, with its file. Raises ListenError.

    The file is made under umask 0077 and opened to `socket_group` and `socket_mode` afterwards, or to nobody
    but this user when the service is `private`. A socket file that nobody listens on is replaced; a live
    server's, or anything that is no socket, never is.
    """
    path = settings.socket_path
    directory = os.path.dirname(path)
    if not private:
        group_id(settings.socket_group)  # before anything is made
    try:
        if not os.path.isdir(directory):
            os.mkdir(directory, 0o700 if private else 0o755)
        with _only_binder(path):
            _clear_stale(path)
            listener = _bind(path)
            made = os.lstat(path)
            endpoint = Endpoint(path, made.st_dev, made.st_ino, ours=True)
            endpoint.open_to(settings, private)
            listener.listen(BACKLOG)
    except OSError as exc:
        raise _cannot_listen(path, exc) from exc
    return listener, endpoint


def _cannot_listen(path: str, exc: OSError) -> ListenError:
    return ListenError(f"cannot listen on {escape(path)}: {exc.strerror or exc}")


def group_id(name: str) -> int:
    """Return the gid of the group `name`; raises ListenError."""
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError:
        raise ListenError(f"service.socket_group: there is no group {escape(name)} on this host") from None


@contextmanager
def _only_binder(path: str) -> Iterator[None]:
    """Hold a lock beside the socket `path`, so that of two servers that start at once one finds the other.

    It is a file that nobody else can open: a lock on the directory could be held by whoever may read that.
    """
    lock = path + ".lock"
    while True:
        fd = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            if _is_file(fd, lock):  # else its last holder removed it while this one waited
                try:
                    yield
                finally:
                    os.unlink(lock)
                return
        finally:
            os.close(fd)


def _is_file(fd: int, path: str) -> bool:
    try:
        return os.path.samestat(os.fstat(fd), os.lstat(path))
    except FileNotFoundError:
        return False


def _clear_stale(path: str) -> None:
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise ListenError(f"cannot listen on {escape(path)}: it exists and is no socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)
            return
        except BlockingIOError:
            pass  # somebody listens, and is busy
    raise ListenError(f"cannot listen on {escape(path)}: a build-service is listening there already")


def _bind(path: str) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    umask = os.umask(0o077)
    try:
        listener.bind(path)
    except BaseException:
        listener.close()
        raise
    finally:
        os.umask(umask)
    return listener
