"""Rehearsals: the real use-cases, a throw-away vault and a stand-in. Nothing else is asked."""

from __future__ import annotations

import tempfile
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from broker_demo.rehearsal import Rehearsal, RehearsedStep, rehearse

from broker.copies import replace
from broker.model.account import Account, Contacts
from broker.model.due import Renewal
from broker.model.generation import PromotionMode, RenewalMode, Snooze
from broker.model.maintenance import Freeze, Maintenance
from broker.model.subject import Subject
from broker.partners import catalogue
from tests.support.accounts import NOW, an_account, with_current
from tests.support.saved_states import documents_of
from tests.support.system import System

pytestmark = pytest.mark.slow
TEAM = "ops@example.test"
PROFILE = catalogue.builtin("stellantis")
SUBJECT = Subject(
    (("C", "FR"), ("ST", "Paris"), ("L", "Paris"), ("O", "Example"), ("OU", "Programs Partners"), ("CN", "MZP0000001"),
     ("emailAddress", "api@example.test"))
)  # fmt: skip


def ready(account: Account, **changes: object) -> Account:
    """Return an account with nothing to complain about."""
    whole = {"subject": SUBJECT, "login": "MZP0000001", "environment": "stand-in"}
    return replace(account, **{**whole, **changes})  # type: ignore[arg-type]


def rehearsed(account: Account, maintenance: Maintenance | None = None, **renewal: timedelta) -> Rehearsal:
    profile = replace(PROFILE, renewal=replace(PROFILE.renewal, **renewal))  # type: ignore[arg-type]
    return rehearse(account, profile, maintenance or Maintenance(), NOW)


def taken(done: Rehearsal) -> list[RehearsedStep]:
    """Return the steps without the notices."""
    return [step for step in done.steps if step not in notices(done)]


def notices(done: Rehearsal) -> list[RehearsedStep]:
    return [step for step in done.steps if f" to {TEAM}: " in step.message]


def codes(done: Rehearsal) -> set[str]:
    return {finding.code for finding in done.findings}


def test_a_whole_renewal_is_rehearsed() -> None:
    account = ready(with_current())
    done = rehearsed(account)
    assert done.success, done.findings
    assert [step.who for step in taken(done)] == ["scheduler", "team", "partner", "team", "team", "scheduler"]
    assert [s.command.split()[2] for s in done.steps if s.command] == ["new", "submit", "import", "promote", "retire"]
    dates = [step.at for step in done.steps]
    assert dates == sorted(dates)
    assert account.current
    end = account.certificate(account.current.parts.certificate).not_after
    begun, _, signed, _, promoted, retired = [step.at for step in taken(done)]
    assert begun < begun + timedelta(days=21) == signed <= promoted < retired < end
    told = [done.steps.index(notice) for notice in notices(done)]
    assert told == [1, 5]  # to send the request, and to promote
    assert all(done.steps[n].message.startswith("an alert to ") and done.steps[n + 1].who == "team" for n in told)


def test_a_first_certificate_is_rehearsed() -> None:
    done = rehearsed(ready(an_account(), applications=with_current().applications))
    assert done.success, done.findings
    assert len(taken(done)) == 5
    assert "rehearsal.lifetime" in codes(done)


def test_sweeps_do_what_is_the_schedulers() -> None:
    done = rehearsed(ready(with_current(), promotion=PromotionMode.AUTO, submit_via="smtp"))
    assert [step.who for step in taken(done)] == ["scheduler", "scheduler", "partner", "team", "scheduler", "scheduler"]


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"contacts": Contacts()}, "rehearsal.contact"),
        ({"contacts": Contacts(("desk@partner.test",))}, "rehearsal.team"),
        ({"renewal": RenewalMode.DISABLED}, "rehearsal.disabled"),
        (
            {"subject": Subject(tuple(pair for pair in SUBJECT.attributes if pair[0] != "emailAddress"))},
            "rehearsal.desk",
        ),
    ],
)
def test_a_gap_in_the_account_is_found(changes: dict[str, object], code: str) -> None:
    assert code in codes(rehearsed(ready(with_current(), **changes)))


def test_a_lead_time_beyond_the_lifetime_is_found() -> None:
    done = rehearsed(ready(with_current()), lead_time=timedelta(days=400))
    assert {"rehearsal.lead-time", "rehearsal.late"} <= codes(done)
    assert not done.success


def test_a_window_that_never_comes_is_found() -> None:
    never = Maintenance(freezes=(Freeze("audit", NOW, datetime(2100, 1, 1, tzinfo=NOW.tzinfo)),))
    done = rehearsed(ready(with_current()), never)
    assert not done.complete
    assert "rehearsal.window" in codes(done)


def test_times_of_the_profile_are_kept() -> None:
    snoozed = Snooze(NOW, NOW + timedelta(days=300), "holidays")
    account = ready(with_current(), renewal=RenewalMode.MANUAL, snoozed=snoozed)
    done = rehearsed(account, lead_time=timedelta(days=3), overlap=timedelta(days=9))
    begun, sent, signed, _, promoted, retired = [step.at for step in taken(done)]
    assert {step.who for step in taken(done)} == {"team", "partner"}
    assert begun - snoozed.until < timedelta(seconds=2)
    assert (signed - sent, retired - promoted) == (timedelta(days=3), timedelta(days=9))
    assert Renewal().overlap is None


def test_nothing_real_is_touched(system: System) -> None:
    """The account is read, and that is all: no write in Vault, no request to the partner, no file left."""
    system.promoted()
    files = sorted(system.home.rglob("*"))
    before = documents_of(system.vault.admin), len(system.partner.log.entries())
    with tempfile.TemporaryDirectory() as own:  # other tests rehearse concurrently
        left, made = Path(own), Path(own).stat().st_mtime_ns
        ended = replace(system, changes={**system.changes, "TMPDIR": own}).ok("rotation", "rehearse", "acme")
        assert left.stat().st_mtime_ns > made, "it was used"
        assert not list(left.iterdir())
    assert "the renewal succeeds" in ended.out
    assert (documents_of(system.vault.admin), len(system.partner.log.entries())) == before
    assert sorted(system.home.rglob("*")) == files
