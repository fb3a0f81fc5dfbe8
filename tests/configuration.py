"""What the tests of the configuration share: the faults of a text, and values of each kind that TOML has."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from buildcore.core.faults import ConfigError
from buildcore.core.settings import Settings
from buildcore.system.config import parse
from harness_world import ROOT

SHIPPED = ROOT / "etc" / "config.toml"

NO_VARIABLES: Mapping[str, str] = {}

LITERALS = {
    "string": '"text"',
    "integer": "7",
    "float": "7.5",
    "boolean": "true",
    "date": "2026-01-14",
    "list": "[[]]",
    "table": "{ inner = {} }",
}
"""A value of each kind that TOML has."""


def faults_of(text: str, environ: Mapping[str, str] = NO_VARIABLES) -> tuple[str, ...]:
    """The faults of a text; there has to be one."""
    with pytest.raises(ConfigError) as caught:
        parse(text, "file", environ)
    return caught.value.faults


def the_fault(text: str) -> str:
    faults = faults_of(text)
    assert len(faults) == 1, faults
    return faults[0]


def value_at(settings: object, key: str) -> object:
    for name in key.split("."):
        settings = getattr(settings, name)
    return settings


def kind_in_file(key: str) -> str:
    if key == "service.socket_mode":
        return "string"  # octal
    value = value_at(Settings(), key)
    kinds = {bool: "boolean", int: "integer", str: "string", tuple: "list"}
    return kinds.get(type(value), "table")


def is_one_line(text: str) -> bool:
    return text.isprintable() and text != ""
