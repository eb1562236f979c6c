"""CAs that verify the partner's server: accepted by fingerprint, tried before consumers get them."""

from __future__ import annotations

import json

import pytest

from broker.pki.certificates import ca_set
from tests.support.cli_harness import CliHarness

pytestmark = pytest.mark.slow


def test_new_ca_counts_once_it_is_promoted(harness: CliHarness) -> None:
    harness.put("promoted")
    both = f"--accept-ca {harness.cas['issuing']} --accept-ca {harness.cas['server']}"
    before = harness.account.current
    assert before
    said = harness.ok(f"trust set acme reply.zip {both}").err
    assert "2 CAs" in said
    assert "candidate 2 uses them" in said
    assert harness.account.generation(1) == before
    harness.ok("rotation promote acme --generation 2")
    current = harness.account.current
    assert current
    assert current.parts.trust == harness.account.trust != before.parts.trust
    harness.ok("evidence verify acme")


def test_repeated_command_changes_nothing(harness: CliHarness) -> None:
    harness.put("promoted")
    line = f"trust set acme reply.zip --replace --accept-ca {harness.cas['issuing']} -o json"
    first = json.loads(harness.ok(line).out)
    once = harness.account
    assert first == {"account": "acme", "fingerprints": [harness.cas["issuing"]], "candidate": 2}
    assert json.loads(harness.ok(line).out) == first
    assert harness.account == once


def test_wrong_server_ca_is_not_promoted(harness: CliHarness) -> None:
    harness.put("promoted")
    harness.ok(f"trust set acme reply.zip --replace --accept-ca {harness.cas['issuing']}")
    refused = harness.run("rotation promote acme --generation 2")
    assert refused.code == 6
    assert "wrong_ca" in refused.err
    assert harness.account.current
    assert harness.account.current.number == 1


def test_old_and_new_cas_overlap(harness: CliHarness) -> None:
    """Bundles carry both, until a person drops the old one; the partner says whether it is still needed."""
    harness.put("promoted")
    harness.ok(f"trust set acme reply.zip --accept-ca {harness.cas['issuing']}")
    harness.ok("rotation promote acme --generation 2")
    harness.ok("bundle get acme/reporting --consumer-token-file reader.token --to made")
    carried = (harness.home / "made/current/ca.crt").read_text()
    assert carried.count("BEGIN CERTIFICATE") == 2
    assert set(ca_set(carried).fingerprints) == {harness.cas["issuing"], harness.cas["server"]}
    harness.ok(f"trust set acme reply.zip --replace --accept-ca {harness.cas['server']}")
    harness.ok("rotation promote acme --generation 3")
    harness.ok("bundle get acme/reporting --consumer-token-file reader.token --to made")
    assert ca_set((harness.home / "made/current/ca.crt").read_text()).fingerprints == (harness.cas["server"],)


def test_missing_fingerprint_shows_the_file(harness: CliHarness) -> None:
    harness.put("promoted")
    refused = harness.run("trust set acme reply.zip")
    assert refused.code == 6
    shown = refused.err.replace(":", "").lower()
    assert harness.cas["issuing"] in shown
    assert harness.cas["server"] in shown
    harness.assert_unchanged()


def test_trust_is_announced_before_a_set(harness: CliHarness) -> None:
    harness.put("added")
    shown = harness.ok(f"trust set acme reply.zip --accept-ca {harness.cas['server']}").err
    assert "next:" not in shown
    assert not harness.account.generations
