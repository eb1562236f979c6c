"""The timeline of an account, for callers with a right to one of its applications."""

from collections.abc import Callable
from functools import partial
from typing import Final

from broker.errors import DeniedError
from broker.issuing.fresh import Fresh
from broker.issuing.usable import Admits, Applications
from broker.model.lease import Caller
from broker.model.names import AccountName
from broker.model.plan import AccountPlan
from broker.model.timeline import Moment

_SHOWN: Final = 5.0  # seconds that a timeline is taken to be as it was made

Course = tuple[AccountPlan, tuple[Moment, ...]]


class Timelines:
    """The use-case of a service. `make` is called in threads."""

    def __init__(self, issuer: Admits, applications: Applications, make: Callable[[AccountName], Course]) -> None:
        self._issuer = issuer
        self._applications = applications
        self._make = make
        self._made: Fresh[AccountName, Course] = Fresh(_SHOWN)

    async def of(self, caller: Caller, name: AccountName) -> Course:
        """Return the plan and the timeline of an account; raise `DeniedError` without a right to it."""
        if name not in {one.account for one in await self._applications.of(caller)}:
            raise DeniedError("no right to an application of this account")
        return await self._made.get(name, lambda: self._issuer.in_thread(partial(self._make, name)))
