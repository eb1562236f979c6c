"""What arrived is the next step of an account that waits for the partner, and a warning otherwise."""

from __future__ import annotations

from datetime import timedelta

from broker.copies import replace
from broker.model.account import Account
from broker.model.arrived import with_arrived
from broker.model.due import Renewal
from broker.model.life_cycle import Phase, Who
from broker.model.plan import AccountPlan, Action, account_plan
from broker.model.proposal import Arrival, Proposal
from tests.support import pki
from tests.support.accounts import with_current
from tests.support.replies import waiting_account

NOW = pki.NOW + timedelta(hours=2)
REPLY = Proposal("a1" * 8, Arrival.REPLY, NOW, "mail", request=2)
LINK = Proposal("b1" * 8, Arrival.LINK, NOW, "mail", request=2, download_by=NOW + timedelta(days=7))
EXPIRY = Proposal("c1" * 8, Arrival.EXPIRY, NOW, "mail")


def planned(account: Account) -> AccountPlan:
    return account_plan(account, Renewal(), NOW)


def test_a_reply_is_the_next_step() -> None:
    account = waiting_account()
    before = planned(account)
    assert (before.phase, before.who) == (Phase.SENT, Who.PARTNER)
    plan = with_arrived(before, account, [EXPIRY, REPLY])
    assert plan.who is Who.US
    assert plan.hint == f"broker cert import mzp-1 --reply mzp-1/{REPLY.id}"
    assert plan.message.endswith("a reply waits to be imported")
    (warning,) = plan.warnings[len(before.warnings) :]
    assert "a certificate expires" in warning


def test_a_reply_comes_first_after_the_end() -> None:
    account = waiting_account()
    expired = replace(planned(account), phase=Phase.EXPIRED, message="EXPIRED; sent")
    found = with_arrived(expired, account, [REPLY])
    assert (found.who, found.hint) == (Who.US, f"broker cert import mzp-1 --reply mzp-1/{REPLY.id}")
    ours = replace(expired, who=Who.US, hint="broker rotation rollback mzp-1")
    assert with_arrived(ours, account, [REPLY]).hint == ours.hint


def test_a_link_has_a_date() -> None:
    account = waiting_account()
    plan = with_arrived(planned(account), account, [LINK])
    assert (plan.steps[0].action, plan.steps[0].at) == (Action.REPLY, LINK.download_by)
    assert "download the certificate by" in plan.message


def test_other_phases_keep_their_step() -> None:
    account = with_current()
    before = planned(account)
    plan = with_arrived(before, account, [EXPIRY])
    assert (plan.message, plan.hint, plan.who) == (before.message, before.hint, before.who)
    assert len(plan.warnings) == len(before.warnings) + 1


def test_nothing_changes_without_arrivals() -> None:
    account = waiting_account()
    assert with_arrived(planned(account), account, []) == planned(account)
