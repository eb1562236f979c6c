"""Accounts that exist already: imported whole or piece by piece, from wherever their sets lie."""

from __future__ import annotations

import pytest

from tests.support.cli_harness import CliHarness
from tests.support.outside import OutsideSet

pytestmark = pytest.mark.slow

NEW = "--environment stand-in --base-url {url} --yes"


def new(harness: CliHarness) -> str:
    return NEW.format(url=harness.partner.api_url) + f" {accepting(harness)}"


def accepting(harness: CliHarness) -> str:
    return " ".join(harness.saved.system.accepting())


@pytest.fixture
def outside(harness: CliHarness) -> OutsideSet:
    harness.put("empty")
    return harness.saved.outside


def test_a_whole_set_becomes_current(harness: CliHarness, outside: OutsideSet) -> None:
    done = harness.ok(
        f"account import acme outside.zip {new(harness)} --client-id-for reporting --held-by web-1 -o json"
    )
    assert (done.json["generation"], done.json["stage"], done.json["new"]) == (1, "current", True)
    assert done.json["left_behind"] == [{"place": "outside.zip", "removal": "shred -u outside.zip"}]
    account = harness.account
    assert account.login == "MZP0000001"
    assert str(account.subject).startswith("C=FR, ST=Ile-de-France, L=Paris, O=Société Exemple, OU=Programs Partners")
    assert account.requests[0].imported
    assert account.requests[0].held_by == ("web-1",)
    assert account.applications[0].client_id == outside.client_id
    assert harness.ok("evidence verify acme").code == 0
    entries = harness.ok("evidence show acme -o json").json
    (drafted,) = [e for e in entries if e["what"] == "request-drafted"]
    assert drafted["facts"]["origin"] == "imported, known outside"


def test_twice_changes_nothing(harness: CliHarness, outside: OutsideSet) -> None:
    line = f"account import acme outside.zip {new(harness)} --client-id-for reporting --held-by web-1"
    harness.ok(line)
    before = harness.look().documents
    again = harness.ok(line)
    assert "nothing was left to do" in again.err
    assert harness.look().documents == before
    assert harness.ok(f"{line} --dry-run -o json").json["steps"] == []
