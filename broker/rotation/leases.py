"""The operator's use-case for leases: revoke them, with evidence. This is the one place where a person ends a lease."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

from broker.errors import InputError
from broker.model.account import Account
from broker.model.changes.registering import lease_revoked
from broker.model.clock import Stamp
from broker.model.holdings import ConsumerRecord, Held, Which
from broker.model.names import AccountName
from broker.rotation.amend import UseCase
from broker.rotation.ports import Consumers

Holdings = Callable[[Which], Sequence[Held]]  # that fit, and that count for `retire`
_TOGETHER: Final = 200  # entries of evidence in one write of an account: Vault takes a value of 1 MiB


class Leases(UseCase, frozen=True):
    """Revocation of leases, by id, consumer, account and generation."""

    consumers: Consumers
    held: Holdings

    def revoke(self, which: Which, reason: str) -> tuple[Held, ...]:
        """End the leases that fit, and return what was held: nothing if they have ended already or never were.

        Their renewal is refused from then on, and nobody waits for their holders. A copy of a bundle works until its
        certificate expires. With an id, other leases that share its holding stay. The evidence is stored first: a kill
        leaves an entry too many, never a holder that vanished without one.
        """
        ended = tuple(self.held(which))
        if which.lease and len({holding.lease for _, holding in ended}) > 1:
            raise InputError(f"{which.lease} begins the ids of several leases", hint="broker lease list -o json")
        for name in sorted({holding.account for _, holding in ended}):
            of_one = [one for one in ended if one[1].account == name]
            for first in range(0, len(of_one), _TOGETHER):
                self._end(name, of_one[first : first + _TOGETHER], which, reason)
        return ended

    def _end(self, name: AccountName, ended: Sequence[Held], which: Which, reason: str) -> None:
        def noted(account: Account, stamp: Stamp) -> Account:
            for one in ended:
                account = lease_revoked(account, one, which.scope, reason, stamp)
            return account

        if not self.accounts.read(name).account.removed:  # then its evidence is over, and nothing of it is renewed
            self.settled(name, noted)
        for record, holding in ended:
            end = ConsumerRecord.without_lease if which.lease else ConsumerRecord.ended
            self.consumers.change(record.entity, record.name, partial(end, holding=holding, now=self.clock()))
