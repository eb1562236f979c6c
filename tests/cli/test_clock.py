"""No command dates or decides anything by a clock that is far from Vault's."""

from __future__ import annotations

import re
import time
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Final

import pytest

from broker.compose.graph import Wiring
from tests.cli.test_bad_input import administrator
from tests.support.catalogue import GOOD
from tests.support.cli_harness import CliHarness

pytestmark = pytest.mark.slow

SHOW: Final = {
    *(
        "rotation plan",
        "status",
        "doctor",
        "explain",
        "account list",
        "account show",
        "app list",
        "csr show",
        "rotation status",
    ),
    *(
        "evidence show",
        "evidence holders",
        "evidence verify",
        "vault status",
        "lease list",
        "lease show",
        "notify list",
        "reply list",
    ),
}
UNDATED: Final = {
    "mail set",
    "partner add",
    "vault enrol",
    "policy render",
    "policy check",
}  # Vault's own clock dates a token
NOTHING: Final = {"evidence anchor"}  # the good line has nothing left to date: below
OUTSIDE: Final = {"mail test", "notify test"}  # need servers, which tests/cli/test_notify.py and test_mail.py have
DATED: Final = sorted(
    (good.state, name) for name, good in GOOD.items() if good.vault and name not in SHOW | UNDATED | NOTHING | OUTSIDE
)
MORE: Final = (
    ("promoted", "rotation canary acme --force --reason unlocked"),
    ("requested", "csr new acme --supersede --yes"),
    ("requested", "csr submit acme --sent-at 2026-01-01"),
    ("renewed", "rotation run --once"),
    ("rotated", "rotation rollback acme --force --reason down"),
)


@pytest.fixture
def wrong_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Set this machine's clock two years ahead, as far as it is compared with Vault's."""
    wrong = SimpleNamespace(monotonic=time.monotonic, time=lambda: time.time() + timedelta(days=730).total_seconds())
    monkeypatch.setattr("broker.vault.transport.time", wrong)


def assert_refused(harness: CliHarness, line: str, **options: object) -> None:
    harness.partner.log.clear()
    ended = harness.run(line, **options)  # type: ignore[arg-type]
    assert ended.code in (6, 125, 255), ended  # of exec, of needs-renewal
    assert re.search(r"this machine's clock is 730d( \d+s)? ahead of Vault's", ended.err)
    assert "timedatectl" in ended.err
    assert not harness.partner.log.entries()


@pytest.mark.usefixtures("wrong_clock")
@pytest.mark.parametrize(("state", "name"), DATED)
def test_a_wrong_clock_stops_a_command(harness: CliHarness, state: str, name: str) -> None:
    harness.put(state)
    assert_refused(harness, harness.good(name), input=GOOD[name].input)
    harness.assert_unchanged()


@pytest.mark.usefixtures("wrong_clock")
@pytest.mark.parametrize(("state", "line"), MORE)
def test_and_any_other_way_through_it(harness: CliHarness, state: str, line: str) -> None:
    harness.put(state)
    assert_refused(harness, line)
    harness.assert_unchanged()


@pytest.mark.usefixtures("wrong_clock")
def test_a_reply_is_not_judged_by_it(harness: CliHarness) -> None:
    """It would be called expired."""
    harness.put("requested")
    assert_refused(harness, f"cert import acme reply.zip {' '.join(harness.saved.system.accepting())}")
    harness.assert_unchanged()


@pytest.mark.usefixtures("wrong_clock")
def test_a_new_key_is_not_stored_either(harness: CliHarness) -> None:
    """`csr new` stores a key before it writes the account."""
    harness.put("added")
    assert_refused(harness, "csr new acme")
    harness.assert_unchanged()


@pytest.mark.usefixtures("wrong_clock")
def test_clock_is_checked_before_requests(harness: CliHarness) -> None:
    """No login precedes the first write of a token that is given."""
    harness.put("empty")
    (harness.home / "token.toml").write_text("version = 1\n")
    token = {"VAULT_TOKEN": administrator(harness), "BROKER_CONFIG": "token.toml"}
    assert_refused(harness, harness.good("account add"), env=token)
    assert not harness.writes


def test_no_statement_is_signed_by_it(harness: CliHarness, request: pytest.FixtureRequest) -> None:
    harness.put("promoted")
    harness.ok("evidence anchor")
    harness.ok("app add acme/new")
    request.getfixturevalue("wrong_clock")
    writes = list(harness.writes)
    assert_refused(harness, "evidence anchor")
    assert harness.writes == writes


@pytest.mark.usefixtures("wrong_clock")
@pytest.mark.parametrize("line", ["status", "rotation status acme", "lease list"])
def test_what_only_shows_says_so(harness: CliHarness, line: str) -> None:
    harness.put("promoted")
    assert re.search(r"warning: this machine's clock is 730d( \d+s)? ahead of Vault's", harness.ok(line).err)


def test_a_pause_of_a_wrong_clock_ends(harness: CliHarness) -> None:
    """Stored before the clock was checked, or by somebody else's program."""
    harness.put("candidate")
    harness.partner.faults.set("quota-day", "0")
    ahead = Wiring(clock=lambda: datetime.now(UTC) + timedelta(days=730))  # not compared with Vault's
    assert harness.run("rotation canary acme", wiring=ahead).code == 4
    harness.partner.faults.clear()
    assert harness.account.not_before
    assert harness.account.not_before > datetime.now(UTC) + timedelta(days=700)
    assert harness.ok("status acme -o json").json[0]["obstacles"] == []
    facts = harness.ok("rotation status acme -o json").json
    assert (facts["obstacles"], facts["not_before"]) == ([], None)
    assert harness.ok("rotation canary acme -o json").json["verdict"] == "ok"
