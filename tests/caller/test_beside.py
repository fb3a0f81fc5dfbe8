"""With a fallback the container's own tool runs where the service says, before anything ran, that it is not for it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from clients import makefile, told
from daemon import Service
from harness import BIN, SYSTEM_PATH, TREE, run_as, write_tree
from wire import RawCaller

FALLBACK = ("--fallback", "/bin/echo")


def test_a_directory_beside_the_workspace_is_built_in_here(one: Service) -> None:
    done = one.run(*FALLBACK, "make", "all", cwd=Path("/"))
    told_why = f"cwd must be under workspace: / is not under {one.workspace.resolve()}; running /bin/echo here\n"
    assert told(done) == ("all\n", told_why, 0)
    assert told(one.run("make", "all", cwd=Path("/")))[0] == ""


def test_a_command_that_is_not_allowed_runs_here(one: Service) -> None:
    done = one.run(*FALLBACK, "rm", "-x")
    assert (done.stdout, done.returncode) == ("-x\n", 0)
    assert done.stderr.startswith("command not allowed: rm (allowed: ") and done.stderr.count("\n") == 1


@pytest.mark.parametrize("args", [("-f", "/etc/passwd"), ("-C", "/")], ids=" ".join)
def test_another_refusal_stays_one(args: Sequence[str], one: Service) -> None:
    makefile(one, "all:\n\t@echo built\n")
    done = one.run(*FALLBACK, "make", *args)
    assert (done.stdout, done.returncode) == ("", 1)
    assert done.stderr.startswith(f"{args[0]} must be under workspace: ")


def test_what_ran_is_not_run_again(one: Service) -> None:
    makefile(one, "all:\n\t@echo ran; exit 1\n")
    done = one.run(*FALLBACK, "make", "-s")
    assert (done.stdout, done.returncode) == ("ran\n", 2)


def test_what_is_to_be_read_is_still_there(one: Service) -> None:
    done = one.run("--fallback", "/bin/cat", "make", cwd=Path("/"), input=b"all of it\n")
    assert (done.stdout, done.returncode) == ("all of it\n", 0)


def test_events_say_so_and_leave_out_the_line_where_that_is_asked_for(one: Service) -> None:
    with RawCaller(one) as caller:
        exit_ = caller.ask(cwd="/", features=["beside"]).exit()
        assert exit_["error"]["beside"] is True and exit_["error"]["kind"] == "path"
        assert caller.text() == ""
    with RawCaller(one) as caller:
        exit_ = caller.ask(cwd="/", features=[]).exit()
        assert exit_["error"]["beside"] is True
        assert caller.text() == exit_["error"]["message"] + "\n"
    with RawCaller(one) as caller:
        exit_ = caller.ask("-f", "/etc/passwd", features=["beside"]).exit()
        assert "beside" not in exit_["error"] and caller.text().startswith("-f must")


def image(directory: Path, *names: str) -> Path:
    """A directory for PATH with the wrapper, `names` of the client's, and a make of its own, but no Python."""
    write_tree(directory / "tools", {"make": "#!/bin/sh\necho own: \"$@\"\n"})
    (directory / "bin").mkdir()
    (directory / "bin/make").symlink_to(TREE / "bin/make-wrapper.sh")
    for name in names:
        (directory / "bin" / name).symlink_to(BIN / name)
    for name in ("sh", "cat"):
        (directory / "tools" / name).symlink_to(f"/bin/{name}")
    return directory


@pytest.mark.parametrize("names", [("build-cli",), ()], ids=["with the client", "without"])
@pytest.mark.parametrize("fallback", ["local", ""])
def test_an_image_without_python_has_its_own_tool(
    names: Sequence[str], fallback: str, tmp_path: Path, one: Service
) -> None:
    if Path("/usr/libexec/platform-python").exists():
        pytest.skip("this machine always has a Python")
    root = image(one.daemon.directory / "image", *names)
    env = {"PATH": f"{root}/bin:{root}/tools", "BUILD_SERVICE_FALLBACK": fallback}
    done = run_as(one.caller, [f"{root}/bin/make", "a b", "c"], "/", env)
    if fallback:
        assert told(done) == ("own: a b c\n", "", 0)
    else:
        assert done.stdout == "" and done.returncode in (1, 127) and SYSTEM_PATH not in done.stderr


def test_no_file_is_what_it_is(one: Service) -> None:
    done = one.run("make", "-f", "/dev/null")
    assert told(done) == ("", "make: *** No targets.  Stop.\n", 2)
