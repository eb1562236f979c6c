"""No command dates or decides anything by a clock that is far from Vault's."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Final

import pytest

from broker.compose import Wiring
from tests.cli.test_bad_input import administrator
from tests.support.console import GOOD
from tests.support.shop import Shop

pytestmark = pytest.mark.slow

SHOW: Final = {
    *("status", "doctor", "explain", "account list", "account show", "app list", "csr show", "rotation status"),
    *("evidence show", "evidence verify", "vault status"),
}
UNDATED: Final = {"partner add", "vault enrol"}  # Vault's own clock dates a token
NOTHING: Final = {"cert import", "evidence anchor"}  # the good line has nothing left to date: below
DATED: Final = sorted(
    (good.state, name)
    for name, good in GOOD.items()
    if good.vault and name not in SHOW | UNDATED | NOTHING | {"vault setup"}
)
MORE: Final = (
    ("promoted", "rotation canary acme --force --reason unlocked"),
    ("requested", "csr new acme --supersede --yes"),
    ("requested", "csr submit acme --sent-at 2026-01-01"),
    ("rotated", "rotation rollback acme --force --reason down"),
)


@pytest.fixture
def wrong_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Set this machine's clock two years ahead, as far as it is compared with Vault's."""
    wrong = SimpleNamespace(time=lambda: time.time() + timedelta(days=730).total_seconds())
    monkeypatch.setattr("broker.vault.connection.time", wrong)


def assert_refused(shop: Shop, line: str, **options: object) -> None:
    shop.partner.log.clear()
    ended = shop.run(line, **options)  # type: ignore[arg-type]
    assert ended.code == 6, ended
    assert "this machine's clock is 730d ahead of Vault's" in ended.err
    assert "timedatectl" in ended.err
    assert not shop.partner.log.entries()


@pytest.mark.usefixtures("wrong_clock")
@pytest.mark.parametrize(("state", "name"), DATED)
def test_a_wrong_clock_stops_a_command(shop: Shop, state: str, name: str) -> None:
    shop.put(state)
    assert_refused(shop, shop.good(name), input=GOOD[name].input)
    shop.assert_unchanged()


@pytest.mark.usefixtures("wrong_clock")
@pytest.mark.parametrize(("state", "line"), MORE)
def test_and_any_other_way_through_it(shop: Shop, state: str, line: str) -> None:
    shop.put(state)
    assert_refused(shop, line)
    shop.assert_unchanged()


@pytest.mark.usefixtures("wrong_clock")
def test_a_reply_is_not_judged_by_it(shop: Shop) -> None:
    """It would be called expired."""
    shop.put("requested")
    assert_refused(shop, f"cert import acme reply.zip {' '.join(shop.lab.world.accepting())}")
    shop.assert_unchanged()


@pytest.mark.usefixtures("wrong_clock")
def test_a_new_key_is_not_stored_either(shop: Shop) -> None:
    """`csr new` stores a key before it writes the account."""
    shop.put("added")
    assert_refused(shop, "csr new acme")
    shop.assert_unchanged()


@pytest.mark.usefixtures("wrong_clock")
def test_also_if_nothing_was_asked_of_vault_before(shop: Shop) -> None:
    """No login precedes the first write of a token that is given."""
    shop.put("empty")
    (shop.home / "token.toml").write_text("version = 1\n")
    token = {"VAULT_TOKEN": administrator(shop), "BROKER_CONFIG": "token.toml"}
    assert_refused(shop, shop.good("account add"), env=token)
    assert not shop.writes


def test_no_statement_is_signed_by_it(shop: Shop, request: pytest.FixtureRequest) -> None:
    shop.put("promoted")
    shop.ok("evidence anchor")
    shop.ok("app add acme/new")
    request.getfixturevalue("wrong_clock")
    writes = list(shop.writes)
    assert_refused(shop, "evidence anchor")
    assert shop.writes == writes


@pytest.mark.usefixtures("wrong_clock")
@pytest.mark.parametrize("line", ["status", "rotation status acme"])
def test_what_only_shows_says_so(shop: Shop, line: str) -> None:
    shop.put("promoted")
    assert "careful: this machine's clock is 730d ahead of Vault's" in shop.ok(line).err


def test_a_pause_of_a_wrong_clock_ends(shop: Shop) -> None:
    """Stored before the clock was checked, or by somebody else's program."""
    shop.put("candidate")
    shop.partner.faults.set("quota-day", "0")
    ahead = Wiring(clock=lambda: datetime.now(UTC) + timedelta(days=730))  # not compared with Vault's
    assert shop.run("rotation canary acme", wiring=ahead).code == 4
    shop.partner.faults.clear()
    assert shop.account.not_before
    assert shop.account.not_before > datetime.now(UTC) + timedelta(days=700)
    assert shop.ok("status acme -o json").json[0]["obstacles"] == []
    facts = shop.ok("rotation status acme -o json").json
    assert (facts["obstacles"], facts["not_before"]) == ([], None)
    assert shop.ok("rotation canary acme -o json").json["verdict"] == "ok"
