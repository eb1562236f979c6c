"""The plan of an account by its profile: the one that people, notices, the scheduler and the service read."""

from datetime import datetime
from typing import Final

from broker.copies import replace
from broker.model.account import Account
from broker.model.channel import BY_MACHINE, Channel
from broker.model.life_cycle import Phase
from broker.model.maintenance import Maintenance
from broker.model.plan import AccountPlan, account_plan
from broker.partners.profile import Profile

_NONE: Final = Maintenance()


def channel_of(account: Account, profile: Profile) -> Channel:
    """Return the account's channel, else its profile's."""
    return Channel(account.submit_via) if account.submit_via else profile.submission.how


def plan_of(
    account: Account, profile: Profile, now: datetime, maintenance: Maintenance = _NONE, *, forked: bool = False
) -> AccountPlan:
    """Return the plan of `account`. The scheduler sends no request whose channel needs a person."""
    plan = account_plan(account, profile.renewal, now, maintenance, forked=forked)
    by_hand = plan.phase is Phase.DRAFTED and channel_of(account, profile) not in BY_MACHINE
    return replace(plan, automatic=False) if by_hand else plan
