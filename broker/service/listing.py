"""Routes that show the applications that a caller has a right to, its leases, and the timeline of an account."""

from typing import Protocol

from broker.issuing.timelines import Course
from broker.issuing.usable import Usable
from broker.model.clock import Clock
from broker.model.holdings import Holding
from broker.model.lease import Caller, OwnLease
from broker.model.names import AccountName
from broker.service.app import caller_of, named
from broker.service.asgi import Handler, Request, Response, json_answer
from broker.service.messages import (
    AccountsAnswer,
    ApplicationAnswer,
    LeasesAnswer,
    MomentAnswer,
    TimelineAnswer,
)


class Lists(Protocol):
    """Use-case of the service. It raises `BrokerError`."""

    clock: Clock

    async def of(self, caller: Caller) -> list[Usable]:
        """Return the applications that the caller has a right to."""


class Holds(Protocol):
    """Use-case of the service. It raises `BrokerError`."""

    async def of(self, caller: Caller) -> list[Holding]:
        """Return what the caller holds."""


class Shows(Protocol):
    """Use-case of the service. It raises `BrokerError`."""

    async def of(self, caller: Caller, name: AccountName) -> Course:
        """Return the plan and the timeline of an account that the caller has a right to."""


def listing(applications: Lists) -> Handler:
    """Return the handler."""

    async def get_accounts(request: Request) -> Response:
        caller, now = caller_of(request), applications.clock()
        answer = AccountsAnswer(
            applications=[
                ApplicationAnswer(
                    account=one.account,
                    application=one.application,
                    state=one.state(now).value,
                    generation=one.generation,
                    not_after=one.not_after,
                )
                for one in await applications.of(caller)
            ]
        )
        return json_answer(answer)

    return get_accounts


def holding(leases: Holds) -> Handler:
    """Return the handler of the caller's leases: their ids, and never their text."""

    async def get_leases(request: Request) -> Response:
        caller = caller_of(request)
        held = await leases.of(caller)
        answer = LeasesAnswer(
            leases=[
                OwnLease(
                    lease_id=one.lease,
                    account=one.account,
                    application=one.application,
                    kind=one.kind,
                    generation=one.generation,
                    since=one.since,
                    expires=one.until,
                    shared=one.shared,
                )
                for one in held
                if one.until
            ]
        )
        return json_answer(answer)

    return get_leases


def course(timelines: Shows) -> Handler:
    """Return the handler of an account's timeline: no contacts, and no reasons that people wrote for colleagues."""

    async def get_timeline(request: Request) -> Response:
        caller, (account, _) = caller_of(request), named(request.names[0], "timeline")
        plan, moments = await timelines.of(caller, account)
        answer = TimelineAnswer(
            account=account,
            phase=plan.phase.value,
            since=plan.since,
            who=plan.who.value,
            automatic=plan.automatic,
            due=plan.due.at if plan.due else None,
            not_after=plan.due.not_after if plan.due else None,
            moments=[MomentAnswer(at=m.at, message=m.message, planned=m.planned) for m in moments],
        )
        return json_answer(answer)

    return get_timeline
