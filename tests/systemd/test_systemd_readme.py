"""README's way to install, word for word, on a machine that has nothing of it."""

from __future__ import annotations

import shutil

from harness_world import ROOT
from systemd.machine import Machine
from systemd.service import DEVELOPER, Installed
from test_readme import FENCE, README

PRELUDE = """\
set -e
cd "$HOME"
sudo() { "$@"; }
git() { cp -r /var/source "$3"; }  # the machine has no network: what would be cloned is there already
"""


def block(holds: str) -> str:
    """The one program in the section on the host that holds these words."""
    on_the_host = README.partition("### On the host\n")[2].partition("### In the container\n")[0]
    blocks = [text for kind, text in FENCE.findall(on_the_host) if kind == "sh" and holds in text]
    assert len(blocks) == 1, f"{len(blocks)} programs with {holds}"
    return str(blocks[0])


def test_who_follows_readme_has_a_service_that_builds(system: Installed, machine: Machine) -> None:
    """It is installed already: the same commands install it again, as an upgrade would, and the daemon is its own."""
    unwanted = shutil.ignore_patterns(".*", "__pycache__", "dist")
    shutil.copytree(ROOT, machine.path("/var/source"), ignore=unwanted)
    try:
        installed = machine.output("sh", "-c", PRELUDE + block("make install"))
        assert "configuration is valid" in installed
        assert "active (" in installed.splitlines()[-1] or "active (listening)" in installed
        machine.output("sh", "-c", PRELUDE + block("usermod"))
        built = machine.output("sh", "-c", PRELUDE + block("build-cli make"), user=DEVELOPER)
        assert f"built by {DEVELOPER.name} in {DEVELOPER.home}/workspace/hello" in built
        assert "failure" not in built and "ok       command: /usr/bin/make, for at most 600 s" in built
    finally:
        shutil.rmtree(machine.path("/var/source"))
        shutil.rmtree(machine.path("/root/build-service"), ignore_errors=True)
