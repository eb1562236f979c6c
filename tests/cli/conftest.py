"""Saved states for the whole worker, and a harness to try commands in and look at what they leave."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from partner_standin import Standin

from broker.embedded.up import Embedded
from broker.vault.connection import Connection
from tests.support.cli_harness import CliHarness
from tests.support.printed_run import PrintedRuns
from tests.support.saved_states import SavedStates
from tests.support.system import LOGIN, PASSWORD, made_system
from tests.support.vault import mounted


@pytest.fixture(scope="session")
def saved(vault_server: tuple[Embedded, Connection]) -> Iterator[SavedStates]:
    with (
        tempfile.TemporaryDirectory(prefix="broker-partner-") as directory,
        mounted(vault_server) as vault,
        Standin(Path(directory) / "partner", accounts={LOGIN: PASSWORD}) as partner,
        made_system(vault, partner) as system,
    ):
        yield SavedStates(system)


@pytest.fixture(scope="session")
def whole_shop(saved: SavedStates) -> CliHarness:
    return CliHarness(saved)


@pytest.fixture(scope="session")
def printed_runs(whole_shop: CliHarness) -> PrintedRuns:
    """Runs what commands print; a command that was run in a state is not run in it again."""
    return PrintedRuns(whole_shop)


@pytest.fixture
def harness(whole_shop: CliHarness) -> Iterator[CliHarness]:
    """A harness in no state yet: `put` it in one."""
    yield whole_shop
    whole_shop.tidy()
