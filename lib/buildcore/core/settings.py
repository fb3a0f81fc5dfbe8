"""The values that the service works by: what each setting means, its unit and its default, stated once, here.

`keys` fills these from the tables of a configuration file; whoever needs one reads it here; a program that
embeds the library may make them itself. This file does no I/O and checks no values: `values` does, where they
come in from a person. Everything in it is immutable, so one `Settings` can be shared by all.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from . import variables
from .errors import BuildError

SCHEMA_VERSION = "1"
"""The one version of the configuration file that this release reads."""

LEVELS = ("error", "warn", "info", "debug", "trace")
"""Log levels, from the fewest lines to the most."""

GROUPS_PEER = "peer"
"""A build's supplementary groups are the caller's own, as the socket tells them (SO_PEERGROUPS, unix(7))."""

GROUPS_LOGIN = "login"
"""A build's supplementary groups are the ones a fresh login of the account would get (initgroups(3))."""

GROUPS_COMMON = "common"
"""A build's groups, the primary one included, are those that its caller has and its account is in, and no other."""

GROUPS = (GROUPS_PEER, GROUPS_LOGIN, GROUPS_COMMON)

MIN_UID_OF_HOST = "login.defs"
"""The lowest uid that is served is the lowest that the host gives to people (UID_MIN, login.defs(5))."""

MAPPING_AUTO = "auto"
"""Where the templates do not lead to a caller's directory, the mount that it lies in tells where it is on the host."""

MAPPING_TEMPLATES = "templates"
"""The templates alone tell where a caller's directory is on the host."""

MAPPING_MODES = (MAPPING_AUTO, MAPPING_TEMPLATES)

PLACEHOLDERS = ("user", "home", "workspace_root")
"""What a path template may name in braces."""


class TemplateError(BuildError):
    """A path template gives no usable path for this account."""

    kind = "path_mapping"


@dataclass(frozen=True)
class Service:
    """How callers reach the service."""

    socket_path: str = "/run/build-service/build-service.sock"
    """Absolute path of the Unix socket; at most 107 bytes (unix(7))."""

    socket_group: str = "users"
    """Name of the group that owns the socket."""

    socket_mode: int = 0o660
    """Permission bits of the socket; connecting needs the write bit. An octal string in the file."""

    prefork: int = 1
    """How many sessions are forked ahead of their callers (processes); 0 forks when a caller comes."""

    max_connections: int = 1000
    """How many callers are served at once; further ones are refused."""

    max_connections_per_user: int = 256
    """How many of these may be one user's, its subordinate uids counted in."""


@dataclass(frozen=True)
class Timeouts:
    """How long a build may take."""

    default_sec: int = 600
    """Seconds a build may run when its request says nothing."""

    max_sec: int = 1800
    """Seconds; a request for more is capped to this."""

    grace_sec: int = 5
    """Seconds between SIGTERM and SIGKILL when a build is ended; 0 kills at once."""


@dataclass(frozen=True)
class Environment:
    """Which variables a build sees."""

    allow: tuple[str, ...] = variables.ACCOUNT + variables.BY_CUSTOM
    """Names that may reach a build, and patterns such as `LC_*` for those of callers; every other name is dropped."""

    set: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}), hash=False)
    """Name to value: what the service sets itself, whatever the caller sent."""


@dataclass(frozen=True)
class PathMapping:
    """Where an account's workspace lies, seen from its containers and on the host.

    In a template {user} is the account's name, {home} its home directory on the host, and {workspace_root}
    is `build.workspace_root`.
    """

    container_template: str = "{workspace_root}/{user}/workspace"
    """The workspace's path inside a container: what the paths of a request start with."""

    host_template: str = "{workspace_root}/{user}/workspace"
    """The same directory's path on the host; names {user} or {home}, so that no two accounts share it."""

    mode: str = MAPPING_AUTO
    """How a caller's directory is found on the host: one of MAPPING_MODES. In each it has to be the same one."""

    def container_root(self, user: str, home: str, workspace_root: str) -> str:
        """The workspace as the containers of account `user` see it: see `expand_template`."""
        return expand_template(self.container_template, user, home, workspace_root)

    def host_root(self, user: str, home: str, workspace_root: str) -> str:
        """The workspace of account `user` on the host: see `expand_template`. It need not exist."""
        return expand_template(self.host_template, user, home, workspace_root)


@dataclass(frozen=True)
class Build:
    """What may be built, where, and as whom."""

    workspace_root: str = "/home"
    """Absolute directory that {workspace_root} stands for in the templates."""

    commands: Mapping[str, str] = field(
        default_factory=lambda: MappingProxyType({"make": "/usr/bin/make", "gmake": "/usr/bin/make"}), hash=False
    )
    """The allowlist: the name that a caller asks for to the absolute path that is executed."""

    workspace_commands: tuple[str, ...] = ()
    """What may run of a caller's own workspace: names of programs there, or the last parts of their paths."""

    groups: str = GROUPS_PEER
    """Where a build's groups come from: one of GROUPS."""

    min_uid: int | str = MIN_UID_OF_HOST
    """The lowest uid that root's service builds for, or MIN_UID_OF_HOST; 0 has it build for every account but root."""

    no_new_privs: bool = True
    """Whether set-user-ID programs lose their power inside a build (PR_SET_NO_NEW_PRIVS, prctl(2))."""

    timeouts: Timeouts = field(default_factory=Timeouts)
    environment: Environment = field(default_factory=Environment)
    path_mapping: PathMapping = field(default_factory=PathMapping)


@dataclass(frozen=True)
class Logging:
    """What is logged, and where to."""

    level: str = "info"
    """One of LEVELS; lines of this level and of those before it are written."""

    directory: str = "/var/log/build-service"
    """Absolute directory of the log file; "" for no file."""

    max_bytes: int = 104857600
    """Size in bytes (100 MiB) at which the log file is rotated."""

    max_files: int = 5
    """How many log files are kept, the current one included."""

    console: bool = False
    """Whether lines also go to the console: the journal, under systemd."""


@dataclass(frozen=True)
class Settings:
    """Everything that a configuration file can say; `Settings()` is what an empty file means."""

    schema_version: str = SCHEMA_VERSION
    """The version of the file's format."""

    service: Service = field(default_factory=Service)
    build: Build = field(default_factory=Build)
    logging: Logging = field(default_factory=Logging)


def expand_template(template: str, user: str, home: str, workspace_root: str) -> str:
    """Return `template` with {user}, {home} and {workspace_root} replaced by what they stand for.

    The three are replaced in one pass and by name alone (no `str.format`), so that neither a template nor an
    account's name can reach anything else. The result is absolute, without repeated or trailing slashes; no
    file system is asked. Raises `TemplateError` where the account would make the path mean something else: a
    name that is no single path component, or a home directory that is not absolute.
    """
    values = {"user": user, "home": home, "workspace_root": workspace_root}
    if "{user}" in template and ("/" in user or user in ("", ".", "..")):
        raise TemplateError(f"account name {user!r} cannot be part of a workspace path")
    if "{home}" in template and not home.startswith("/"):
        raise TemplateError(f"account {user!r} has no absolute home directory: {home!r}")
    path = re.sub(r"\{(user|home|workspace_root)\}", lambda match: values[match[1]], template)
    if not path.startswith("/"):
        raise TemplateError(f"template {template!r} gives no absolute path: {path!r}")
    return "/" + "/".join(part for part in path.split("/") if part not in ("", "."))
