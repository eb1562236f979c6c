"""Issue bundles as the server role: for one command, or for every caller of a service."""

import asyncio
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property, lru_cache, partial
from typing import Final

from broker.compose.privileged import Profiles, checked_accounts
from broker.compose.roles import Roles
from broker.errors import BrokerError, DeniedError, PartlyUnavailableError, UnknownNameError
from broker.evidence.journal import Journal, chain_name
from broker.issuing.announced import Announced
from broker.issuing.batch_issuer import BatchIssuer, Limits, Ports
from broker.issuing.batches import Batches, Recorder, Recording, counted
from broker.issuing.expiries import Expiries
from broker.issuing.grant import Issuer, ReadAccount
from broker.issuing.leases import LeaseSigner
from broker.issuing.loop_journal import LoopJournal
from broker.issuing.own_leases import OwnLeases
from broker.issuing.readiness import require_issuable
from broker.issuing.timelines import Course, Timelines
from broker.issuing.usable import Applications, ByRight, usable
from broker.issuing.waits import Documents, Waits
from broker.model.account import Account
from broker.model.chain import Entry
from broker.model.clock import Clock
from broker.model.holdings import NamedLease
from broker.model.lease import BundleKind, Caller, Consumer, Lease
from broker.model.names import AccountName
from broker.model.role import Role
from broker.model.secret import Secret
from broker.model.timeline import timeline
from broker.partners.planned import plan_of
from broker.service.answers import Contents
from broker.telemetry import log
from broker.vault import capabilities, layout, pki_engine
from broker.vault.changes import recent_changes
from broker.vault.channel import Channel
from broker.vault.connection import Connection
from broker.vault.consumers import VaultConsumers
from broker.vault.errors import OwnDenialError
from broker.vault.evidence import VaultEvidence
from broker.vault.exchange import Exchange
from broker.vault.lease_keys import lease_signer
from broker.vault.secrets import read_secrets
from broker.windows import maintenance

_PLACES: Final = 4096  # accounts


@contextmanager
def _ours() -> Iterator[None]:
    """Raise `PartlyUnavailableError` if Vault denies something to the broker itself: it says nothing of the caller."""
    try:
        yield
    except OwnDenialError as error:
        raise _unavailable(error) from None


def _unavailable(error: OwnDenialError) -> PartlyUnavailableError:
    log.error("Vault denies a request of the broker itself", reason=error.message, hint=error.hint)
    return PartlyUnavailableError("Vault denies the broker what it needs", hint="the broker's log says what")


