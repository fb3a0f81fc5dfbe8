"""The SELinux module: what it adds to a policy, what a container may do then, and which label the socket gets.

It is compiled together with a small base policy (selinux/base.cil) and judged by what a host has for it: setools lists
the rules, libsepol decides as the kernel does, libselinux looks labels up. A kernel with SELinux is not needed.
"""

from __future__ import annotations

import ctypes
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

import harness
import tools
from harness import TREE

PATH = tools.SEARCHED
pytestmark = tools.needed("secilc", "sesearch", "sediff", "selabel_lookup")

BASE = TREE / "tests/selinux/base.cil"
MODULE = TREE / "etc/selinux/build-service.cil"
SOCKET_UNIT = TREE / "etc/systemd/build-service.socket"
SOCKET = next(
    line.partition("=")[2] for line in SOCKET_UNIT.read_text().splitlines() if line.startswith("ListenStream=")
)

POLICY_VERSION = "33"
"""Of the binary policy's format; nothing in the module depends on it."""

CONTAINER = "system_u:system_r:container_t:s0:c1,c2"
SERVICE = "system_u:system_r:unconfined_service_t:s0"
LABEL = "system_u:object_r:build_service_var_run_t:s0"

RULES = {
    "allow container_domain build_service_var_run_t:dir search;",
    "allow container_domain build_service_var_run_t:sock_file { getattr write };",
    "allow container_domain unconfined_service_t:unix_stream_socket connectto;",
}
RULE_KINDS = "--allow --auditallow --dontaudit --type_trans --type_member --type_change --role_allow --role_trans"

SAME_DIRECTORY = {"Rocky 8 and 9": "/run /var/run\n", "Rocky 10": "/var/run /run\n"}
"""What their file_contexts.subs_dist says of /run: the first name is looked up as the second."""


Decide = Callable[[str, str, str, str], str]
"""decide(who, what, object class, permission) says "allowed", or why not: "no rule" or "constraint"."""


class Compiled(NamedTuple):
    """A binary policy and the file contexts that belong to it."""

    policy: Path
    contexts: Path


def run(*command: str | os.PathLike[str]) -> str:
    """The command's output; it has to succeed."""
    done = subprocess.run(command, env={"PATH": PATH}, capture_output=True, text=True, timeout=harness.PATIENCE_SEC)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def compiled(directory: Path, *sources: Path) -> Compiled:
    result = Compiled(directory / "policy", directory / "file_contexts")
    directory.mkdir()
    run("secilc", "-c", POLICY_VERSION, "-o", result.policy, "-f", result.contexts, *sources)
    return result


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Compiled:
    """The base policy alone."""
    return compiled(tmp_path_factory.mktemp("selinux") / "base", BASE)


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Compiled:
    """The base policy with the module."""
    return compiled(tmp_path_factory.mktemp("selinux") / "loaded", BASE, MODULE)


# --- the policy ---------------------------------------------------------------------------------------------------


def rules(policy: Path) -> set[str]:
    """Every rule of a policy as it was written, attributes not expanded."""
    kinds = RULE_KINDS.split() + ["--range_trans"]
    return {rule for kind in kinds for rule in run("sesearch", kind, policy).splitlines() if rule}


def test_the_module_adds_three_rules(base: Compiled, loaded: Compiled) -> None:
    assert rules(loaded.policy) - rules(base.policy) == RULES
    assert rules(base.policy) <= rules(loaded.policy)


def test_it_adds_one_type_that_systemd_and_restorecon_may_label_and_nothing_else(
    base: Compiled, loaded: Compiled
) -> None:
    lines = [line.strip() for line in run("sediff", base.policy, loaded.policy).splitlines()]
    assert [line for line in lines if line.startswith(("+", "-", "*")) and "container" not in line] == [
        "+ build_service_var_run_t",
        "* file_type (1 Added types)",
        "+ build_service_var_run_t",
        "* pidfile (1 Added types)",
        "+ build_service_var_run_t",
        "+ allow init_t build_service_var_run_t:dir { add_name remove_name search write };",
        "+ allow init_t build_service_var_run_t:sock_file { create getattr setattr unlink write };",
        "+ allow setfiles_t build_service_var_run_t:dir { relabelfrom relabelto };",
        "+ allow setfiles_t build_service_var_run_t:sock_file { relabelfrom relabelto };",
    ]


# --- decisions ----------------------------------------------------------------------------------------------------


REASONS = {0: "allowed", 1: "no rule", 2: "constraint"}
"""SEPOL_COMPUTEAV_TE and SEPOL_COMPUTEAV_CONS of sepol/policydb/services.h."""


class Decision(ctypes.Structure):
    """sepol_av_decision of sepol/policydb/flask_types.h."""

    _fields_ = [(name, ctypes.c_uint32) for name in ("allowed", "decided", "auditallow", "auditdeny", "seqno")]


