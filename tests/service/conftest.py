"""Fixtures of the tests of the service."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from daemon import Daemon


@pytest.fixture
def daemon() -> Iterator[Daemon]:
    """A daemon that is set up and not started; whoever runs the tests is its user."""
    built = Daemon()
    yield built
    built.kill()
    built.remove()
