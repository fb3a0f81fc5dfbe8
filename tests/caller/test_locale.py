"""A build has the locale of its caller, and not the one that Python takes for itself."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from clients import makefile, told
from daemon import Service
from harness import BIN, run_as

RECIPE = "all:\n\t@env | grep -E '^(LC_|LANG)' | sort | tr '\\n' ' '\n"
LOCALES: Mapping[str, tuple[Mapping[str, str], str]] = {
    "C": ({"LANG": "C"}, "LANG=C "),
    "none": ({"LANG": ""}, "LANG= "),
    "POSIX": ({"LANG": "POSIX"}, "LANG=POSIX "),
    "one that is not there": ({"LANG": "xx_XX.UTF-8"}, "LANG=xx_XX.UTF-8 "),
    "characters of C": ({"LANG": "C", "LC_CTYPE": "C"}, "LANG=C LC_CTYPE=C "),
    "characters of UTF-8": ({"LANG": "C", "LC_CTYPE": "C.UTF-8"}, "LANG=C LC_CTYPE=C.UTF-8 "),
    "all of C": ({"LC_ALL": "C"}, "LANG=C.UTF-8 LC_ALL=C "),
}


@pytest.mark.parametrize("locale", LOCALES)
def test_it_is_what_the_caller_has(locale: str, one: Service) -> None:
    makefile(one, RECIPE)
    env, expected = LOCALES[locale]
    assert told(one.run("make", "-s", env=env)) == (expected, "", 0)


@pytest.mark.parametrize("locale", LOCALES)
def test_it_is_the_same_for_the_fallback(locale: str, one: Service) -> None:
    makefile(one, RECIPE)
    env, expected = LOCALES[locale]
    command = [BIN / "build-cli", "--socket", "/nonexistent", "--fallback", "/usr/bin/make", "make", "-s"]
    assert told(run_as(one.caller, command, one.workspace, env)) == (expected, "", 0)
