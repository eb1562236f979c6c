"""The route that lists the applications that a caller has a right to."""

from typing import Protocol

import msgspec

from broker.issuing.usable import Usable
from broker.model.clock import Clock
from broker.model.lease import Caller
from broker.service.app import caller_of
from broker.service.asgi import Handler, Request, Response
from broker.service.messages import AccountsAnswer, ApplicationAnswer


class Lists(Protocol):
    """Use-case of the service. It raises `BrokerError`."""

    clock: Clock

    async def of(self, caller: Caller) -> list[Usable]:
        """Return the applications that the caller has a right to."""


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
        return Response(200, msgspec.json.encode(answer), {"content-type": "application/json"})

    return get_accounts
