"""The keys that sign leases, as a service knows them: read again now and then, so that it follows their rotation."""

import time
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Final

from broker.issuing.fresh import Fresh
from broker.issuing.leases import LeaseSigner
from broker.model.lease import Lease
from broker.model.secret import Secret

READ: Final = 30.0  # seconds that the keys are used after they were read
_UNKNOWN: Final = 1.0  # the same for leases of a key that is not known: of a forger, or of a replica that has read it


class Signers:
    """The signer of the moment. An unknown key is looked for in Vault twice a second at most, for all callers."""

    def __init__(
        self, read: Callable[[], Awaitable[LeaseSigner]], uptime: Callable[[], float] = time.monotonic
    ) -> None:
        self._read = read
        self._usual: Fresh[str, LeaseSigner] = Fresh(READ, uptime)
        self._newest: Fresh[str, LeaseSigner] = Fresh(_UNKNOWN, uptime)

    async def current(self) -> LeaseSigner:
        """Return the signer."""
        return await self._usual.get("", self._read)

    async def opened(self, text: Secret[str], *, now: datetime) -> Lease:
        """Return the lease, as `LeaseSigner.opened` does."""
        signer = await self.current()
        if not signer.knows(text):
            signer = await self._newest.get("", self._read)
        return signer.opened(text, now=now)
