"""Entries that others stored in Vault, and documents that cannot be read: no command ends by them."""

from __future__ import annotations

import pytest

from broker.vault import layout
from tests.support.cli_harness import CliHarness

pytestmark = pytest.mark.slow

FOREIGN = (
    "accounts/Bad Name",
    "consumers/Bad+Name",
    "evidence/accounts/A/",
    "evidence/accounts/acme/note",
    "evidence/heads/note",
    "evidence/issued/A/",
    "profiles/Bad Name",
)
GO_ON = (
    "account list",
    "status",
    "evidence show --all",
    "evidence anchor",
    "evidence export all.jsonl",
    "evidence verify --file all.jsonl",
    "partner list",
    "partner show own",
    "rotation status acme",
    "rotation retire acme --generation 1",
)


@pytest.fixture
def planted(harness: CliHarness) -> CliHarness:
    """A harness with an account that can be retired, a profile, and what others stored."""
    harness.put("profiled")
    harness.watched = False
    for path in FOREIGN:
        harness.saved.system.vault.admin.create(f"{path}1" if path.endswith("/") else path, {"x": 1})
    return harness


def reported(harness: CliHarness, line: str) -> dict[str, str]:
    """Return the hints of the foreign entries that a command reports, by path."""
    ended = harness.run(f"{line} -o json")
    assert ended.code == 6
    found = [f for f in ended.json["findings"] if f["code"] == "vault.foreign"]
    return {f["message"].removeprefix("foreign entry ").partition(": ")[0]: f["hint"] for f in found}


def test_foreign_entries_stop_no_command(planted: CliHarness) -> None:
    for line in GO_ON:
        planted.ok(line)


@pytest.mark.parametrize("line", ["doctor", "evidence verify --all"])
def test_foreign_entries_are_reported(planted: CliHarness, line: str) -> None:
    hints = reported(planted, line)
    assert tuple(sorted(hints)) == FOREIGN
    mount = planted.saved.system.vault.settings.mount
    assert f"bao kv metadata delete -mount={mount} 'accounts/Bad Name'" in hints["accounts/Bad Name"]
    assert "foreign entry accounts/Bad Name" in planted.run(line).out + planted.run(line).err
    for path in FOREIGN:
        planted.saved.system.vault.admin.call("DELETE", f"{mount}/metadata/{path}{'1' if path.endswith('/') else ''}")
    planted.ok(line)


def test_verify_reports_foreign_entries(planted: CliHarness) -> None:
    assert set(reported(planted, "evidence verify acme")) == {"evidence/accounts/acme/note"}


def test_export_reports_what_it_leaves_out(planted: CliHarness) -> None:
    assert "foreign entry evidence/accounts/A/" in planted.ok("evidence export all.jsonl").err


def test_damaged_documents_stop_no_command(harness: CliHarness) -> None:
    harness.put("profiled")
    harness.watched = False
    for path in ("accounts/aaa", "profiles/aaa", "evidence/issued/aaa/00000001"):
        harness.saved.system.vault.admin.create(path, {"x": 1})
    signed = harness.run("evidence anchor")  # all chains but one
    assert (signed.code, "signed statement 1" in signed.err) == (6, True)
    for line in (line for line in GO_ON if line != "evidence anchor"):
        harness.ok(line)
    assert "account aaa is not a document of the broker" in harness.ok("status").err
    assert "account aaa is not a document of the broker" in harness.ok("account list").err
    assert "issued/aaa entry 1 cannot be read" in harness.ok("evidence show --all").err
    verified = harness.run("evidence verify --all -o json")
    assert verified.code == 6
    broken = [chain["chain"] for chain in verified.json["chains"] if chain["findings"]]
    assert broken == ["accounts/aaa", "issued/aaa"]


def test_unreadable_record_may_hold_it(harness: CliHarness) -> None:
    """A newer broker may have written it: only a person says that nobody is cut off."""
    harness.put("rotated")
    harness.watched = False
    harness.saved.system.vault.admin.create(layout.consumer("entity-1"), {"schema": 9})
    waiting = harness.run("rotation retire acme --generation 1")
    assert waiting.code == 7
    assert "entity-1 (its record cannot be read: broker doctor)" in waiting.err
    found = [f["code"] for f in harness.run("doctor -o json").json["findings"] if f["severity"] == "error"]
    assert found == ["consumer.unreadable"]
    harness.ok("rotation retire acme --generation 1 --force --reason 'it is a test'")


def test_newer_entry_forks_one_account(harness: CliHarness) -> None:
    """Such an entry in the place of one that is due ends neither status nor doctor."""
    harness.put("rotated")
    harness.watched = False
    number = harness.account.head.number + 1
    harness.saved.system.vault.admin.create(layout.evidence("accounts/acme", number), {"schema": 9})
    harness.run("app add acme/more")
    (row,) = harness.ok("status -o json").json
    assert row["hint"] == "broker evidence verify acme"
    found = [f["code"] for f in harness.run("doctor -o json").json["findings"] if f["severity"] == "error"]
    assert found == ["account.forked"]
