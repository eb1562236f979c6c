"""The object graph. Each part is built when it is first used.

`cli`, and later the service and the scheduler, start here and go no deeper. This room is the one place where adapters
meet ports, so the type checker proves here that they fit. Every use-case runs as the role that may do it and no other.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from functools import cache, cached_property, partial
from typing import Final

from broker.compose import privileged
from broker.compose.doctor import examined
from broker.compose.holders import held_in
from broker.compose.importing import Imports
from broker.compose.issuing import Issuing
from broker.compose.mail import Mail
from broker.compose.notifying import Notifying
from broker.compose.planning import Planning
from broker.compose.replies import Arriving
from broker.compose.roles import Roles
from broker.compose.scheduling import Scheduling
from broker.compose.serving import Listening, served
from broker.compose.status import AccountStatus, status
from broker.compose.submitting import Submitting
from broker.compose.vaults import Vaults
from broker.config import Config
from broker.copies import replace
from broker.errors import BrokerError, RefusedError, UnknownNameError
from broker.evidence.audit import Record, collect
from broker.evidence.holders import Holder, Period
from broker.evidence.statements import Anchored, ChainRecord, anchor
from broker.issuing.batch_issuer import OLDEST
from broker.model.account import Account
from broker.model.chain import require_text
from broker.model.clock import Clock, system_clock
from broker.model.finding import Finding
from broker.model.generation import Parts
from broker.model.holdings import ConsumerRecord, Held, Which, held, stragglers
from broker.model.lease import SKEW
from broker.model.names import AccountName
from broker.model.role import Role
from broker.model.verdict import CanaryResult
from broker.partners import catalogue
from broker.partners.profile import Profile
from broker.rotation import amend
from broker.rotation.leases import Leases
from broker.rotation.ports import Canary, ForkedEvidenceError
from broker.rotation.registry import Registry
from broker.rotation.reports import RotationStatus, rotation_status
from broker.rotation.rotation import Rotation
from broker.systemd import report
from broker.vault.connection import Observer, unobserved
from broker.vault.consumers import VaultConsumers
from broker.vault.errors import MissingError
from broker.vault.evidence import VaultStatements
from broker.vault.lease_keys import LeaseKeys, rotate_lease_key
from broker.vault.listing import Documents, entries_of, every_folder, foreign
from broker.vault.mail_secrets import VaultMailSecrets
from broker.vault.profiles import StoredProfiles, own_profiles, store_profile

LAG: Final = 1.0  # seconds; a service may read an account from a standby that is so far behind
PAUSE = OLDEST + LAG  # tests without a service set it to 0
_RECENT: Final = timedelta(minutes=15)


class Wiring:
    """Parts that tests replace: the clock, and the observer of writes."""

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
        require_text("actor", self.actor)  # before any write: a key is stored before the entry that names it
        self.clock = (wiring or Wiring()).clock  # unchecked, for display only: see `true_clock`
        self.roles = Roles(config, environment, observer=(wiring or Wiring()).observer, wait=wait)
        self._say = say
        self._environment = environment
        self._manager = environment.get("NOTIFY_SOCKET", "")  # set by systemd

    def close(self) -> None:
        """Give back every token, and close every connection."""
        if "issuing" in self.__dict__:
            self.issuing.close()
        self.roles.close()

    def true_clock(self) -> datetime:
        """Return the time that decisions and dates are made with. Every use-case gets this clock and no other.

        Raise `RefusedError` if this machine's clock is more than minutes from Vault's.
        """
        self.roles.require_true_clock()
        return self.clock()

    # reading

    def account(self, name: AccountName, role: Role = Role.AUDITOR) -> Account:
        """Return an account, read as `role`: the role that acts next. Raise `UnknownNameError`.

        One that was removed is returned to the auditor only.
        """
        found = self.roles.accounts(role).read(name).account
        return found if role is Role.AUDITOR else found.kept()

    def checked_logins(self) -> tuple[str, Mapping[Role, tuple[str, ...]]]:
        """Return Vault's address, and the files that each role of this host logs in with; raise `InputError`."""
        address, files = self.roles.settings.address, {}
        for role in self.roles.here or (Role.AUDITOR,):
            self.roles.connection(role)  # raises if its login cannot be built from the configuration
            way = self.roles.way(role)
            files[role] = way.files if way else ()
        return address, files

    def all_accounts(self) -> Iterator[Account]:
        """Yield every readable account, by name; report the others to `say`."""
        accounts = self.roles.accounts(Role.AUDITOR).all()
        for finding in accounts.unread.values():
            self._say(f"note: {finding.message}, so it is left out; run broker doctor for details")
        yield from accounts.found.values()

    def strange(self) -> Iterator[Finding]:
        """Yield a finding for each consumer's record and each profile that cannot be read, and each foreign entry."""
        yield from self._consumers(Role.AUDITOR).unread.values()
        yield from self.own_profiles(Role.AUDITOR).unread.values()
        yield from self.foreign(())

    def foreign(self, names: Sequence[AccountName]) -> tuple[Finding, ...]:
        """Return a finding for each foreign entry: in the evidence of the accounts `names`, else in all folders."""
        vault = self.roles.connection(Role.AUDITOR)
        folders = [entries_of(f"accounts/{name}") for name in names] or every_folder(vault)
        return tuple(foreign(vault, folders))

    def profile(self, name: str, role: Role) -> Profile:
        """Return a built-in profile, or one that was added to Vault, as it is now."""
        return catalogue.load(name, StoredProfiles(self.roles.connection(role)))

    def own_profiles(self, role: Role) -> Documents[Mapping[str, object]]:
        """Return the documents of the profiles that were added to Vault."""
        return own_profiles(self.roles.connection(role))

    def add_profile(self, profile: Profile) -> None:
        """Store a custom profile, replacing any of the same name."""
        catalogue.require_own(profile)
        store_profile(self.roles.connection(Role.OPERATOR), profile)

    def evidence(self, names: Sequence[AccountName], *, everything: bool) -> Record:
        """Return the stored evidence of accounts, unverified; with `everything`, all evidence.

        Foreign entries are among its findings.
        """
        vault, chains = VaultStatements(self.roles.connection(Role.AUDITOR)), self.roles.evidence(Role.AUDITOR)
        read = self.roles.accounts(Role.AUDITOR)
        wanted = read.names() if everything else names
        record = collect(chains, vault, lambda name: read.read(name).account, wanted, everything=everything)
        return replace(record, findings=(*record.findings, *self.foreign(names)))

    def anchor(self) -> Anchored:
        """Sign the heads of all chains of evidence."""
        statements = VaultStatements(self.roles.connection(Role.ANCHOR))
        return anchor(statements.key(), statements, self.roles.evidence(Role.ANCHOR), self.true_clock)

    def stored_evidence(self, names: Iterable[AccountName], *, issued: bool) -> Iterator[ChainRecord]:
        """Yield the chains of accounts, and with `issued` those of issuing processes, unverified.

        An entry that is due and not stored yet is reported to `say`.
        """
        evidence = self.roles.evidence(Role.AUDITOR)
        for name in names:
            kept = evidence.kept(f"accounts/{name}")
            stored = {entry.number for entry in kept.entries}
            due = tuple(entry for entry in self.account(name).outbox if entry.number not in stored)
            for entry in due:
                self._say(f"entry {entry.number} of {name} is not stored yet: a command that changes {name} stores it")
            yield replace(kept, entries=kept.entries + due)
        yield from map(evidence.kept, evidence.issuing_chains() if issued else ())

    def holders(self, name: AccountName, since: datetime, until: datetime) -> Iterator[Holder]:
        """Yield who held a generation of an account in a period, by the evidence, which is not verified."""
        found = held_in(Period(since, until), self.account(name), self.roles.evidence(Role.AUDITOR), self._say)
        now = self.clock()
        return (holder.at(now) for holder in found)

    def forked(self, account: Account) -> bool:
        """Return whether evidence that is due can never be stored, because another entry has its number."""
        try:
            return any(map(self.roles.evidence(Role.AUDITOR).forked, account.outbox[:1]))
        except MissingError:
            return False
        except RefusedError:  # an entry of a newer broker, which this one can neither read nor replace
            return True

    def statuses(self, names: Sequence[AccountName], clock: Clock) -> tuple[list[AccountStatus], list[Account]]:
        """Return the status of the accounts `names`, or of all, and these accounts."""
        found = list(self.planning.found(names, clock))
        return [status(*one) for one in found], [account for account, _, _ in found]

    @cached_property
    def planning(self) -> Planning:
        """Plans of accounts, by the windows and freezes of this host."""
        return Planning(self)

    def rotation_status(self, name: AccountName, clock: Clock) -> RotationStatus:
        """Return the generations of an account, its last canaries, and what prevents the next one."""
        records = cache(self._consumers)  # read once for all generations, and not if none is handed out

        def holders(number: int) -> frozenset[str]:
            return self._holders(records(Role.AUDITOR), name, number)

        ((account, plan, now),) = self.planning.found([name], clock)
        return replace(rotation_status(account, plan, holders, now), scheduler=self.scheduling.status())

    def doctor(self) -> list[Finding]:
        """Return findings about Vault, logins, policies, clock, files, accounts and profiles. Change nothing."""
        return examined(self)

    @cached_property
    def vaults(self) -> Vaults:
        """The embedded vault, and the set-up of any Vault: for administrators."""
        return Vaults(self.roles)

    @cached_property
    def imports(self) -> Imports:
        """Imports of accounts that exist, which take several roles."""
        return Imports(self)

    @cached_property
    def mail(self) -> Mail:
        """The mail servers, as the rotator uses them."""
        secrets = partial(self.mail_secrets, Role.ROTATOR)
        return Mail(self.config, self._environment, secrets, self.true_clock)

    @cached_property
    def submitting(self) -> Submitting:
        """The ways to the partner that need no person."""
        return Submitting(self)

    @cached_property
    def notifying(self) -> Notifying:
        """Notices and hooks."""
        return Notifying(self, self._environment)

    def mail_secrets(self, role: Role) -> VaultMailSecrets:
        """Return the secrets for mail servers, as far as `role` may touch them."""
        return VaultMailSecrets(self.roles.connection(role))

    @cached_property
    def arriving(self) -> Arriving:
        """Replies that arrive by mail and in the drop folder."""
        return Arriving(self, self._say)

    # use-cases

    @cached_property
    def registry(self) -> Registry:
        """The operator's use-cases: accounts, applications, passwords, CAs of the partner's server."""
        role = Role.OPERATOR
        settle = partial(self.settle, role=role)
        return Registry(self.roles.accounts(role), settle, self.true_clock, self.actor, self.roles.secrets(role))

    @cached_property
    def leases(self) -> Leases:
        """The operator's use-case for leases: revoke them."""
        role = Role.OPERATOR
        settle = partial(self.settle, role=role)
        held = partial(self.holdings, lambda: self.true_clock() - SKEW, role=role)
        consumers = VaultConsumers(self.roles.connection(role), announces=True)
        return Leases(self.roles.accounts(role), settle, self.true_clock, self.actor, consumers, held)

    def rotate_lease_key(self, *, again: bool) -> LeaseKeys:
        """Make a new key that signs leases, unless there is one of today; destroy keys that have ended."""
        return rotate_lease_key(self.roles.connection(Role.ROTATOR), self.true_clock(), again=again)

    @cached_property
    def rotation(self) -> Rotation:
        """The rotator's use-cases, from a signing request to a retired generation."""
        return self._rotation(Role.ROTATOR)

    @cached_property
    def canary(self) -> Rotation:
        """The same for a host that has the canary role only: it may call `try_out`."""
        return self._rotation(Role.CANARY)

    def _rotation(self, role: Role) -> Rotation:
        return Rotation(
            accounts=self.roles.accounts(role),
            settle=self.settle,
            clock=self.true_clock,
            actor=self.actor,
            profile=lambda account: self.profile(account.profile, role),
            keys=self.roles.keys(role),
            canary=self._prepare_try,
            stragglers=self.stragglers,
            others=partial(self._others, role),
            wait_for_services=self._wait_for_services,
        )

    @cached_property
    def scheduling(self) -> Scheduling:
        """The rotator's scheduler."""
        return Scheduling(self, partial(report, address=self._manager))

    def _wait_for_services(self, since: datetime) -> None:
        """Wait while a service may still hand out a generation that was current until `since`, and record that.

        The wait is counted by this machine's uptime: clocks may differ, and `since` only says whether it is needed.
        """
        if abs(self.clock() - since) < _RECENT:
            time.sleep(PAUSE)

    def _others(self, role: Role) -> Sequence[Account]:
        try:
            return tuple(self.roles.accounts(role).all().found.values())
        except BrokerError:  # it only improves an error
            return ()

    def stragglers(self, name: AccountName, number: int) -> frozenset[str]:
        """Return the consumers that hold a generation, and those whose record cannot be read, since they may."""
        return self._holders(self._consumers(Role.ROTATOR), name, number)

    def holdings(self, clock: Clock, which: Which, role: Role = Role.AUDITOR) -> tuple[Held, ...]:
        """Return the holdings that fit and that no end has passed; report records that cannot be read to `say`."""
        records = self._consumers(role)
        for finding in records.unread.values():
            self._say(f"note: {finding.message}, so its leases are left out; run broker doctor for details")
        return held(records.found.values(), clock(), which)

    def _consumers(self, role: Role) -> Documents[ConsumerRecord]:
        return VaultConsumers(self.roles.connection(role)).all()

    def _holders(self, records: Documents[ConsumerRecord], name: AccountName, number: int) -> frozenset[str]:
        unknown = {f"{entity} (its record cannot be read: broker doctor)" for entity in records.unread}
        return stragglers(records.found.values(), name, number, self.clock()) | unknown

    def _prepare_try(self, account: Account, parts: Parts) -> Callable[[], CanaryResult]:
        return self._canary(account, parts)  # built when used: other verbs work on a host without the canary role

    @cached_property
    def _canary(self) -> Canary:
        return privileged.canary(self.roles, self.profile)

    @cached_property
    def issuing(self) -> Issuing:
        """The server's use-cases: bundles and leases, for any caller."""
        return Issuing(self.roles, self.profile, self.clock, self.true_clock, self.actor)

    def serve(self, listening: Listening, ready: Callable[[tuple[str, ...]], None]) -> int:
        """Run the service until a signal asks to end; call `ready` with its addresses once it listens."""
        return served(lambda: self.issuing, listening, ready, partial(report, address=self._manager))

    def settle(self, name: AccountName, role: Role = Role.ROTATOR) -> None:
        """Store the evidence that is due and destroy doomed secrets; if Vault fails now, the next change tries again.

        Raise `ForkedEvidenceError` if no retry can succeed: another entry has the number of one that is due.
        """
        roles, may_destroy = self.roles, role is Role.ROTATOR
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
        except UnknownNameError:  # no account: nothing is due
            return
        except BrokerError as error:
            reason = f"evidence that is due is not stored yet ({error.message})"
            self._say(f"note: {reason}: the next change of {name} tries again")