@pytest.fixture
def decide(loaded: Compiled) -> Decide:
    """Asks libsepol, which holds the same security server as the kernel."""
    libc, sepol = ctypes.CDLL(None), ctypes.CDLL("libsepol.so.2")
    libc.fopen.restype = ctypes.c_void_p
    stream = ctypes.c_void_p(libc.fopen(os.fsencode(loaded.policy), b"r"))
    assert sepol.sepol_set_policydb_from_file(stream) == 0
    libc.fclose(stream)

    def sid(context: str) -> ctypes.c_uint32:
        found = ctypes.c_uint32()
        text = context.encode()
        assert sepol.sepol_context_to_sid(text, ctypes.c_size_t(len(text)), ctypes.byref(found)) == 0, context
        return found

    def decide(who: str, what: str, object_class: str, permission: str) -> str:
        number, bit = ctypes.c_uint16(), ctypes.c_uint32()
        assert sepol.sepol_string_to_security_class(object_class.encode(), ctypes.byref(number)) == 0
        assert sepol.sepol_string_to_av_perm(number, permission.encode(), ctypes.byref(bit)) == 0
        decision, reason = Decision(), ctypes.c_uint()
        sids = sid(who), sid(what)
        assert sepol.sepol_compute_av_reason(*sids, number, bit, ctypes.byref(decision), ctypes.byref(reason)) == 0
        return REASONS[reason.value]

    return decide


@pytest.mark.parametrize(
    ("what", "object_class", "permission"),
    [
        (LABEL, "dir", "search"),
        (LABEL, "sock_file", "getattr"),
        (LABEL, "sock_file", "write"),
        (SERVICE, "unix_stream_socket", "connectto"),
    ],
)
def test_a_container_with_categories_of_its_own_reaches_the_socket(
    what: str, object_class: str, permission: str, decide: Decide
) -> None:
    assert decide(CONTAINER, what, object_class, permission) == "allowed"


@pytest.mark.parametrize(
    ("what", "object_class", "permission"),
    [
        (LABEL, "dir", "add_name"),
        (LABEL, "dir", "remove_name"),
        (LABEL, "dir", "write"),
        (LABEL, "sock_file", "create"),
        (LABEL, "sock_file", "setattr"),
        (LABEL, "sock_file", "unlink"),
        (SERVICE, "unix_stream_socket", "read"),
        ("system_u:object_r:var_run_t:s0", "sock_file", "write"),
        ("system_u:system_r:init_t:s0", "unix_stream_socket", "connectto"),
        ("system_u:system_r:unconfined_t:s0", "unix_stream_socket", "connectto"),
    ],
)
def test_a_container_may_not_replace_the_socket_or_reach_another(
    what: str, object_class: str, permission: str, decide: Decide
) -> None:
    assert decide(CONTAINER, what, object_class, permission) == "no rule"


@pytest.mark.parametrize(
    ("what", "object_class", "permission"),
    [
        (f"{LABEL}:c3", "sock_file", "write"),
        (f"{SERVICE}-s0:c0.c3", "unix_stream_socket", "connectto"),
    ],
)
def test_categories_that_the_container_has_not_would_keep_it_out(
    what: str, object_class: str, permission: str, decide: Decide
) -> None:
    assert decide(CONTAINER, what, object_class, permission) == "constraint"


def test_the_socket_unit_leaves_the_label_of_its_socket_to_the_program_it_starts() -> None:
    assert "SELinuxContext" not in SOCKET_UNIT.read_text()


# --- labels -------------------------------------------------------------------------------------------------------


def label(contexts: Path, path: str, kind: str) -> str:
    """The label that systemd, systemd-tmpfiles and restorecon give a `kind` ("dir", "socket") at this path."""
    answer = run("selabel_lookup", "-b", "file", "-f", contexts, "-k", path, "-t", kind)
    return answer.rpartition("Default context: ")[2].strip()


@pytest.fixture(params=SAME_DIRECTORY)
def contexts(request: pytest.FixtureRequest, tmp_path: Path, loaded: Compiled) -> Path:
    """The file contexts as each host has them: with the name that it prefers for /run."""
    copy = tmp_path / "file_contexts"
    copy.write_text(loaded.contexts.read_text())
    copy.with_name("file_contexts.subs_dist").write_text(SAME_DIRECTORY[request.param])
    return copy


@pytest.mark.parametrize(("path", "kind"), [(SOCKET, "socket"), (os.path.dirname(SOCKET), "dir")])
@pytest.mark.parametrize("prefix", ["", "/var"])
def test_the_socket_and_its_directory_get_the_label(contexts: Path, prefix: str, path: str, kind: str) -> None:
    assert label(contexts, prefix + path, kind) == LABEL


@pytest.mark.parametrize("path", ["/run/build-service2", "/run/build-service.sock", "/run/other/build-service"])
def test_nothing_else_gets_it(contexts: Path, path: str) -> None:
    assert label(contexts, path, "socket") == "system_u:object_r:var_run_t:s0"
