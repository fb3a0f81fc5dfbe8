"""Paths of a container in arguments and variables: what holds one is named, and nothing else."""

from __future__ import annotations

import pytest

from buildcore.core.leftpaths import MAX_NAME_CHARS, MOST_NAMES, names_of

HERE, THERE = "/workspaces/app", "/home/dev1/workspace/app"


@pytest.mark.parametrize(
    ("arg", "name"),
    [
        (f"DESTDIR={HERE}/dest", "DESTDIR"),
        (f"DESTDIR={HERE}", "DESTDIR"),
        (f"-DCMAKE_INSTALL_PREFIX={HERE}", "-DCMAKE_INSTALL_PREFIX"),
        (f"-DCMAKE_INSTALL_PREFIX:PATH={HERE}/x", "-DCMAKE_INSTALL_PREFIX:PATH"),
        (f"CFLAGS=-g -I{HERE}/include", "CFLAGS"),
        (f"CFLAGS=-isystem {HERE}/include", "CFLAGS"),
        (f'LDFLAGS=-L"{HERE}/lib"', "LDFLAGS"),
        (f"LDFLAGS=-Wl,-rpath,{HERE}/lib", "LDFLAGS"),
        (f"P=/usr/bin:{HERE}", "P"),
        (f"P={HERE}:/usr/bin", "P"),
        (f"{HERE}/target", f"{HERE}/target"),
        (f"--prefix={HERE}", "--prefix"),
    ],
)
def test_what_holds_one_is_named(arg: str, name: str) -> None:
    assert names_of(HERE, THERE, [arg], {}) == (name,)
    assert names_of(HERE, THERE, [], {"V": arg}) == ("V",)


@pytest.mark.parametrize(
    "arg", ["", "x", f"{HERE}lication", f"A=/other{HERE}", f"A={HERE}-2/x", f"A=.{HERE}", "A=/workspaces", f"A={THERE}"]
)
def test_another_path_is_none(arg: str) -> None:
    assert names_of(HERE, THERE, [arg], {"V": arg}) == ()


def test_the_host_s_own_names_below_the_container_s_root_are_none() -> None:
    args = ["A=/h/d/ws/x", "B=/h/d/ws", "C=/h/d/wss", "D=/h/d", "E=/h/d/x", "F=/h/dd"]
    assert names_of("/h/d", "/h/d/ws", args, {}) == ("C", "D", "E")


@pytest.mark.parametrize("root", ["/", THERE, THERE + "/"])
def test_where_both_sides_have_the_same_names_nothing_is_left(root: str) -> None:
    assert names_of(root, THERE if root != "/" else "/x", [f"A={THERE}", "B=/"], {}) == ()


def test_there_are_only_so_many_and_so_long() -> None:
    args = [f"N{number}={HERE}" for number in range(100)] + ["x" * 5000 + f"={HERE}"]
    assert names_of(HERE, THERE, args, {}) == tuple(f"N{number}" for number in range(MOST_NAMES))
    assert names_of(HERE, THERE, args[-1:] * 2, {}) == ("x" * MAX_NAME_CHARS,)
