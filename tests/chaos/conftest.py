"""Fixtures of the tests that kill commands: a place to run them, and each one's run without faults."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.chaos.kill_harness import Calm, Ground, ground
from tests.support.catalogue import Case


@pytest.fixture(scope="module")
def field(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    with ground(tmp_path_factory.mktemp("field")) as made:
        yield made


@pytest.fixture(scope="module")
def calm(field: Ground) -> Callable[[Case], Calm]:
    """A command's run without faults."""
    found: dict[str, Calm] = {}

    def of(command: Case) -> Calm:
        if command.name not in found:
            found[command.name] = field.calm(command)
        return found[command.name]

    return of
