"""The plan of an account: right steps at right times, in windows and outside of freezes, and the reasons."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from broker.copies import replace
from broker.model.account import Account
from broker.model.changes import compromising, registering, requesting
from broker.model.clock import Stamp
from broker.model.due import Renewal
from broker.model.generation import Closed, PromotionMode, RenewalMode, Submission
from broker.model.life_cycle import Phase, Who
from broker.model.maintenance import Freeze, Maintenance, Window
from broker.model.plan import AccountPlan, Action, account_plan
from broker.windows import maintenance
from tests.support.accounts import (
    BY,
    NOW,
    STAMP,
    a_certificate,
    an_account,
    later,
    promoted,
    with_answer,
    with_current,
    with_open_request,
)

DAY = timedelta(days=1)
SUNDAYS = {"cron": "0 3 * * SUN", "timezone": "Europe/Paris", "duration": "2h"}
RENEWAL = Renewal(share=0.9)


def planned(account: Account, maintenance: Maintenance | None = None, **passed: float) -> AccountPlan:
    return account_plan(account, RENEWAL, later(**passed), maintenance or Maintenance())


def steps_of(plan: AccountPlan) -> dict[Action, datetime | None]:
    return {step.action: step.at for step in plan.steps}


def lasting(days: int) -> Account:
    """Return an account whose current certificate lives for `days`."""
    account = with_current()
    return replace(account, certificates=tuple(replace(c, not_after=later(days=days)) for c in account.certificates))


def every(days: int, first: int = 0) -> Window:
    """Return a window of two hours that opens each `days`, at noon UTC."""

    def openings(after: datetime) -> Iterator[datetime]:
        start = later(days=first)
        while True:
            if start > after:
                yield start
            start += days * DAY

    return Window(f"each {days}", openings, timedelta(hours=2))


def test_a_new_account_has_no_steps() -> None:
    plan = planned(an_account())
    assert (plan.phase, plan.who, plan.automatic, plan.steps) == (Phase.NEW, Who.US, False, ())


def test_all_steps_are_planned_ahead() -> None:
    plan = planned(with_current())
    assert plan.phase is Phase.NOT_DUE
    renew = later(days=365 * 0.9)
    assert steps_of(plan) == {Action.RENEW: renew, Action.REPLY: renew + 21 * DAY, Action.PROMOTE: renew + 21 * DAY}


def test_refused_request_waits_for_correction() -> None:
    """A scheduler that made the same request again would get the same answer."""
    account = requesting.closed(with_open_request(lasting(300)), 2, Closed.REJECTED, STAMP, "wrong O")
    plan = planned(account, days=299)
    assert (plan.phase, plan.who, plan.steps) == (Phase.REFUSED, Who.US, ())
    assert Action.SEND in steps_of(planned(with_open_request(account), days=299))


def known(account: Account) -> Account:
    return compromising.compromised(account, "stolen", STAMP, suspend=False)


def test_a_known_key_waits_for_nothing() -> None:
    """Neither for the due date nor for a window, a freeze, a snooze or an overlap."""
    account = registering.snoozed(with_current(), later(days=100), "holidays", STAMP)
    closed = Maintenance((every(7, first=3),), (Freeze("year end", NOW, later(days=30)),))
    assert steps_of(planned(known(account), closed))[Action.RENEW] == NOW
    asked = with_open_request(account)
    told = requesting.submitted(asked, 2, Submission(NOW, "hand"), by=BY)
    later_known = compromising.compromised(told, "stolen", Stamp(later(hours=1), BY), suspend=False)
    for waiting in (known(asked), later_known):
        assert steps_of(planned(waiting, closed, hours=1))[Action.SEND] == later(hours=1)
    answered = with_answer(known(asked))
    assert steps_of(planned(answered, closed))[Action.PROMOTE] == NOW
    replaced = promoted(answered, 2)
    assert planned(replaced, closed).phase is Phase.COMPROMISED
    assert steps_of(planned(replaced, closed))[Action.RETIRE] == NOW


def test_every_term_of_the_due_date_is_shown() -> None:
    account = replace(with_current(), renew_before="40d")
    due = planned(account).due
    assert due
    assert [(term.name, term.decides) for term in due.terms()] == [
        ("lead-time", False), ("safety", False), ("margin", False), ("share", False), ("renew-before", True),
    ]  # fmt: skip
    assert "the default, until a request was answered" in next(due.terms()).because


def test_a_lead_time_names_its_evidence() -> None:
    account = with_open_request(with_current())
    account = requesting.submitted(account, 2, Submission(NOW, "hand"), by=BY)
    account = requesting.answered(account, 2, a_certificate(account, 2), Stamp(later(days=9), BY))
    account = promoted(account, 2, at=later(days=9))
    due = planned(account).due
    assert due
    assert due.lead.text == "9d: the longest of 1 answer: request 2 took 9d"


def test_due_is_automatic_unless_a_person_decides() -> None:
    account = with_current()
    assert planned(account, days=350).automatic
    manual = replace(account, renewal=RenewalMode.MANUAL)
    assert (planned(manual, days=350).phase, planned(manual, days=350).automatic) == (Phase.DUE, False)
    disabled = planned(replace(account, renewal=RenewalMode.DISABLED), days=350)
    assert (disabled.phase, disabled.steps) == (Phase.DISABLED, ())


def test_promotion_is_manual_unless_auto() -> None:
    account = with_answer(with_current())
    assert (planned(account).phase, planned(account).automatic) == (Phase.CANDIDATE, False)
    assert planned(replace(account, promotion=PromotionMode.AUTO)).automatic


def test_a_snooze_puts_renewal_off_and_ends() -> None:
    account = registering.snoozed(with_current(), later(days=340), "holidays", STAMP)
    plan = planned(account, days=335)
    assert (plan.phase, steps_of(plan)[Action.RENEW]) == (Phase.NOT_DUE, later(days=340))
    assert plan.due
    assert plan.due.because == f"snoozed until {later(days=340):%F %TZ}: holidays"
    assert "less than the 35d" in plan.warnings[0]
    assert planned(account, days=341).phase is Phase.DUE


def test_promotion_waits_for_a_window() -> None:
    account = with_answer(with_current())
    plan = planned(account, Maintenance((every(7, first=3),)))
    assert steps_of(plan)[Action.PROMOTE] == later(days=3)
    assert plan.steps[-1].because == "in window each 7"
    assert planned(account, Maintenance((every(7),))).steps[-1].at == NOW, "it is open"


def test_a_freeze_moves_it_to_the_next_window() -> None:
    freeze = Freeze("year-end", later(days=2), later(days=12))
    plan = planned(with_answer(with_current()), Maintenance((every(7, first=3),), (freeze,)), days=2)
    assert steps_of(plan)[Action.PROMOTE] == later(days=17)
    assert plan.steps[-1].because == "in window each 7, after freeze year-end"


def test_no_window_before_the_end_is_warned_of() -> None:
    plan = planned(with_current(), Maintenance((every(2000, first=1000),)))
    renew = later(days=365 * 0.9)
    assert steps_of(plan)[Action.RENEW] == renew, "renewal starts anyway"
    assert steps_of(plan)[Action.PROMOTE] == renew + 21 * DAY
    assert plan.warnings == (
        f"promotion: no window opens in time, and the certificate ends on {later(days=365):%F %TZ}: none is waited for",
    )


def test_freeze_to_the_end_yields_on_last_day() -> None:
    freeze = Freeze("for ever", NOW, later(days=999))
    plan = planned(with_answer(with_current()), Maintenance((), (freeze,)))
    assert steps_of(plan)[Action.PROMOTE] == later(days=364)
    assert "in freeze for ever" in plan.warnings[0]


def test_expired_waits_for_nothing() -> None:
    freeze = Freeze("for ever", NOW, later(days=999))
    plan = planned(with_answer(with_current()), Maintenance((every(7, first=3),), (freeze,)), days=366)
    assert (plan.phase, steps_of(plan)[Action.PROMOTE]) == (Phase.EXPIRED, later(days=366))
    assert planned(lasting(30), Maintenance((), (freeze,)), days=31).steps[0].at == later(days=31)


def test_short_one_is_due_from_its_start() -> None:
    plan = planned(lasting(30))
    assert (plan.phase, plan.automatic) == (Phase.DUE, True)
    assert plan.due
    assert "more than its lifetime of 30d" in plan.due.because


def test_a_phase_knows_its_begin() -> None:
    account = with_current()
    sent = requesting.submitted(with_open_request(account), 2, Submission(later(days=1), "hand"), by=BY)
    overlapping = promoted(with_answer(account), 2, at=later(days=3))
    begun = [
        (an_account(), 1, Phase.NEW, 0),
        (account, 10, Phase.NOT_DUE, 0),
        (account, 350, Phase.DUE, 365 * 0.9),
        (account, 366, Phase.EXPIRED, 365),
        (with_open_request(account), 5, Phase.DRAFTED, 0),
        (sent, 2, Phase.SENT, 1),
        (sent, 30, Phase.OVERDUE, 1 + 21),
        (with_answer(account), 5, Phase.CANDIDATE, 0),
        (overlapping, 4, Phase.OVERLAP, 3),
        (overlapping, 11, Phase.RETIRING, 3 + 7),
    ]
    for of, now, phase, since in begun:
        plan = planned(of, days=now)
        assert (plan.phase, plan.since) == (phase, later(days=since))


def test_an_overlap_ends_with_the_old_certificate() -> None:
    """A certificate that is shorter than the overlap of the profile."""
    account = promoted(with_answer(lasting(5)), 2)
    renewal = Renewal(overlap=60 * DAY)
    plan = account_plan(account, renewal, later(days=1))
    assert plan.phase is Phase.OVERLAP
    assert steps_of(plan)[Action.RETIRE] == later(days=5)
    assert account_plan(account, renewal, later(days=6)).phase is Phase.RETIRING


def test_retirement_waits_for_a_window() -> None:
    account = promoted(with_answer(with_current()), 2)
    plan = planned(account, Maintenance((every(30, first=3),)))
    assert steps_of(plan)[Action.RETIRE] == later(days=33)


@pytest.mark.parametrize("end", ["2050-06-01", "2062-02-28", "9999-12-31T23:59:59"])
def test_an_end_beyond_2050_is_planned(end: str) -> None:
    account = with_current()
    not_after = datetime.fromisoformat(end).replace(tzinfo=UTC)
    certificates = tuple(replace(c, not_after=not_after) for c in account.certificates)
    account = replace(account, certificates=certificates, renew_before="30d")
    plan = account_plan(account, RENEWAL, NOW, maintenance({"w": SUNDAYS}, {}))
    assert steps_of(plan)[Action.RENEW] == not_after - 30 * DAY
    promotion = steps_of(plan)[Action.PROMOTE]
    assert promotion
    assert promotion.weekday() == 6
    assert promotion < not_after


def test_a_leap_day_is_a_day() -> None:
    start = datetime(2028, 2, 29, 12, tzinfo=UTC)
    account = with_current()
    certificates = tuple(replace(c, not_before=start, not_after=start + 366 * DAY) for c in account.certificates)
    plan = account_plan(replace(account, certificates=certificates, renew_before="366d"), RENEWAL, start)
    assert steps_of(plan)[Action.RENEW] == start
