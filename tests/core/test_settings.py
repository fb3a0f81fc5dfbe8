"""Settings are values, and their templates give the paths of an account or refuse."""

from __future__ import annotations

import dataclasses
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from buildcore.core.faults import ConfigError
from buildcore.core.settings import PLACEHOLDERS, PathMapping, Settings, TemplateError, expand_template
from buildcore.system.config import parse
from configuration import SHIPPED

# --- settings are values ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("settings", [Settings(), parse('build.environment.set = { LANG = "C" }')])
def test_settings_cannot_be_changed(settings: Settings) -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        settings.build.groups = "login"  # type: ignore[misc]
    with pytest.raises(TypeError):
        settings.build.commands["sh"] = "/bin/sh"  # type: ignore[index]
    with pytest.raises(TypeError):
        settings.build.environment.set["LANG"] = "de"  # type: ignore[index]


def test_equal_settings_have_equal_hashes() -> None:
    assert hash(parse("")) == hash(Settings())


# --- templates ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("template", "path"),
    [
        ("{workspace_root}/{user}/workspace", "/home/dev1/workspace"),
        ("/home/{user}", "/home/dev1"),
        ("{home}", "/export/dev1"),
        ("/{user}/{user}", "/dev1/dev1"),
        ("/a//b/./{user}/", "/a/b/dev1"),
        ("/workspace", "/workspace"),
    ],
)
def test_a_template_gives_the_path_of_an_account(template: str, path: str) -> None:
    assert expand_template(template, "dev1", "/export/dev1", "/home") == path


def test_the_mount_of_the_requirement_maps_the_container_s_home_to_the_workspace() -> None:
    """podman run -v "$HOME/workspace:$HOME", with the line that etc/config.toml shows for it."""
    lines = SHIPPED.read_text(encoding="utf-8").splitlines()
    (line,) = [line.lstrip("# ") for line in lines if line.startswith("#     container_template")]
    mapping = parse(f"[build.path_mapping]\n{line}").build.path_mapping
    assert mapping.container_root("dev1", "/home/dev1", "/home") == "/home/dev1"
    assert mapping.host_root("dev1", "/home/dev1", "/home") == "/home/dev1/workspace"


def test_a_workspace_root_that_is_the_root_directory_gives_no_double_slash() -> None:
    assert PathMapping().host_root("dev1", "/home/dev1", "/") == "/dev1/workspace"


def test_what_stands_in_a_name_is_not_expanded_again() -> None:
    assert expand_template("/w/{user}", "{home}", "/secret", "/home") == "/w/{home}"


@pytest.mark.parametrize("user", ["", ".", "..", "a/b", "../root"])
def test_an_account_whose_name_is_no_single_component_gets_no_path(user: str) -> None:
    with pytest.raises(TemplateError, match="cannot be part of a workspace path"):
        PathMapping().host_root(user, "/home/dev1", "/home")


@pytest.mark.parametrize("home", ["", "home/dev1"])
def test_an_account_without_an_absolute_home_gets_no_path_below_it(home: str) -> None:
    with pytest.raises(TemplateError, match="no absolute home directory"):
        expand_template("{home}/workspace", "dev1", home, "/home")


NAMES = st.text(max_size=8) | st.sampled_from(["{home}", "{user}", "{0.__class__}", "..", "a/b"])
PIECES = ["/", "x", ".", "{", "}", "{x}", "{user.__class__}", *("{%s}" % name for name in PLACEHOLDERS)]
TEMPLATES = st.lists(st.sampled_from(PIECES))


@given(TEMPLATES.map("".join), NAMES, NAMES.map("/".__add__) | NAMES, NAMES.map("/".__add__))
def test_a_template_that_the_file_may_hold_gives_a_tidy_absolute_path_or_a_refusal(
    template: str, user: str, home: str, root: str
) -> None:
    try:
        path = parse(f"build.path_mapping.container_template = {json.dumps(template)}").build.path_mapping
    except ConfigError:
        return
    try:
        expanded = path.container_root(user, home, root)
    except TemplateError:
        return
    assert expanded.startswith("/")
    assert "//" not in expanded
    assert expanded == "/" or not expanded.endswith("/")
