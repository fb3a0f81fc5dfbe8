"""The tools that some tests run and a machine may lack: what is looked for, and which packages bring it.

The one table of them. `tests/run.py` prints before the tests what will be skipped and how to get it; a test that runs
one of them asks here (`need`, `needed`), so that none is skipped for a tool that is not in the table. `.ci/run`
installs them all, and test_tools.py holds its list against this one. A test must find a tool where `search` does.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, NamedTuple

import harness

if TYPE_CHECKING:
    import pytest

SEARCHED = f"{harness.SYSTEM_PATH}:/usr/sbin:/sbin"
"""Where programs are looked for: where the users of the tests find them as well."""

OTHER_PYTHON = "another python3.N in /usr/bin or ~/.pyenv"
OLDEST_MINOR = 6

WALKERS = "what make, ninja, cmake, ctest and meson do with their command lines"
IN_C = "calls that fail or do nothing in the C library, and builds of C"
TREES = "projects of autotools and kconfig, built through the service"
PAGES = "the manual pages"
PACKAGES = "the packages"
UNITS = "the units, and packages on a host with systemd"
SELINUX = "the SELinux module"
SHELLS = "programs and completion under further shells"
SESSIONS = "the example sessions of PROTOCOL.md"
PYTHONS = "the client on other Pythons"


class Tool(NamedTuple):
    """What is looked for, a program or a file; its package, or packages, "" where there is none; which tests need it.

    The names of Rocky Linux's are from its package lists: no test ran there. Some need EPEL or CRB to be enabled.
    """

    name: str
    debian: str
    rocky: str
    tests: str


TOOLS = (
    Tool("gcc", "gcc", "gcc", IN_C),
    Tool("/usr/include/stdio.h", "libc6-dev", "glibc-devel", IN_C),
    Tool("ar", "binutils", "binutils", IN_C),
    Tool("musl-gcc", "musl-tools", "musl-gcc", IN_C),
    Tool("ninja", "ninja-build", "ninja-build", WALKERS),
    Tool("cmake", "cmake", "cmake", WALKERS),
    Tool("autoconf", "autoconf", "autoconf", TREES),
    Tool("automake", "automake", "automake", TREES),
    Tool("kconfig-conf", "kconfig-frontends-nox", "", TREES),
    Tool("kconfig-mconf", "kconfig-frontends-nox", "", TREES),
    Tool("dash", "dash", "dash", SHELLS),
    Tool("busybox", "busybox", "busybox", SHELLS),
    Tool("shellcheck", "shellcheck", "ShellCheck", SHELLS),
    Tool("/usr/share/bash-completion/bash_completion", "bash-completion", "bash-completion", SHELLS),
    Tool("nc.openbsd", "netcat-openbsd", "", SESSIONS),
    Tool("socat", "socat", "socat", SESSIONS),
    Tool("man", "man-db", "man-db", PAGES),
    Tool("lexgrog", "man-db", "man-db", PAGES),
    Tool("groff", "groff", "groff-base", PAGES),
    Tool("mandoc", "mandoc", "mandoc", PAGES),
    Tool("git", "git", "git", PACKAGES),
    Tool("rpmbuild", "rpm", "rpm-build", PACKAGES),
    Tool("rpm", "rpm", "rpm", PACKAGES),
    Tool("rpmlint", "rpmlint", "rpmlint", PACKAGES),
    Tool("dpkg-deb", "dpkg", "dpkg", PACKAGES),
    Tool("dpkg", "dpkg", "dpkg", PACKAGES),
    Tool("apt-get", "apt", "", PACKAGES),
    Tool("lintian", "lintian", "", PACKAGES),
    Tool("systemd-analyze", "systemd", "systemd", UNITS),
    Tool("systemd-tmpfiles", "systemd", "systemd", UNITS),
    Tool("systemctl", "systemd", "systemd", UNITS),
    Tool("secilc", "secilc", "secilc", SELINUX),
    Tool("sesearch", "setools", "setools-console", SELINUX),
    Tool("sediff", "setools", "setools-console", SELINUX),
    Tool("selabel_lookup", "selinux-utils", "libselinux-utils", SELINUX),
    Tool(OTHER_PYTHON, "", "python3.12", PYTHONS),
)
TO_COMPILE = ("gcc", "/usr/include/stdio.h")
BY_NAME = {tool.name: tool for tool in TOOLS}

NOT_ROOT = "skipped without root: the tests with several users; sudo make test runs them"


def is_here(name: str) -> bool:
    if name == OTHER_PYTHON:
        own = f"python3.{sys.version_info[1]}"
        return any(os.path.basename(python) != own for python in harness.other_pythons(OLDEST_MINOR))
    return os.path.exists(name) if name.startswith("/") else bool(shutil.which(name, path=SEARCHED))


def reason(*names: str) -> str:
    """Why a test that runs these is skipped, in a line; "" where all are here. KeyError for one not in the table."""
    lacking = [name for name in names if not is_here(BY_NAME[name].name)]
    return f"not installed: {', '.join(lacking)}; make test says at its start how to get it" if lacking else ""


def need(*names: str) -> None:
    """Skips the running test where one of these is missing."""
    import pytest  # not at the top: run.py prints before pytest is loaded

    lacking = reason(*names)
    if lacking:
        pytest.skip(lacking)


def needed(*names: str) -> pytest.MarkDecorator:
    """The same as a mark."""
    import pytest

    lacking = reason(*names)
    return pytest.mark.skipif(bool(lacking), reason=lacking)


def report() -> Iterator[str]:
    """What will be skipped here and how to get it, a line for each group of tests; or one line that all is here."""
    missing = [tool for tool in TOOLS if not is_here(tool.name)]
    groups = {tool.tests: [other for other in missing if other.tests == tool.tests] for tool in missing}
    yield from map(_line, groups.values())
    if len(groups) > 1:
        manager, packages = _own_kind(missing)
        yield f"all of it: {manager} install {_words(packages)}"
    if os.geteuid() != 0:
        yield NOT_ROOT
    elif not missing:
        yield "every tool that a test asks for is here: nothing is skipped for lack of one"


def _line(lacking: Iterable[Tool]) -> str:
    tools = list(lacking)
    if not tools:
        return ""
    debian, rocky = _words(tool.debian for tool in tools), _words(tool.rocky for tool in tools)
    where = [f"Debian: apt-get install {debian}"] if debian else []
    where += [f"Rocky: dnf install {rocky}"] if rocky else []
    what = _words_of((tool.tests for tool in tools), ", ")
    return "; ".join([f"skipped without {_words_of((tool.name for tool in tools), ', ')}: {what}", *where])


def _own_kind(missing: Iterable[Tool]) -> tuple[str, list[str]]:
    """The package manager of this machine, and what it calls them."""
    if shutil.which("dnf", path=SEARCHED):
        return "dnf", [tool.rocky for tool in missing]
    return "apt-get", [tool.debian for tool in missing]


def _words(packages: Iterable[str]) -> str:
    return _words_of(packages, " ")


def _words_of(words: Iterable[str], between: str) -> str:
    """Each once, in their order."""
    return between.join(dict.fromkeys(filter(None, words)))
