"""Follow-up of a change of an account: store its evidence, destroy its doomed secrets, detect a forked chain."""

from __future__ import annotations

from collections.abc import Callable

from broker.compose.roles import Roles
from broker.errors import BrokerError, RefusedError
from broker.model.account import Account
from broker.model.names import AccountName
from broker.model.role import Role
from broker.rotation import amend
from broker.rotation.ports import ForkedEvidenceError
from broker.vault.errors import MissingError


def settle(roles: Roles, name: AccountName, role: Role, say: Callable[[str], None]) -> None:
    """Store the evidence that is due and destroy doomed secrets; if Vault fails now, the next change tries again.

    Raise `ForkedEvidenceError` if no retry can succeed: another entry has the number of one that is due.
    """
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
    """Return whether evidence that is due can never be stored, because another entry has its number."""
    try:
        return any(map(roles.evidence(Role.AUDITOR).forked, account.outbox[:1]))
    except MissingError:
        return False
    except RefusedError:  # an entry of a newer broker, which this one can neither read nor replace
        return True
