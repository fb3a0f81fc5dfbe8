"""The tools that are known by name: where they take a project from, and build it, is held under the workspace."""

from __future__ import annotations

from pathlib import Path

import pytest

from buildcore.system.paths import PathError, close_all, enter, hold_arguments

STAY = (
    "ctest --test-dir build", "ctest -S ../app/s.cmake,../../..", "ctest --test-command -S /etc/s.cmake",
    "meson setup build .", "meson compile -C build", "meson install -C build --destdir /opt",
    "cargo build --manifest-path Cargo.toml", "cargo -C build build --target-dir ../target", "cargo run x --path /etc",
    "go build -C build -o ../x ../...", "go run . /etc", "npm --prefix build ci --cache /c", "npm ci -- -C /etc",
    "bazel --bazelrc=/dev/null build //x --disk_cache=/var/cache", "bazelisk run //x -- --profile /etc/p",
)
LEAVE = {
    "ctest --test-dir ../../out": "--test-dir", "ctest -N -S /etc/s.cmake,x": "-S", "ctest -SP link/s.cmake": "-SP",
    "ctest --build-and-test . ../../out": "--build-and-test", "ctest -O /o.log": "-O",
    "meson setup build ../../out": "PATH", "meson link": "PATH", "meson compile -vC link": "-C",
    "meson test -C=/": "-C", "meson devenv -C build -w /": "--workdir",
    "cargo build --manifest-path=../../out/Cargo.toml": "--manifest-path", "cargo -Clink build": "-C",
    "cargo -C build build --target-dir ../../../t": "--target-dir", "cargo --config /c.toml b": "--config",
    "cargo new --bin link/x": "PATH",
    "go build -C link": "-C", "go -C build build -modfile ../../../go.mod": "-modfile", "go build -o /x": "-o",
    "go vet ../../out/...": "PATH", "go work use link": "PATH",
    "npm ci -C link": "--prefix", "npm --prefi=/ ci": "--prefix", "npm --userconfig /rc ci": "--userconfig",
    "bazel --output_base=/o build": "--output_base", "bazelisk --bazelrc link/rc build": "--bazelrc",
    "bazel build //x --symlink_prefix=/s/": "--symlink_prefix",
}


@pytest.fixture
def app(tmp_path: Path) -> Path:
    app = tmp_path / "workspace/app"
    (app / "build").mkdir(parents=True)
    (tmp_path / "out").mkdir()
    (app / "link").symlink_to(tmp_path / "out")
    return app


def hold(line: str, app: Path) -> None:
    root, cwd, _ = enter(str(app.parent), [str(app)])
    try:
        command, *args = line.split()
        hold_arguments(command, args, cwd, root)
    finally:
        close_all([root, cwd])


@pytest.mark.parametrize("line", STAY)
def test_what_stays_in_the_workspace_or_may_lie_outside_is_let_through(line: str, app: Path) -> None:
    hold(line, app)


@pytest.mark.parametrize("line", LEAVE)
def test_what_leads_out_of_the_workspace_is_refused_by_the_option_s_name(line: str, app: Path) -> None:
    with pytest.raises(PathError, match=f"^{LEAVE[line]} must be under workspace: "):
        hold(line, app)
