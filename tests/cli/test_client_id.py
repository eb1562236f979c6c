"""Another client_id with the real vault and partner: a candidate, consumers after its promotion, and the way back."""

import shlex
from pathlib import Path

import pytest

from tests.support.cli_harness import CliHarness
from tests.support.system import LOGIN

pytestmark = pytest.mark.slow


def new_id(harness: CliHarness, name: str = "reissued") -> str:
    """Return another client_id that the partner knows."""
    return harness.partner.registry.client_id(LOGIN, name)


def fetched(harness: CliHarness) -> str:
    """Return the client_id in a bundle."""
    harness.ok(f"bundle get acme/reporting --consumer-token-file {shlex.quote(harness.saved.token())} --to there")
    return Path(harness.home, "there/current/client_id").read_text()


def test_it_is_served_after_its_promotion(harness: CliHarness) -> None:
    harness.put("promoted")
    old, new = fetched(harness), new_id(harness)
    shown = harness.ok(f"app set acme/reporting --client-id {new} -o json")
    assert (shown.json["client_id"], shown.json["candidate"]) == (new, 2)
    assert "next: broker rotation promote acme" in shown.err
    assert fetched(harness) == old
    assert "client_id reporting" in harness.ok("rotation status acme").out
    assert "Changes:\n\n  client_id reporting\n" in harness.ok("explain acme").out
    harness.ok("rotation promote acme")
    assert fetched(harness) == new
    harness.ok("rotation rollback acme")
    assert fetched(harness) == old
    harness.ok("rotation promote acme --generation 2")
    assert fetched(harness) == new
    assert harness.ok("evidence verify acme").code == 0


def test_wrong_one_reaches_no_consumer(harness: CliHarness) -> None:
    harness.put("promoted")
    old = fetched(harness)
    harness.ok("app set acme/reporting --client-id 11111111-1111-4111-8111-111111111111")
    refused = harness.run("rotation promote acme")
    assert refused.code == 6
    assert "broker app set acme/reporting --client-id ID" in refused.err
    remedy = "broker app set acme/reporting --client-id ID; then: broker rotation promote acme"
    assert remedy in harness.ok("status acme -o json").json[0]["hint"]
    assert fetched(harness) == old
    assert not harness.account.application("reporting").rejected_at
    harness.ok(f"app set acme/reporting --client-id {old}")
    assert harness.ok("rotation promote acme").err.count("nothing to promote")


def test_each_one_of_two_is_asked(harness: CliHarness) -> None:
    """Two applications with new client_ids, joined: one that the partner does not know stops both."""
    harness.put("promoted")
    harness.ok(f"app add acme/tours --client-id {new_id(harness, 'tours')}")
    harness.ok(f"app set acme/reporting --client-id {new_id(harness)}")
    harness.ok("app set acme/tours --client-id unknown")
    refused = harness.run("rotation promote acme --generation 2 --generation 3")
    assert (refused.code, "broker app set acme/tours" in refused.err) == (6, True)
    harness.ok(f"app set acme/tours --client-id {new_id(harness, 'tours-again')}")
    harness.ok("rotation promote acme")
    assert harness.account.client_ids["tours"] == new_id(harness, "tours-again")
    assert harness.account.client_ids["reporting"] == new_id(harness)
