"""One partner for the room; each test finds it without faults."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from partner_standin import Standin

from broker.model.bundle import Bundle
from tests.support.credential_sets import LOGIN, PASSWORD, bundle_of


@pytest.fixture(scope="session")
def _running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Standin, Bundle]]:
    directory: Path = tmp_path_factory.mktemp("partner")
    with Standin(directory, accounts={LOGIN: PASSWORD}) as partner:
        yield partner, bundle_of(partner)
        assert not partner.crashes


@pytest.fixture
def partner(_running: tuple[Standin, Bundle]) -> Iterator[Standin]:
    yield _running[0]
    _running[0].faults.clear()


@pytest.fixture(scope="session")
def partner_forever(_running: tuple[Standin, Bundle]) -> Standin:
    return _running[0]


@pytest.fixture(scope="session")
def bundle(_running: tuple[Standin, Bundle]) -> Bundle:
    return _running[1]
