"""A mount that is not set up."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from broker.copies import replace
from broker.embedded.up import Embedded
from broker.vault.connection import Connection
from broker.vault.logins import FixedToken
from tests.support.vault import token_of


@pytest.fixture
def bare(vault_server: tuple[Embedded, Connection], request: pytest.FixtureRequest) -> Iterator[Connection]:
    """A connection with all rights, for a mount that is not set up."""
    _, admin = vault_server
    mount = f"bare-{abs(hash(request.node.nodeid))}"
    connection = Connection(replace(admin.settings, mount=mount), FixedToken(token_of(admin)))
    yield connection
    connection.call("DELETE", f"sys/mounts/{mount}")
    connection.call("DELETE", f"sys/auth/{mount}")
    connection.close()
