"""The packages of this version, made once for all tests of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from packages.building import Packages, build, copy_of_the_sources


@pytest.fixture(scope="session")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return copy_of_the_sources(tmp_path_factory.mktemp("packages") / "tree")


@pytest.fixture(scope="session")
def rpms(tree: Path) -> Packages:
    return build("rpm", tree)


@pytest.fixture(scope="session")
def debs(tree: Path) -> Packages:
    return build("deb", tree)


@pytest.fixture(scope="module", params=["rpm", "deb"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def both(kind: str, request: pytest.FixtureRequest) -> Packages:
    """The packages of this version, of either kind."""
    found: Packages = request.getfixturevalue(f"{kind}s")
    return found
