"""The plan of an account for which something arrived: a person looks at that first."""

from collections.abc import Iterable
from typing import Final

from broker.copies import replace
from broker.model.account import Account
from broker.model.life_cycle import Phase, Who
from broker.model.plan import AccountPlan, Action, Step
from broker.model.proposal import Arrival, Proposal, next_step, waiting

_WAITING: Final = (Phase.DRAFTED, Phase.SENT, Phase.OVERDUE)  # for a reply, or for the mail that asks for it
_LOUD: Final = (Phase.EXPIRED, Phase.COMPROMISED)  # they come before that


def with_arrived(plan: AccountPlan, account: Account, proposals: Iterable[Proposal]) -> AccountPlan:
    """Return `plan` with what arrived and waits for a person: the next step if the account waits for a reply.

    Everything else that arrived is a warning. A link has the date by which it must be opened.
    """
    arrived = sorted(waiting(proposals, account), key=lambda one: list(Arrival).index(one.kind))
    said = [next_step(account, one) for one in arrived]
    links = (one for one in arrived if one.download_by)
    steps = tuple(Step(Action.REPLY, one.download_by, "the link in a reply may stop working then") for one in links)
    plan = replace(plan, steps=(*steps, *plan.steps))
    asked = plan.who is Who.PARTNER and plan.phase in _LOUD and not account.automatic_candidate
    if said and (plan.phase in _WAITING or asked):
        what, command = said.pop(0)
        plan = replace(plan, who=Who.US, message=f"{plan.message}; {what}", hint=command)
    return replace(plan, warnings=(*plan.warnings, *(f"{what}: {command}" for what, command in said)))
