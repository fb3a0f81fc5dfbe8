"""Fixtures of the tests of the caller's side."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing

import pytest

from daemon import Service
from fake_server import FakeServer
from harness_world import inside

StartService = Callable[..., Service]


@pytest.fixture
def one(start_service: StartService) -> Service:
    """A service, in one flavour: for what the client does alone."""
    return start_service("root" if inside() else "user")


@pytest.fixture
def fake() -> Iterator[FakeServer]:
    with closing(FakeServer()) as server:
        yield server
