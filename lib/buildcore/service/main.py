"""The command `build-service`: reads the configuration, starts the log and the arbiter, and waits for its end.

Started by root it serves every caller as that caller; started by anyone else it serves that user alone.
"""

from __future__ import annotations

import argparse
import fcntl
import os
import socket
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace

from .. import __version__
from ..core.errors import BuildError
from ..core.settings import Settings
from ..system import cgroups, config, descriptors, identity, listener, logindefs, notify, subids
from . import apart, arbiter, log_outputs, logs, proof, reload, session

FAILURE = 1

SPARE_DESCRIPTORS = 64
"""What the arbiter has open besides one descriptor for each session, as many as `core.places` allows."""


class UsageError(BuildError):
    """The command line is not usable."""

    kind = "usage"


def main(argv: Sequence[str]) -> int:
    """Run the command with the arguments `argv`, its own name left out; return the exit code."""
    try:
        _run(argv)
        if sys.stdout is not None:  # it was closed
            sys.stdout.flush()
    except BuildError as exc:
        for line in str(exc).splitlines():
            print(f"build-service: {line}", file=sys.stderr)
        return FAILURE
    except OSError as exc:  # standard output takes no more
        print(f"build-service: {exc.strerror}", file=sys.stderr)
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 # nor does Python try again as it ends
        return FAILURE
    return 0


def _run(argv: Sequence[str]) -> None:
    try:
        options = _parser().parse_args(argv)
    except SystemExit as exc:
        if exc.code:
            raise
        return  # --help or --version
    _tidy_descriptors(options.ready_fd)
    handover = reload.take(os.environ)
    resumed = handover is not None and handover.pid == os.getpid()
    named = options.config or os.environ.get(config.CONFIG_VARIABLE)
    path = _config_path(options)
    if handover is not None and resumed:
        text = handover.config  # as the trial accepted it: the file may have changed since
    else:
        text = None if path is None else config.read(path)
    settings = _settings(options, path, text)
    if options.check_config:
        _report(settings)
        if handover is not None and not resumed:
            _try(settings, handover.build_score)
            reload.answer(reload.Accepted(sys.executable, text))
        print("configuration is valid")
        return
    if not resumed:
        handover = None
    keep = path is not None and (named or not options.user)  # a user's own default may come and go
    arguments = (*(["--user"] if options.user else []), *(["--config", path] if path and keep else []))
    _serve(settings, reload.Program(os.path.abspath(sys.argv[0]), arguments), handover, options.ready_fd)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="build-service", description="Runs builds on this host for callers in containers, as the caller."
    )
    default = f"default: $BUILD_SERVICE_CONFIG, then {config.DEFAULT_PATH} (with --user, below $XDG_CONFIG_HOME)"
    parser.add_argument("--config", metavar="FILE", help=default)
    parser.add_argument("--check-config", action="store_true", help="validate the configuration and exit")
    parser.add_argument(
        "--ready-fd", metavar="N", type=int, help="write a line to descriptor N once callers are served"
    )
    parser.add_argument(
        "--user", action="store_true", help="serve this user alone, with files below the XDG directories"
    )
    parser.add_argument("--version", action="version", version=f"build-service {__version__}")
    return parser


def _config_path(options: argparse.Namespace) -> str | None:
    """Return the absolute path of the configuration file; None for a single user's that is not there."""
    if not options.user:
        return os.path.abspath(config.locate(options.config, os.environ))
    path = options.config or os.environ.get(config.CONFIG_VARIABLE)
    if path is None:
        path = os.path.join(_base(os.environ, "XDG_CONFIG_HOME", ".config"), "build-service", "config.toml")
        return path if os.path.exists(path) else None
    return os.path.abspath(path)


def _settings(options: argparse.Namespace, path: str | None, text: str | None) -> Settings:
    if options.user and identity.is_privileged():
        raise UsageError("--user is for ordinary users: root serves everybody, without it")
    defaults = user_defaults(os.environ, os.getuid()) if options.user else Settings()
    return config.parse(text or "", path or "config", os.environ, defaults)


def user_defaults(environ: Mapping[str, str], uid: int) -> Settings:
    """Return the settings of a single user's service: files below the XDG base directories."""
    runtime = _absolute(environ, "XDG_RUNTIME_DIR") or f"/run/user/{uid}"
    state = _base(environ, "XDG_STATE_HOME", os.path.join(".local", "state"))
    standard = Settings()
    socket_path = os.path.join(runtime, "build-service", "build-service.sock")
    return replace(
        standard,
        service=replace(standard.service, socket_path=socket_path),
        logging=replace(standard.logging, directory=os.path.join(state, "build-service")),
    )


