"""Which names a list allows: those of the requirement and of builds by custom, patterns, and none that loads code."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from buildcore.caller import client
from buildcore.core import policy, variables
from buildcore.core.faults import ConfigError
from buildcore.core.protocol.requests import Request
from buildcore.core.settings import Build, Environment
from buildcore.core.variables import allowed, is_name, is_pattern
from buildcore.system import config

CALLER = policy.Caller("dev1", "/home/dev1", "/bin/bash")
DEFAULT = Environment().allow

OF_THE_REQUIREMENT = "PATH HOME USER LANG CC CXX CFLAGS CXXFLAGS LDFLAGS PKG_CONFIG_PATH MAKEFLAGS".split()
CONVENTIONAL = (
    "AR AS LD NM OBJCOPY OBJDUMP RANLIB STRIP CPP CPPFLAGS LDLIBS LIBS ARCH CROSS_COMPILE V W DESTDIR TZ"
    " SOURCE_DATE_EPOCH TERM NO_COLOR CLICOLOR_FORCE GCC_COLORS NINJA_STATUS GNUMAKEFLAGS MAKEFILES CI PWD"
    " KBUILD_OUTPUT KBUILD_BUILD_USER LC_ALL LC_CTYPE CMAKE_GENERATOR CMAKE_BUILD_PARALLEL_LEVEL"
    " CTEST_OUTPUT_ON_FAILURE CCACHE_DIR CCACHE_DISABLE"
).split()


def planned(env: dict[str, str], inherited: dict[str, str] | None = None, **settings: Any) -> policy.Plan:
    build = Build(environment=Environment(**settings))
    return policy.plan(Request("make", (), "/home/dev1/workspace", env=env), build, CALLER, inherited or {})


def left_out(env: dict[str, str], has_pwd: bool = True, **settings: Any) -> tuple[str, ...]:
    return policy.left_out(planned(env, **settings), Request("make", env=env), has_pwd)


# --- the default ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", OF_THE_REQUIREMENT + CONVENTIONAL)
def test_a_name_of_the_requirement_or_by_custom_is_allowed_by_default(name: str) -> None:
    assert allowed(DEFAULT, [name]) == [name]


@pytest.mark.parametrize("name", variables.LOADERS)
def test_what_loads_code_is_neither_allowed_by_default_nor_sent(name: str) -> None:
    assert allowed(DEFAULT, [name]) == []
    assert client.forwarded({name: "x"}) == {}


@pytest.mark.parametrize("name", "LD_LIBRARY_PATH BASH_ENV ENV PYTHONPATH PERL5LIB RUBYOPT GCONV_PATH".split())
def test_the_loaders_of_code_are_known(name: str) -> None:
    assert name in variables.LOADERS


def test_the_default_has_no_name_twice_and_none_that_one_of_its_patterns_has() -> None:
    assert len(set(DEFAULT)) == len(DEFAULT)
    patterns = tuple(name for name in DEFAULT if is_pattern(name))
    assert allowed(patterns, [name for name in DEFAULT if is_name(name)]) == []
    assert all(is_name(name) or is_pattern(name) for name in DEFAULT)


def test_the_client_sends_what_the_service_allows_by_default_but_for_the_account_s() -> None:
    assert set(DEFAULT) - client.FORWARDED_NAMES == {"PATH", "HOME", "USER"}
    assert client.FORWARDED_NAMES - set(DEFAULT) == {"JAVA_HOME"}
    sent = dict.fromkeys([*OF_THE_REQUIREMENT, *CONVENTIONAL, "SECRET", "KBUILD", "LC"], "x")
    assert set(sent) - set(client.forwarded(sent)) == {"PATH", "HOME", "USER", "SECRET", "KBUILD", "LC"}


# --- patterns ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["KBUILD_*", "_*", "A1_B_*", "a_*"])
def test_a_beginning_that_ends_in_an_underscore_and_a_star_is_a_pattern(text: str) -> None:
    assert config.parse(f'build.environment.allow = ["{text}"]').build.environment.allow == (text,)


@pytest.mark.parametrize(
    "text", ["*", "A*B", "A*", "MAKE*", "*_A", "A_**", "A_*_*", "1A_*", "A-_*", " A_*", "A_* ", "Ä_*"]
)
def test_anything_else_with_a_star_is_a_fault_that_says_what_a_pattern_is(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        config.parse(f'build.environment.allow = ["CC", "{text}"]', "file")
    (fault,) = caught.value.faults
    assert fault.startswith("file: build.environment.allow: ") and text.strip() in fault
    assert fault.endswith(" is no pattern: one is the beginning of a name and _*, such as KBUILD_*")


def test_a_pattern_that_stands_there_twice_is_a_fault() -> None:
    with pytest.raises(ConfigError, match=r"'LC_\*' stands there twice"):
        config.parse('build.environment.allow = ["LC_*", "LC_ALL", "LC_*"]')


def test_a_pattern_matches_by_the_beginning_in_its_own_case() -> None:
    names = ["KBUILD_X", "KBUILD_", "KBUILD", "kbuild_x", "XKBUILD_X", "KBUILD_*"]
    assert allowed(("KBUILD_*",), names) == ["KBUILD_X", "KBUILD_"]


@pytest.mark.parametrize("name", ["LC_A=B", "LC_A\n", "LC_A%%", "LC_\udcff", "LC_*", "LC_é", "LC_ ", ""])
def test_what_is_no_name_matches_nothing(name: str) -> None:
    assert allowed(("LC_*", name), [name]) == []
    assert name not in planned({name: "x"}, allow=("LC_*",)).environment


@given(st.lists(st.text(st.sampled_from("AB_*=1"))), st.lists(st.text(st.sampled_from("AB_*=1"))))
def test_what_is_allowed_is_a_name_that_stands_there_or_begins_as_a_pattern_does(
    allow: list[str], names: list[str]
) -> None:
    listed = [each for each in allow if is_name(each) or is_pattern(each)]
    found = allowed(listed, names)
    assert found == [name for name in names if name in found]
    for name in names:
        patterns = [each for each in listed if is_pattern(each) and name.startswith(each[:-1])]
        assert (name in found) == (is_name(name) and (name in listed or bool(patterns)))


def test_a_pattern_gives_away_nothing_of_the_service_s_own_environment() -> None:
    inherited = {"CCACHE_SECRET": "x", "CCACHE_DIR": "/service"}
    plan = planned({"CCACHE_SIZE": "1"}, inherited, allow=("CCACHE_*", "CCACHE_DIR"))
    assert plan.environment == {"CCACHE_SIZE": "1", "CCACHE_DIR": "/service"}


@pytest.mark.parametrize("name", ["MAKEFLAGS", "GNUMAKEFLAGS"])
@pytest.mark.parametrize("value", ["-C /etc", "-f /etc/x.mk", "k -- MAKEFILES=/etc/x.mk", "$(shell id)"])
def test_make_s_own_flags_lead_nowhere_by_default(name: str, value: str) -> None:
    with pytest.raises(policy.PolicyError, match=name):
        planned({name: value})


def test_by_default_makefiles_are_held() -> None:
    assert planned({"MAKEFILES": "/etc/x.mk"}).makefiles == "/etc/x.mk"


# --- what is left out -------------------------------------------------------------------------------------------------


def test_what_was_sent_and_is_not_allowed_is_left_out() -> None:
    assert left_out({"CC": "gcc", "MINE": "1", "LD_PRELOAD": "x", "LC_A=B": "x"}) == ("LC_A=B", "LD_PRELOAD", "MINE")
    assert left_out({"CC": "gcc", "MAKEFLAGS": "-j4 --jobserver-auth=3,4", "LC_ALL": "C"}) == ()
    assert left_out({}) == ()


def test_what_the_service_has_its_own_of_is_left_out_unless_it_is_the_same() -> None:
    assert left_out({"PATH": "/x", "HOME": "/home/dev1", "USER": "root"}) == ("PATH", "USER")
    assert left_out({"CC": "gcc", "CXX": "g++"}, set={"CC": "clang", "CXX": "g++"}) == ("CC",)


def test_make_s_own_variables_are_left_out_where_they_say_something_and_are_not_allowed() -> None:
    said = {"MAKEFLAGS": "-k", "MAKEFILES": "x.mk", "GNUMAKEFLAGS": "", "PWD": "/x"}
    assert left_out(said, allow=("CC",)) == ("MAKEFILES", "MAKEFLAGS", "PWD")
    assert left_out({"MAKEFLAGS": " ", "CFLAGS": ""}, allow=("CC",)) == ("CFLAGS",)


def test_a_pwd_that_leads_elsewhere_is_left_out() -> None:
    assert left_out({"PWD": "/x"}) == ()
    assert left_out({"PWD": "/x"}, has_pwd=False) == ("PWD",)
    assert left_out({"PWD": ""}, has_pwd=False) == ()


def test_the_names_that_are_told_are_bounded() -> None:
    told = left_out({f"X{number:05}": "" for number in range(10_000)})
    assert told == tuple(f"X{number:05}" for number in range(policy.MAX_LEFT_OUT_CHARS // 6))
    assert left_out({"A": "", "X" * (policy.MAX_LEFT_OUT_CHARS + 1): ""}) == ("A",)


@pytest.mark.parametrize("pwd", ["", "relative", "/a/../b", "/a/./b", "/..", "/."])
def test_a_pwd_that_no_shell_would_go_by_is_not_looked_at(pwd: str) -> None:
    assert planned({"PWD": pwd}).pwd is None


def test_a_pwd_is_the_caller_s_where_it_may_send_one() -> None:
    assert planned({"PWD": "/home/dev1/link"}).pwd == "/home/dev1/link"
    assert planned({"PWD": "/x"}, allow=("CC",)).pwd is None
    assert planned({"PWD": "/x"}, set={"PWD": "/y"}).pwd is None
