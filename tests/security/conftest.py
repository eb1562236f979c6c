"""What the tests of security share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.killing import quick
from tests.support.world import World


@pytest.fixture
def world(world: World) -> Iterator[World]:
    """A world whose commands are forked: many of them, and none of these tests is about how they start."""
    with quick(world) as made:
        yield made
