"""A lab for the whole worker, and a shop in it: a place where commands are tried and what they leave is looked at."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from broker.embedded.up import Embedded
from broker.standin import Standin
from broker.vault.connection import Connection
from tests.support.lab import Lab, built
from tests.support.shop import Shop
from tests.support.vault import mounted
from tests.support.world import LOGIN, PASSWORD, made_world


@pytest.fixture(scope="session")
def lab(vault_server: tuple[Embedded, Connection]) -> Iterator[Lab]:
    with (
        tempfile.TemporaryDirectory(prefix="broker-partner-") as directory,
        mounted(vault_server) as vault,
        Standin(Path(directory) / "partner", accounts={LOGIN: PASSWORD}) as partner,
        made_world(vault, partner) as world,
        built(world) as made,
    ):
        yield made


@pytest.fixture(scope="session")
def whole_shop(lab: Lab) -> Shop:
    return Shop(lab)


@pytest.fixture
def shop(whole_shop: Shop) -> Iterator[Shop]:
    """A shop in no state yet: `put` it in one."""
    yield whole_shop
    whole_shop.tidy()