class Issuing:
    """The server's use-cases. One for each process: it keeps keys and first entries of evidence in memory.

    `clock` is displayed, and dates evidence: giving a bundle back is always recorded. `true_clock` raises
    `RefusedError` while it is wrong. `by` is named in evidence.
    """

    def __init__(self, roles: Roles, profiles: Profiles, clock: Clock, true_clock: Clock, by: str) -> None:
        self._roles = roles
        self._profiles = profiles
        self._clock = clock
        self._true_clock = true_clock
        self._by = by
        self._exchange = Exchange(roles.anonymous, roles.config.issuers)

    def check(self) -> None:
        """Raise `BrokerError` if nothing can be issued: Vault is away, or the server role cannot log in."""
        self._vault.ask("POST", "sys/capabilities-self", {"paths": [layout.RIGHTS]})  # any call with our token
        self._true_clock()

    def check_account(self, name: AccountName) -> None:
        """Raise `BrokerError` if no bundle of the account can be issued now."""
        self._true_clock()
        account = self._accounts(name)
        authentication = self._profiles(account.profile, Role.SERVER).authentication
        parts = require_issuable(account, authentication, self._clock()).parts
        read_secrets(self._vault, name, parts)

    def login_ends(self) -> float | None:
        """Return when the server role's token ends, in Unix time; None if that is unknown."""
        return self._vault.tokens.ends() if self._vault.tokens else None

    def expiries(self) -> Expiries:
        """Return the ends of all accounts' certificates, read in the background once it is entered."""
        accounts = self._roles.accounts(Role.SERVER)
        return Expiries(accounts.names, lambda name: accounts.read(name).account)

    def close_channel(self) -> None:
        """Close the connection of the event loop, on it."""
        self._channel.close()

    def close(self) -> None:
        """Revoke the tokens that callers' JWTs were exchanged for."""
        self._exchange.close()

    def server_certificate(self, pki: str, name: str) -> Secret[bytes]:
        """Return a new key and certificate for the service, which is called `name`, from Vault's PKI."""
        return pki_engine.issue(self._vault, pki, name)

    def issuer(self, caller: Caller) -> Issuer:
        """Return the use-case for one caller, which reads everything from Vault for each bundle."""

        def authorize(account: Account, application: str, kind: BundleKind) -> Consumer:
            return self._authorized(caller, account, application, kind)

        return Issuer(
            accounts=self._accounts,
            profile=lambda account: self._profiles(account.profile, Role.SERVER),
            authorize=authorize,
            read_secrets=partial(read_secrets, self._vault),
            consumers=VaultConsumers(self._vault),
            journal=self._journal,
            signer=self._signer(),
            clock=self._true_clock,
        )

    @cached_property
    def service(self) -> BatchIssuer[Contents]:
        """The use-case for all callers of a service, on its event loop."""
        announced = Announced()
        recorder = Recorder(VaultConsumers(self._vault), self._loop_journal(), self._clock, announced)
        ports = Ports(
            signer=self._signer,
            contents=Contents,
            accounts=_ours()(self._accounts),
            authentication=_ours()(lambda account: self._profiles(account.profile, Role.SERVER).authentication),
            judge=self.judged,
            group=self._group,
            read_secrets=_ours()(partial(read_secrets, self._vault)),
            end=_ours()(recorder.end),
            end_named=_ours()(recorder.end_named),
            note_return=_ours()(self._note_return),
            require_true_clock=self._true_clock,
            changes=partial(recent_changes, self._vault),
            announced=announced,
        )
        limits = Limits(rate=float(self._roles.config["service.rate"]))

        async def write(batch: Sequence[Recording]) -> list[int | BrokerError]:
            results = await recorder.write(batch)
            return [_unavailable(result) if isinstance(result, OwnDenialError) else result for result in results]

        return BatchIssuer(ports, Batches(counted(write)), self._clock, limits)

    @cached_property
    def _journal(self) -> Journal:
        return Journal(chain_name(self._clock()), self._evidence.append, self._clock, self._by)

    def _loop_journal(self) -> LoopJournal:
        async def store(entry: Entry) -> None:
            if not await self._evidence.append_on_loop(entry, self._channel.post):
                await asyncio.to_thread(_ours()(self._evidence.append), entry)

        return LoopJournal(chain_name(self._clock()), store, self._clock, self._by)

    def _note_return(self, consumer: Consumer, lease: Lease | NamedLease) -> None:
        self._journal.append("bundle-returned", lease=lease.id, consumer=consumer.entity, account=lease.account)

    @cached_property
    def _channel(self) -> Channel:
        return Channel(self._vault.settings)

    @property
    def _evidence(self) -> VaultEvidence:
        return self._roles.evidence(Role.SERVER)

    @cached_property
    def waits(self) -> Waits:
        """Waits of callers of that service."""
        documents = Documents(
            changes=lambda: recent_changes(self._vault),
            account=lambda name: self._roles.accounts(Role.SERVER).read(name).account,
            record=VaultConsumers(self._vault).read,
        )
        return Waits(self.service, documents)

    @cached_property
    def applications(self) -> Applications:
        """Applications that callers of that service have a right to."""

        @_ours()
        def all_of_them() -> ByRight:
            accounts = self._roles.accounts(Role.SERVER).all().found.values()
            return {
                layout.right(account.profile, account.environment, account.name, one.application): one
                for account, one in usable(accounts)
            }

        @_ours()
        def permitted(caller: Caller, rights: Collection[str]) -> tuple[Consumer, frozenset[str]]:
            return capabilities.permitted(self._vault, self._token(caller), rights, peer=caller.peer)

        return Applications(self.service, all_of_them, permitted, self._clock)

    @cached_property
    def own_leases(self) -> OwnLeases:
        """Leases of callers of that service."""
        read = _ours()(VaultConsumers(self._vault).read)
        return OwnLeases(self.service, self.applications, read, self._clock)

    @cached_property
    def timelines(self) -> Timelines:
        """Timelines of accounts that callers of that service have a right to."""

        @_ours()
        def made(name: AccountName) -> Course:
            account, now = self._roles.accounts(Role.SERVER).read(name).account.kept(), self._clock()
            config = self._roles.config
            calendar = maintenance(config.windows, config.freezes)
            plan = plan_of(account, self._profiles(account.profile, Role.SERVER), now, calendar)
            return plan, timeline(account, plan, now)

        return Timelines(self.service, self.applications, made)

    @property
    def _vault(self) -> Connection:
        return self._roles.connection(Role.SERVER)

    @cached_property
    def _accounts(self) -> ReadAccount:
        return checked_accounts(self._roles, Role.SERVER)

    def _signer(self) -> LeaseSigner:
        return lease_signer(self._vault, self._clock())

    @_ours()
    def judged(self, caller: Caller, name: AccountName, application: str, kind: BundleKind) -> Consumer:
        """Return the consumer, if it has the right. Nothing else is checked: a stranger must learn nothing."""
        try:
            profile, environment = self._place(name)
        except UnknownNameError as error:
            raise DeniedError(error.message) from None
        right = layout.right(profile, environment, name, application, kind.value)
        return self._authorizer.authorize(self._token(caller), right, peer=caller.peer)

    @cached_property
    def _authorizer(self) -> capabilities.Authorizer:
        return capabilities.Authorizer(self._vault)

    @cached_property
    def _place(self) -> Callable[[AccountName], tuple[str, str]]:
        """Return the function that returns an account's profile and environment. No command changes them."""

        def read(name: AccountName) -> tuple[str, str]:
            account = self._roles.accounts(Role.SERVER).read(name).account
            return account.profile, account.environment

        return lru_cache(_PLACES)(read)

    def _authorized(self, caller: Caller, account: Account, application: str, kind: BundleKind) -> Consumer:
        right = layout.right(account.profile, account.environment, account.name, application, kind.value)
        return capabilities.authorize(self._vault, self._token(caller), right, peer=caller.peer)

    def _group(self, caller: Caller) -> str:
        return self._exchange.mount(caller.credential) if caller.is_jwt else ""

    def _token(self, caller: Caller) -> Secret[str]:
        return self._exchange.token(caller.credential) if caller.is_jwt else caller.credential
