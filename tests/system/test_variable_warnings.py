"""A pattern in the configuration that lets in what loads code is warned of, and a name in full is not."""

from __future__ import annotations

import pytest

from buildcore.system import config


def warnings(allow: str) -> list[str]:
    settings = config.parse(f'build.environment.allow = ["CC", "{allow}"]')
    return [line for line in config.warnings(settings) if line.startswith("build.environment.")]


def test_a_pattern_that_lets_in_what_loads_code_is_warned_of_with_the_names() -> None:
    line = "lets in what loads code into tools: LD_AUDIT, LD_LIBRARY_PATH, LD_PRELOAD"
    assert warnings("LD_*") == [f"build.environment.allow: LD_* {line}"]


@pytest.mark.parametrize("allow", ["LD_LIBRARY_PATH", "PYTHONPATH", "LC_*", "KBUILD_*"])
def test_a_name_in_full_and_any_other_pattern_are_not(allow: str) -> None:
    assert warnings(allow) == []
