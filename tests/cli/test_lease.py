"""`broker lease`: who holds what, and the end of it."""

from __future__ import annotations

import csv
import io

import click
import pytest

from broker.cli.output import OUTPUT, take_format, wrote_csv
from broker.vault.consumers import VaultConsumers
from tests.support.cli_harness import CliHarness
from tests.support.saved_states import LEASE

pytestmark = pytest.mark.slow

GET = "bundle get acme/reporting --consumer-token-file reader.token --to bundle"


@pytest.fixture
def held(harness: CliHarness) -> CliHarness:
    """A consumer with one lease, and one with two that share a holding."""
    harness.put("held")
    for _ in range(2):
        harness.ok(GET)
    return harness


def reader(harness: CliHarness) -> str:
    return f"{harness.saved.system.vault.settings.mount}/reader"


def test_the_list_shows_who_holds_what(held: CliHarness) -> None:
    rows = held.ok("lease list -o json").json
    assert {(r["consumer"], r["shared"]) for r in rows} == {("batch-7", False), (reader(held), True)}
    assert [r["lease"] for r in held.ok("lease list acme --consumer batch-7 -o json").json] == [LEASE]
    shown = held.ok("lease list acme")
    assert LEASE[:12] in shown.out
    assert LEASE[:13] not in shown.out
    assert "+ processes with the same identity hold further leases" in shown.err
    assert max(map(len, shown.out.splitlines())) <= 80
    assert "no consumer holds a lease" in held.ok("lease list acme --consumer nobody").err
    unknown = held.run("lease list nope")
    assert (unknown.code, "there is no account nope" in unknown.err) == (2, True)


def test_a_hint_names_no_option_that_is_not_there(held: CliHarness) -> None:
    assert "--consumer" not in held.run("lease show 0123456789").err
    assert "--consumer" not in held.run("lease revoke --consumer nobody --reason x").err
    assert "--consumer NAME" in held.run("lease revoke 0123456789 --reason x").err


def test_lease_is_shown_by_the_start_of_its_id(held: CliHarness) -> None:
    shown = held.ok(f"lease show {LEASE[:12]}").out
    assert LEASE in shown
    assert "batch-7" in shown
    assert held.ok(f"lease show {LEASE} -o json").json[0]["generation"] == 1


def test_all_leases_of_a_generation_are_revoked(held: CliHarness) -> None:
    ended = held.ok("lease revoke --account acme --generation 1 --reason stolen")
    assert "revoked: batch-7, generation 1 of acme/reporting" in ended.err
    assert held.ok("lease list -o json").json == []
    assert held.run("lease revoke --account acme --reason stolen").code == 2
    assert held.ok("evidence show acme").out.count("lease-revoked") == 2
    assert held.run("evidence verify acme").code == 0


def test_evidence_shows_who_held_what(held: CliHarness) -> None:
    assert {r["end"] for r in held.ok("evidence holders acme -o json").json} == {"held"}
    future = held.run("evidence holders acme --from 2099-01-01")
    assert (future.code, "--from is in the future" in future.err) == (2, True)
    held.ok(f"lease revoke --consumer {reader(held)} --reason stolen")
    rows = held.ok("evidence holders acme -o json").json
    assert {(r["consumer"], r["generation"], r["end"]) for r in rows} == {(reader(held), 1, "revoked")}
    lines = list(csv.DictReader(io.StringIO(held.ok("evidence holders acme -o csv").out)))
    assert [line["lease"] for line in lines] == [r["lease"] for r in rows]
    assert [line["since"] for line in lines] == [r["since"] for r in rows]
    assert held.ok("evidence holders acme").out.count("revoked") == 2
    assert held.ok("evidence holders acme --to 2026-01-01 -o json").json == []
    assert "nobody held" in held.ok("evidence holders acme --to 2026-01-01").err


def test_a_cell_of_csv_is_no_formula(capsys: pytest.CaptureFixture[str]) -> None:
    with click.Context(click.Command("x")) as context:
        take_format(context, OUTPUT, "csv")
        assert wrote_csv(["name"], [["=1+1"], ["@x"], ["-"], ["+1"], ["\t=1"], ['a,"b'], [None], [""], [7]])
    shown = [row[0] for row in csv.reader(io.StringIO(capsys.readouterr().out))]
    assert shown == ["name", "'=1+1", "'@x", "'-", "'+1", "?=1", 'a,"b', "", "", "7"]


def test_the_key_is_rotated_once(held: CliHarness) -> None:
    once = held.ok("lease key rotate")
    assert "key 2 signs leases since" in once.err
    assert "key 1 verifies until" in once.err
    assert held.ok("lease key rotate").err.splitlines()[0].endswith("already: nothing to do")
    assert held.ok("lease key rotate --again -o json").json["newest"] == "3"
    held.ok(GET)


def test_one_of_several_leases_is_revoked(held: CliHarness) -> None:
    (row,) = held.ok(f"lease list --consumer {reader(held)} -o json").json
    ended = held.ok(f"lease revoke {row['lease']} --reason stolen")
    assert "other leases of the same consumer stay" in ended.err
    assert len(held.ok("lease list -o json").json) == 2
    record = VaultConsumers(held.saved.system.vault.admin).all().found[row["entity"]]
    assert [r.lease for r in record.revocations] == [row["lease"]]
