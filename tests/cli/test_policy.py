"""Consumers on the command line: listed, removed, rendered, and the reasons why one may not have a bundle."""

from __future__ import annotations

import re

import pytest

from broker.vault.policies import consumer_policy
from tests.cli.test_bad_input import setup_token
from tests.support.cli_harness import CliHarness

pytestmark = pytest.mark.slow

RIGHT = "cb-issue/stellantis/stand-in/acme/reporting/direct"


@pytest.fixture
def admin(harness: CliHarness) -> dict[str, str]:
    """A promoted account, and the environment of an administrator."""
    harness.put("promoted")
    return {"VAULT_TOKEN": setup_token(harness)}


def test_consumers_are_listed(harness: CliHarness, admin: dict[str, str]) -> None:
    harness.ok("vault enrol shown --right acme/reporting --login-dir shown", env=admin)
    (found,) = [c for c in harness.ok("vault enrol --list -o json", env=admin).json if c["name"] == "shown"]
    assert (found["rights"], found["disabled"]) == ([RIGHT], False)
    assert len(found["logins"]) == 1
    assert re.search(r"^shown +acme/reporting ", harness.ok("vault enrol --list", env=admin).out, re.MULTILINE)


def test_removing_says_what_was_there(harness: CliHarness, admin: dict[str, str]) -> None:
    harness.ok("vault enrol gone --right acme/reporting --token-file gone.token", env=admin)
    harness.ok("policy check acme/reporting --token-file gone.token")
    said = harness.ok("vault enrol --remove gone --remove never", env=admin).err
    assert "consumer gone is removed" in said
    assert "there is no consumer never" in said
    assert harness.ok("vault enrol --remove gone -o json", env=admin).json == {
        "success": True,
        "changed": False,
        "removed": [],
    }
    assert harness.run("policy check acme/reporting --token-file gone.token").code == 5


def test_rights_change_without_a_login(harness: CliHarness, admin: dict[str, str]) -> None:
    harness.ok("app add acme/billing")
    harness.ok("vault enrol moved --right acme/reporting --token-file moved.token", env=admin)
    assert "no longer" not in harness.ok("vault enrol moved --right acme/reporting", env=admin).err
    assert "no longer: acme/reporting" in harness.ok("vault enrol moved --right acme/billing", env=admin).err
    harness.ok("policy check acme/billing --token-file moved.token")
    refused = harness.run("policy check acme/reporting --token-file moved.token")
    assert (refused.code, "lacks update on" in refused.err) == (5, True)
    unknown = harness.run("vault enrol nobody --right acme/billing", env=admin)
    assert (unknown.code, "no consumer nobody is enrolled" in unknown.err) == (2, True)


def test_a_consumers_name_is_enough(harness: CliHarness, admin: dict[str, str]) -> None:
    harness.ok("app add acme/billing")
    harness.ok("vault enrol named --right acme/reporting --login-dir named", env=admin)
    harness.ok("policy check acme/reporting --consumer named", env=admin)
    refused = harness.run("policy check acme/billing --consumer named", env=admin)
    assert (refused.code, "named lacks update on" in refused.err) == (5, True)
    assert refused.err.rstrip().endswith("broker vault enrol named --right acme/billing --right acme/reporting")
    vault = harness.saved.system.vault
    vault.admin.call("POST", f"identity/entity/name/{vault.settings.mount}/named", {"disabled": True})
    refused = harness.run("policy check acme/reporting --consumer named", env=admin)
    assert (refused.code, "is disabled" in refused.err) == (5, True)


def test_a_policy_is_printed_as_hcl(harness: CliHarness, admin: dict[str, str]) -> None:
    assert harness.ok("policy render web --right acme/reporting").out == consumer_policy([RIGHT])
    assert harness.ok("policy render web --right acme/reporting -o json").json["rights"] == [RIGHT]
    script = harness.ok("policy render web --right acme/reporting --script").out
    assert script.startswith("#!/bin/sh\n")
    assert harness.ok("vault enrol --list -o json", env=admin).out.find('"web"') == -1
