"""The object graph. Each part is built when first touched, and imported then: a command pays for what it uses.

`cli` and later the service and the scheduler start here. This room is the one place where an adapter meets a port, so
it is where the type checker proves that they fit. Every use-case runs as the role that may do it and no other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property, partial
from typing import TYPE_CHECKING

from broker.compose.roles import Roles
from broker.compose.settling import settle
from broker.evidence.journal import Journal, chain_name
from broker.model.chain import Entry, require_text
from broker.model.clock import Clock, system_clock
from broker.vault.observer import Observer, unobserved
from broker.vault.policies import Role

if TYPE_CHECKING:
    from datetime import datetime

    from broker.config import Config
    from broker.evidence.audit import Record
    from broker.evidence.statements import Anchored
    from broker.issuing.grant import Issuer
    from broker.model.account import Account
    from broker.model.finding import Finding
    from broker.model.generation import Parts
    from broker.model.names import AccountName
    from broker.model.secret import Secret
    from broker.partners.profile import Profile
    from broker.rotation.ports import Answer, Canary
    from broker.rotation.registry import Registry
    from broker.rotation.rotation import Rotation
    from broker.vault.listing import Documents

__all__ = ["Broker", "Wiring"]


class Wiring:
    """What tests replace: the clock, and who watches writes."""

    def __init__(self, clock: Clock = system_clock, observer: Observer = unobserved) -> None:
        self.clock = clock
        self.observer = observer


class Broker:
    """Everything the broker can do, for one configuration. Close it, so that no token is left in Vault."""

    def __init__(
        self,
        config: Config,
        environment: Mapping[str, str],
        *,
        wiring: Wiring | None = None,
        say: Callable[[str], None] = lambda _: None,
        wait: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.config = config
        self.actor = config["actor"]
        require_text("actor", self.actor)  # before any write: a key is stored before the entry that speaks of it
        self.clock = (wiring or Wiring()).clock  # unchecked: for what is shown. Else `true_clock`
        self.roles = Roles(config, environment, observer=(wiring or Wiring()).observer, wait=wait)
        self._say = say
        # One chain for all bundles of this process. Its clock never refuses: a bundle given back is always recorded
        self._journal = Journal(chain_name(self.clock()), self._store_entry, self.clock, self.actor)

    def close(self) -> None:
        """Give back every token, and close every connection."""
        self.roles.close()

    def true_clock(self) -> datetime:
        """Return the time, for all that is dated or decided by it. Every use-case gets this clock and no other.

        Raise `RefusedError` if this machine's clock is more than minutes from Vault's.
        """
        self.roles.require_true_clock()
        return self.clock()

    # reading

    def account(self, name: AccountName, role: Role = Role.AUDITOR) -> Account:
        """Return an account as `role` reads it, the one that is about to act; raise `UnknownNameError`."""
        return self.roles.accounts(role).read(name).account

    def all_accounts(self) -> Iterator[Account]:
        """Yield every account that can be read, by name; say which cannot."""
        accounts = self.roles.accounts(Role.AUDITOR).all()
        for finding in accounts.unread.values():
            self._say(f"note: {finding.message}, so it is passed over; broker doctor says more")
        yield from accounts.found.values()

    def unread(self) -> tuple[Finding, ...]:
        """Return a finding for each record of a consumer, and each profile, that cannot be read."""
        from broker.vault.consumers import VaultConsumers

        consumers = VaultConsumers(self.roles.connection(Role.AUDITOR)).all()
        return (*consumers.unread.values(), *self.own_profiles(Role.AUDITOR).unread.values())

    def foreign(self, names: Sequence[AccountName] = ()) -> tuple[Finding, ...]:
        """Return a finding for each foreign entry: in the evidence of the accounts `names`, else in all folders."""
        from broker.vault.listing import entries_of, every_folder, foreign

        vault = self.roles.connection(Role.AUDITOR)
        folders = [entries_of(f"accounts/{name}") for name in names] or every_folder(vault)
        return tuple(foreign(vault, folders))

    def profile(self, name: str, role: Role) -> Profile:
        """Return a built-in profile, or one that was added to Vault, as it is now."""
        from broker.partners import catalogue
        from broker.vault.profiles import StoredProfiles

        stored = StoredProfiles(self.roles.connection(role))
        return catalogue.builtin(name) if name in catalogue.names() else catalogue.load(name, stored)

    def own_profiles(self, role: Role) -> Documents[Mapping[str, object]]:
        """Return the documents of the profiles that were added to Vault."""
        from broker.vault.profiles import own_profiles

        return own_profiles(self.roles.connection(role))

    def add_profile(self, profile: Profile) -> None:
        """Store a profile of a user's own, in the place of an older one of its name."""
        from broker.partners.catalogue import require_own
        from broker.vault.profiles import store_profile

        require_own(profile)
        store_profile(self.roles.connection(Role.OPERATOR), profile)

    def evidence(self, names: Sequence[AccountName], *, everything: bool) -> Record:
        """Return the evidence of accounts as it is stored, unjudged; with `everything`, all there is.

        Foreign entries are among its findings.
        """
        from broker.evidence.audit import collect
        from broker.vault.statements import VaultStatements

        vault, chains = VaultStatements(self.roles.connection(Role.AUDITOR)), self.roles.evidence(Role.AUDITOR)
        read = self.roles.accounts(Role.AUDITOR)
        wanted = read.names() if everything else names
        record = collect(chains, vault, lambda name: read.read(name).account, wanted, everything=everything)
        return replace(record, findings=(*record.findings, *self.foreign(names)))

    def anchor(self) -> Anchored:
        """Sign where every chain of evidence stands."""
        from broker.evidence.statements import anchor
        from broker.vault.statements import VaultStatements

        statements = VaultStatements(self.roles.connection(Role.ANCHOR))
        return anchor(statements.key(), statements, self.roles.evidence(Role.ANCHOR), self.true_clock)

    # use-cases

    @cached_property
    def registry(self) -> Registry:
        """The operator's use-cases: accounts, applications, secrets, the server's CA."""
        from broker.rotation.registry import Registry

        role = Role.OPERATOR
        settle = partial(self.settle, role=role)
        return Registry(self.roles.accounts(role), settle, self.true_clock, self.actor, self.roles.secrets(role))

    @cached_property
    def rotation(self) -> Rotation:
        """The rotator's use-cases, from a signing request to a retired set."""
        return self._rotation(Role.ROTATOR)

    @cached_property
    def canary(self) -> Rotation:
        """The same for a host that has the canary role and no other: `try_out` is what it may do."""
        return self._rotation(Role.CANARY)

    def _rotation(self, role: Role) -> Rotation:
        from broker.rotation.rotation import Rotation

        return Rotation(
            accounts=self.roles.accounts(role),
            settle=self.settle,
            clock=self.true_clock,
            actor=self.actor,
            profile=lambda account: self.profile(account.profile, role),
            keys=self.roles.keys(role),
            canary=self._prepare_try,
            stragglers=self.stragglers,
        )

    def stragglers(self, name: AccountName, number: int, role: Role = Role.ROTATOR) -> frozenset[str]:
        """Return who still holds a generation, or may: a record that cannot be read does not say that it is free."""
        from broker.model.consumer import stragglers
        from broker.vault.consumers import VaultConsumers

        records = VaultConsumers(self.roles.connection(role)).all()
        unknown = {f"{entity} (its record cannot be read: broker doctor)" for entity in records.unread}
        return stragglers(records.found.values(), name, number, self.clock()) | unknown

    def _prepare_try(self, account: Account, parts: Parts) -> Callable[[], Answer]:
        return self._canary(account, parts)  # built only then: a host without the canary role drafts and retires

    @cached_property
    def _canary(self) -> Canary:
        from broker.compose.privileged import canary

        return canary(self.roles, self.profile)

    # to consumers, as the server role

    def issuer(self, token: Secret[str]) -> Issuer:
        """Return the use-case that grants bundles to the consumer that `token` belongs to."""
        from broker.compose.privileged import issuer

        return issuer(self.roles, self.profile, token, self.true_clock, self._journal)

    def _store_entry(self, entry: Entry) -> None:
        self.roles.evidence(Role.SERVER).append(entry)  # connects only now

    # what follows from a change

    def settle(self, name: AccountName, role: Role = Role.ROTATOR) -> None:
        """Write the evidence that is due and destroy what is doomed; raise `ForkedEvidenceError`."""
        settle(self.roles, name, role, self._say)