def _base(environ: Mapping[str, str], name: str, below_home: str) -> str:
    return _absolute(environ, name) or os.path.join(os.path.expanduser("~"), below_home)


def _absolute(environ: Mapping[str, str], name: str) -> str:
    """Return an XDG variable; a relative path in it is to be ignored (XDG Base Directory Specification)."""
    value = environ.get(name, "")
    return value if value.startswith("/") else ""


def _report(settings: Settings) -> None:
    for warning in config.warnings(settings):
        print(f"build-service: warning: {warning}", file=sys.stderr)


def _try(settings: Settings, build_score: int | None) -> None:
    """In a trial: find out what could go wrong in the service that is to become this program."""
    proof.prove(settings, apart.settle(build_score).build_score)
    # What the arbiter is to ask the host's user database for: where that does not answer, this trial does not end.
    subids.load()
    with suppress(BuildError):  # the socket keeps its group then, and the arbiter says so
        listener.group_id(settings.service.socket_group)


def _serve(
    settings: Settings, program: reload.Program, handover: reload.Handover | None, ready_fd: int | None
) -> None:
    only_uid = None if identity.is_privileged() else os.getuid()
    settled = apart.settle(None if handover is None else handover.build_score)
    missing = settled.lines
    if handover is None:
        missing += proof.prove(settings, settled.build_score)
        listening, endpoint, log = _begin(settings, private=only_uid is not None)
    else:
        listening, endpoint, log = _go_on(settings, handover, private=only_uid is not None)
    for warning in config.warnings(settings):
        log.warn("configuration warning", warning=warning)
    for line in missing if handover is None else ():  # a reload changes nothing of it
        log.warn("this host does not keep builds apart in all", reason=line)
    os.chdir("/")
    os.umask(0o077)
    connections = settings.service.max_connections
    open_files = descriptors.allow(2 * connections + settings.service.prefork + SPARE_DESCRIPTORS)
    if handover is not None and handover.open_files is not None:
        open_files = handover.open_files
    service = session.Service(
        settings=settings,
        environment={_text(name): _text(value) for name, value in os.environb.items()},
        log=log,
        only_uid=only_uid,
        cgroup=cgroups.delegated(),
        open_files=open_files,
        build_score=settled.build_score,
        owner_of=subids.load().owner_of,
        min_uid=_min_uid(settings.build.min_uid),
        first_gid=logindefs.first_gid(),
    )
    manager = notify.Manager(os.environ, os.getpid())
    arbiter.Arbiter(listening, endpoint, service, manager, program, handover).run(ready_fd)
    log.close()
    log.wait_writer()


def _min_uid(wanted: int | str) -> int:
    return wanted if isinstance(wanted, int) else logindefs.first_uid()


def _begin(settings: Settings, private: bool) -> tuple[socket.socket, listener.Endpoint, logs.Log]:
    """Open the socket, unless systemd passed one, and the log."""
    listening, endpoint = listener.passed(os.environ, os.getpid()) or listener.bind(settings.service, private)
    try:
        if private and settings.logging.directory:
            with suppress(OSError):  # what cannot be made here is named by the log itself
                os.makedirs(settings.logging.directory, log_outputs.DIRECTORY_MODE, exist_ok=True)
        return listening, endpoint, logs.start(settings.logging)
    except BuildError:
        endpoint.remove()
        raise


def _go_on(
    settings: Settings, handover: reload.Handover, private: bool
) -> tuple[socket.socket, listener.Endpoint, logs.Log]:
    """Take over the socket and the log from the program that this process was before a reload."""
    handover.pass_on(False)
    log = logs.resume(settings.logging, handover.channel, handover.writer)
    listening = listener.adopt(handover.listener)
    endpoint = listener.Endpoint(listener.name_of(listening), handover.device, handover.inode, handover.ours)
    if endpoint.ours:
        try:
            endpoint.open_to(settings.service, private)
        except BuildError as exc:
            log.error("the socket keeps its group and mode", reason=exc)
        if endpoint.path != settings.service.socket_path:
            log.warn("service.socket_path counts from a restart on", socket=endpoint.path)
    return listening, endpoint, log


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "surrogateescape")


def _tidy_descriptors(ready_fd: int | None) -> None:
    """Have 0, 1 and 2 open, and let no other inherited descriptor reach a build.

    Raises UsageError when `ready_fd` is not open.
    """
    descriptors.fill_standard()
    if ready_fd is not None:
        try:
            fcntl.fcntl(ready_fd, fcntl.F_GETFD)
        except (OSError, OverflowError, ValueError):
            raise UsageError(f"--ready-fd {ready_fd}: not an open descriptor") from None
    descriptors.keep_from_programs()
