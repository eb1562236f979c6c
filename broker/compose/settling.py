"""What follows from a change of an account: evidence stored, secrets destroyed; and how a fork of it is told."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from broker.errors import BrokerError, RefusedError
from broker.vault.policies import Role

if TYPE_CHECKING:
    from broker.compose.roles import Roles
    from broker.model.account import Account
    from broker.model.names import AccountName

__all__ = ["forked", "settle"]


def settle(roles: Roles, name: AccountName, role: Role, say: Callable[[str], None]) -> None:
    """Write the evidence that is due and destroy what is doomed; where Vault fails now, the next command does.

    Raise `ForkedEvidenceError` where no command will: another entry stands in the place of one that is due.
    """
    from broker.rotation import amend
    from broker.rotation.ports import ForkedEvidenceError

    may_destroy = role is Role.ROTATOR
    try:
        amend.settle(
            name,
            accounts=roles.accounts(role),
            log=roles.evidence(role).append,
            keys=roles.keys(role) if may_destroy else None,
            secrets=roles.secrets(role) if may_destroy else None,
        )
    except ForkedEvidenceError:
        raise
    except BrokerError as error:
        say(f"note: evidence that is due is not stored yet ({error.message}): the next change of {name} tries again")


def forked(roles: Roles, account: Account) -> bool:
    """Return whether evidence that is due can never be stored, since something else stands in its place."""
    from broker.vault.errors import MissingError

    try:
        return any(map(roles.evidence(Role.AUDITOR).forked, account.outbox[:1]))
    except MissingError:
        return False
    except RefusedError:  # an entry of a newer broker, which this one can neither read nor replace
        return True
