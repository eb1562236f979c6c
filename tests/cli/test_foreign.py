"""Entries that others stored in Vault, and documents that cannot be read: no command ends by them."""

from __future__ import annotations

import pytest

from broker.vault import layout
from tests.support.shop import Shop

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
def planted(shop: Shop) -> Shop:
    """A shop with an account that can be retired, a profile, and what others stored."""
    shop.put("profiled")
    shop.watched = False
    for path in FOREIGN:
        shop.lab.world.vault.admin.create(f"{path}1" if path.endswith("/") else path, {"x": 1})
    return shop


def reported(shop: Shop, line: str) -> dict[str, str]:
    """Return the hints of the foreign entries that a command reports, by path."""
    ended = shop.run(f"{line} -o json")
    assert ended.code == 6
    found = [f for f in ended.json["findings"] if f["code"] == "vault.foreign"]
    return {f["sentence"].removeprefix("foreign entry ").partition(": ")[0]: f["mend"] for f in found}


def test_foreign_entries_stop_no_command(planted: Shop) -> None:
    for line in GO_ON:
        planted.ok(line)


@pytest.mark.parametrize("line", ["doctor", "evidence verify --all"])
def test_foreign_entries_are_reported(planted: Shop, line: str) -> None:
    hints = reported(planted, line)
    assert tuple(sorted(hints)) == FOREIGN
    mount = planted.lab.world.vault.settings.mount
    assert f"bao kv metadata delete -mount={mount} 'accounts/Bad Name'" in hints["accounts/Bad Name"]
    assert "foreign entry accounts/Bad Name" in planted.run(line).out + planted.run(line).err
    for path in FOREIGN:
        planted.lab.world.vault.admin.call("DELETE", f"{mount}/metadata/{path}{'1' if path.endswith('/') else ''}")
    planted.ok(line)


def test_verify_reports_entries_beside_the_accounts_own(planted: Shop) -> None:
    assert set(reported(planted, "evidence verify acme")) == {"evidence/accounts/acme/note"}


def test_export_reports_what_is_not_in_the_file(planted: Shop) -> None:
    assert "foreign entry evidence/accounts/A/" in planted.ok("evidence export all.jsonl").err


def test_damaged_documents_stop_no_command(shop: Shop) -> None:
    shop.put("profiled")
    shop.watched = False
    for path in ("accounts/aaa", "profiles/aaa", "evidence/issued/aaa/00000001"):
        shop.lab.world.vault.admin.create(path, {"x": 1})
    signed = shop.run("evidence anchor")  # all chains but one
    assert (signed.code, "signed statement 1" in signed.err) == (6, True)
    for line in (line for line in GO_ON if line != "evidence anchor"):
        shop.ok(line)
    assert "account aaa is not a document of the broker" in shop.ok("status").err
    assert "account aaa is not a document of the broker" in shop.ok("account list").err
    assert "issued/aaa entry 1 cannot be read" in shop.ok("evidence show --all").err
    verified = shop.run("evidence verify --all -o json")
    assert verified.code == 6
    broken = [chain["chain"] for chain in verified.json["chains"] if chain["findings"]]
    assert broken == ["accounts/aaa", "issued/aaa"]


def test_an_unreadable_record_may_hold_the_generation(shop: Shop) -> None:
    """A newer broker may have written it: only a person says that nobody is cut off."""
    shop.put("rotated")
    shop.watched = False
    shop.lab.world.vault.admin.create(layout.consumer("entity-1"), {"schema": 9})
    waiting = shop.run("rotation retire acme --generation 1")
    assert waiting.code == 7
    assert "entity-1 (its record cannot be read: broker doctor)" in waiting.err
    found = [f["code"] for f in shop.run("doctor -o json").json["findings"] if f["severity"] == "error"]
    assert found == ["consumer.unreadable"]
    shop.ok("rotation retire acme --generation 1 --force --reason 'it is a test'")


def test_an_entry_of_a_newer_broker_forks_one_account(shop: Shop) -> None:
    """Such an entry in the place of one that is due ends neither status nor doctor."""
    shop.put("rotated")
    shop.watched = False
    number = shop.account.head.number + 1
    shop.lab.world.vault.admin.create(layout.evidence("accounts/acme", number), {"schema": 9})
    shop.run("app add acme/more")
    (row,) = shop.ok("status -o json").json
    assert row["command"] == "broker evidence verify acme"
    found = [f["code"] for f in shop.run("doctor -o json").json["findings"] if f["severity"] == "error"]
    assert found == ["account.forked"]
