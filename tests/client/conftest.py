"""One partner for the room, and a published bundle; each test finds them without faults."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from partner_standin import Standin

from broker.client import following
from broker.model.bundle import Bundle
from tests.support.credential_sets import LOGIN, PASSWORD, bundle_of, publish
from tests.support.keeping import Keeping
from tests.support.sessions import OPENED, Calls


@pytest.fixture(scope="session")
def _running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Standin, Bundle]]:
    with Standin(tmp_path_factory.mktemp("partner"), accounts={LOGIN: PASSWORD}) as partner:
        yield partner, bundle_of(partner)


@pytest.fixture
def partner(_running: tuple[Standin, Bundle]) -> Iterator[Standin]:
    yield _running[0]
    _running[0].faults.clear()
    _running[0].registry.set_password(LOGIN, PASSWORD)


@pytest.fixture
def bundle(_running: tuple[Standin, Bundle]) -> Bundle:
    return _running[1]


@pytest.fixture
def root(bundle: Bundle, tmp_path: Path) -> Path:
    publish(tmp_path / "bundle", bundle)
    return tmp_path / "bundle"


@pytest.fixture
def checks_always(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following, "CHECK_EVERY", 0.0)


@pytest.fixture
def checks_never(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following, "CHECK_EVERY", 3600.0)


@pytest.fixture(params=OPENED)
def opened(request: pytest.FixtureRequest) -> Callable[..., AbstractContextManager[Calls]]:
    """Open a session of each library."""
    return OPENED[request.param]


@pytest.fixture
def server(partner: Standin) -> Iterator[Keeping]:
    """Yield a partner that keeps connections."""
    with Keeping(partner) as made:
        yield made
