"""The leases of a caller, by the record of what it holds. It has one line for each application and generation."""

from collections.abc import Callable
from functools import partial

from broker.issuing.fresh import Fresh
from broker.issuing.usable import Admits, Applications
from broker.model.clock import Clock
from broker.model.holdings import ConsumerRecord, Holding, Which, held
from broker.model.lease import Caller


class OwnLeases:
    """The use-case of a service. `read` returns the record of an entity, and is called in threads."""

    def __init__(
        self, issuer: Admits, applications: Applications, read: Callable[[str], ConsumerRecord | None], clock: Clock
    ) -> None:
        self._issuer = issuer
        self._applications = applications
        self._read = read
        self._clock = clock
        self._listed: Fresh[str, list[Holding]] = Fresh(0)  # one reading at a time: records may be large

    async def of(self, caller: Caller) -> list[Holding]:
        """Return what the caller holds, by name; raise `DeniedError` without a right to any application."""
        entity = (await self._applications.consumer(caller)).entity
        return await self._listed.get(entity, lambda: self._issuer.in_thread(partial(self._list, entity)))

    def _list(self, entity: str) -> list[Holding]:
        record = self._read(entity)
        found = held([record] if record else [], self._clock(), Which())
        return sorted((h for _, h in found), key=lambda h: (h.account, h.application, h.generation))
