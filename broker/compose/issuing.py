"""Issue bundles as the server role: for one command, or for every caller of a service."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from functools import cached_property

from broker.compose.privileged import Profiles, checked_accounts
from broker.compose.roles import Roles
from broker.evidence.journal import Journal
from broker.issuing.grant import Granted, Issuer, Renewed, Wanted
from broker.issuing.leases import LeaseSigner
from broker.issuing.ports import Authorize, Caller, Consumer, ReadAccount
from broker.model.account import Account
from broker.model.clock import Clock
from broker.model.lease import BundleKind
from broker.model.role import Role
from broker.model.secret import Secret
from broker.vault import capabilities, layout
from broker.vault.consumers import VaultConsumers
from broker.vault.exchange import Exchange
from broker.vault.secrets import VaultSecrets
from broker.vault.signers import lease_keys


class Issuing:
    """The use-cases of `Issuer` for any caller. One for each process: it keeps keys and first entries in memory."""

    def __init__(self, roles: Roles, profiles: Profiles, clock: Clock, journal: Callable[[], Journal]) -> None:
        self._roles = roles
        self._profiles = profiles
        self._clock = clock
        self._journal = journal
        self._exchange = Exchange(roles.anonymous, roles.config.issuers)

    def grant(self, caller: Caller, wanted: Wanted) -> Granted:
        """Return a bundle of the current generation, as `Issuer.grant` does."""
        return self.issuer(caller).grant(wanted)

    def renew(self, caller: Caller, lease: Secret[str], ttl: timedelta) -> Renewed:
        """Return the lease with a later end, as `Issuer.renew` does."""
        return self.issuer(caller).renew(lease, ttl)

    def revoke(self, caller: Caller, lease: Secret[str]) -> None:
        """End the lease, as `Issuer.revoke` does."""
        self.issuer(caller).revoke(lease)

    def check(self) -> None:
        """Raise `BrokerError` if nothing can be issued: Vault is away, or the server role cannot log in."""
        self._roles.connection(Role.SERVER).ask("GET", "auth/token/lookup-self")
        self._clock()

    def close(self) -> None:
        """Revoke the tokens that callers' JWTs were exchanged for."""
        self._exchange.close()

    def issuer(self, caller: Caller) -> Issuer:
        """Return the use-case for one caller."""
        vault = self._roles.connection(Role.SERVER)
        return Issuer(
            accounts=self._accounts,
            profile=lambda account: self._profiles(account.profile, Role.SERVER),
            authorize=self._authorize(caller),
            read_secrets=VaultSecrets(vault),
            consumers=VaultConsumers(vault),
            journal=self._journal(),
            signer=self._signer,
            clock=self._clock,
        )

    @cached_property
    def _accounts(self) -> ReadAccount:
        return checked_accounts(self._roles, Role.SERVER)

    @cached_property
    def _signer(self) -> LeaseSigner:
        return LeaseSigner(lease_keys(self._roles.connection(Role.SERVER)))

    def _authorize(self, caller: Caller) -> Authorize:
        def authorized(account: Account, application: str, kind: BundleKind) -> Consumer:
            token = self._exchange.token(caller.credential) if caller.is_jwt else caller.credential
            access = layout.Access(kind.value)
            right = layout.right(account.profile, account.environment, account.name, application, access)
            return capabilities.authorize(self._roles.connection(Role.SERVER), token, right, peer=caller.peer)

        return authorized
