"""The timeline of an account: past and planned moments in order, without what is not for everybody."""

from __future__ import annotations

from datetime import timedelta

from broker.model.account import Account
from broker.model.changes import registering, requesting
from broker.model.due import Renewal
from broker.model.generation import Submission
from broker.model.plan import account_plan
from broker.model.timeline import Moment, timeline
from tests.support.accounts import BY, NOW, STAMP, an_account, later, with_current, with_open_request, with_rolled_back


def shown(account: Account, **passed: float) -> tuple[Moment, ...]:
    now = later(**passed)
    return timeline(account, account_plan(account, Renewal(), now), now)


def test_the_past_comes_before_the_plan() -> None:
    moments = shown(with_current(), days=1)
    assert [m.message for m in moments if not m.planned][-1].startswith("canary 1 of generation 1")
    assert [m.message for m in moments if m.planned] == [
        "renewal starts",
        "the partner's answer is expected",
        "promotion",
        "the current certificate ends",
    ]
    assert [m.at for m in moments] == sorted(m.at for m in moments)


def test_a_new_account_has_a_begin_only() -> None:
    assert [m.message for m in shown(an_account())] == ["the account was added"]


def test_reasons_and_contacts_are_left_out() -> None:
    account = with_open_request(with_rolled_back())
    account = requesting.submitted(account, account.requests[-1].number, Submission(NOW, "eml", "desk@x.test"), by=BY)
    account = registering.snoozed(account, later(days=300), "planted reason", STAMP)
    account = registering.suspended(account, "planted reason", STAMP)
    for passed in (timedelta(), timedelta(days=320), timedelta(days=400)):
        text = " ".join(m.message for m in shown(account, seconds=passed.total_seconds()))
        assert "planted" not in text
        assert "@" not in text
        assert "was sent" in text
