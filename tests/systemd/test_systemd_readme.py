"""The way from the sources to the first build, run as the README has it; and what INSTALL.md has beside it."""

from __future__ import annotations

import shutil
from pathlib import Path

import harness
from harness_world import ROOT
from systemd.service import DEVELOPER, OWNER, SERVICE, SOCKET, Installed
from test_documents import FENCE, INSTALL, README

SOURCES = Path("/root") / "build-service"
"""Where the machine has them, for root."""


def example(words: str, document: str = README) -> str:
    """The one shell example of a document that holds these words."""
    found = [text for language, text in FENCE.findall(document) if language == "sh" and words in text]
    assert len(found) == 1, f"{len(found)} examples with {words!r}"
    return str(found[0])


def take_away(service: Installed) -> None:
    """Uninstalls the service, with its configuration, and takes the developer out of the socket's group."""
    machine = service.machine
    service.systemctl("disable", "--now", SOCKET, SERVICE)
    machine.path(service.config).unlink()
    machine.output("make", "-s", "-C", SOURCES, "uninstall")
    machine.output("systemctl", "daemon-reload")
    machine.output("gpasswd", "--delete", DEVELOPER.name, "users")


def test_the_install_section_leads_to_a_first_build(system: Installed) -> None:
    machine = system.machine
    unwanted = shutil.ignore_patterns(".*", "__pycache__", "dist", "tests")
    shutil.copytree(ROOT, machine.root / SOURCES.relative_to("/"), ignore=unwanted)
    take_away(system)
    assert machine.run("build-cli", "--version").returncode != 0
    machine.output("sh", "-ec", example("sudo make install"), cwd=SOURCES)
    machine.output("sh", "-ec", example("usermod -aG users dev1"))
    built = machine.output("sh", "-ec", example("built by"), user=DEVELOPER, cwd=DEVELOPER.home)
    assert built == f"built by dev1 in {system.workspace}/hello"
    machine.output("sh", "-ec", example("build-ctl doctor"), user=DEVELOPER, cwd=system.workspace / "hello")


def test_one_line_leads_to_a_user_s_own_service(own: Installed) -> None:
    own.systemctl("disable", "--now", SOCKET)
    env = {"XDG_RUNTIME_DIR": str(own.runtime)}
    own.machine.output("sh", "-ec", example("systemctl --user enable", INSTALL), user=OWNER, env=env)
    project = own.workspace / "hello"
    harness.write_tree(own.machine.path(project), {"Makefile": "all:\n\t@id -un\n"}, OWNER)
    assert own.machine.output("build-cli", "make", user=OWNER, cwd=project, env=env) == OWNER.name
