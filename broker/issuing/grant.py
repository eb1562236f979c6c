"""Grant a consumer a bundle: authorize, record, then hand out. Its ports return secrets: a bundle is made of them."""

import hashlib
import ssl
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Protocol

import msgspec
from msgspec import Struct

from broker.copies import replace
from broker.errors import BrokerError, ConflictError, RefusedError
from broker.evidence.journal import Journal
from broker.issuing.leases import LeaseSigner, ended_by
from broker.model.account import Account
from broker.model.authentication import CLIENT_ID, Authentication
from broker.model.bundle import Bundle, Granted, Wanted
from broker.model.clock import Clock
from broker.model.generation import Generation, Parts
from broker.model.holdings import ConsumerRecord
from broker.model.lease import BundleKind, Consumer, Lease, expiry
from broker.model.names import AccountName
from broker.model.secret import Secret
from broker.model.stage import Stage
from broker.model.waiting import Ended, Event
from broker.partners.profile import Profile


class SetSecrets(Struct, frozen=True):
    """The secrets of one generation."""

    key: Secret[bytes]  # PKCS#8 PEM
    secrets: Mapping[str, Secret[str]]  # by name; "password" is one


class Consumers(Protocol):
    """The records of the generations that each consumer holds."""

    def change(self, entity: str, name: str, change: Callable[[ConsumerRecord], ConsumerRecord]) -> ConsumerRecord:
        """Apply the pure `change` to a consumer's record; after a conflict apply it to the newer record."""


ReadAccount = Callable[[AccountName], Account]
ReadSecrets = Callable[[AccountName, Parts], SetSecrets]  # raises RefusedError if they are destroyed
Authorize = Callable[[Account, str, BundleKind], Consumer]  # (account, application, kind); raises DeniedError


class Renewed(Struct, frozen=True):
    """A lease with a later end. `newer` is the current generation if the lease holds an older one."""

    lease: Lease
    lease_text: Secret[str]
    newer: int | None


class Issuer(Struct, frozen=True):
    """The use-case, as a set of ports."""

    accounts: ReadAccount
    profile: Callable[[Account], Profile]
    authorize: Authorize
    read_secrets: ReadSecrets
    consumers: Consumers
    journal: Journal
    signer: LeaseSigner
    clock: Clock  # raises `RefusedError` while it is wrong: other machines read the dates of leases

    def grant(self, wanted: Wanted) -> Granted:
        """Return a bundle of the current generation.

        The holding and its evidence are stored before this returns: a kill leaves a record too many, never one too
        few. The holding is recorded while the generation is current: `retire` looks only at generations that no longer
        are, so it misses no holder. Raise `DeniedError` if the consumer lacks the right, `RefusedError` if there is
        nothing to deliver, `ConflictError` if a rotation came first twice.
        """
        for _ in range(2):
            account = self.accounts(wanted.account)
            consumer = self.authorize(account, wanted.application, wanted.kind)
            authentication = self.profile(account).authentication
            generation = deliverable(account, wanted.application, authentication)
            lease = lease_of(wanted, consumer, account, generation, now=self.clock())
            hidden = self.read_secrets(account.name, generation.parts)
            try:
                lease = replace(lease, epoch=self._record(consumer, lease).epoch)
                if _still_given(self.accounts(wanted.account), generation.number):
                    self.journal.append("bundle-issued", **facts(lease, consumer))
                    bundle = bundle_of(account, lease, hidden, authentication)
                    return Granted(bundle, consumer, lease, self.signer.signed(lease))
            except KeyboardInterrupt:  # the consumer gets nothing, and would count as a holder until the lease ends
                with suppress(BrokerError):
                    self._withdraw(consumer, lease)
                raise
            self._withdraw(consumer, lease)
        raise ConflictError(f"{wanted.account} is being rotated", hint="run the command again")

    def give_back(self, granted: Granted) -> None:
        """Record that the consumer no longer holds the bundle."""
        self._withdraw(granted.consumer, granted.lease)
        self.journal.append("bundle-returned", lease=granted.lease.id, consumer=granted.consumer.entity)

    @property
    def renews(self) -> bool:
        """False: a bundle that is held without a service ends with its first lease."""
        return False

    def renew(self, wanted: Wanted, granted: Granted) -> Granted:
        """Return a bundle of the current generation, `granted` if it is one; raise what `grant` raises."""
        account = self.accounts(wanted.account).served()
        return self.grant(wanted) if newer_than(granted.lease, account) else granted

    def wait(self, granted: Granted) -> Ended:
        """Look at the account once, and not at the lease."""
        lease = granted.lease
        found = ended_by(self.accounts(lease.account), lease.application, lease.generation)
        return found or Ended(Event.TIMEOUT)

    def _record(self, consumer: Consumer, lease: Lease) -> ConsumerRecord:
        now = self.clock()
        return self.consumers.change(consumer.entity, consumer.name, lambda record: record.given(lease, now=now))

    def _withdraw(self, consumer: Consumer, lease: Lease) -> None:
        self.consumers.change(consumer.entity, consumer.name, lambda record: record.returned(lease.id))


def lease_of(wanted: Wanted, consumer: Consumer, account: Account, generation: Generation, *, now: datetime) -> Lease:
    """Return a lease of `generation`; raise `RefusedError` if its certificate has expired."""
    not_after = account.certificate(generation.parts.certificate).not_after
    if wanted.allow_expired and not_after <= now:
        not_after = now + wanted.ttl
    return Lease(
        id=_lease_id(wanted, consumer),
        consumer=consumer.entity,
        account=account.name,
        application=wanted.application,
        kind=wanted.kind,
        generation=generation.number,
        first_issued=now,
        expires=expiry(wanted.ttl, now=now, not_after=not_after),
    )


def _lease_id(wanted: Wanted, consumer: Consumer) -> str:
    """Return a random id, or the same one for each request of a consumer with the same idempotency key."""
    if not wanted.idempotency_key:
        return ssl.RAND_bytes(16).hex()  # `secrets` makes a system call, in which another thread takes its turn
    parts = (consumer.entity, wanted.account, wanted.application, wanted.kind.value, wanted.idempotency_key)
    return hashlib.sha256(msgspec.json.encode(parts)).hexdigest()[:32]


def facts(lease: Lease, consumer: Consumer) -> dict[str, str | int]:
    """Return what evidence says of a lease."""
    return {
        "account": lease.account,
        "application": lease.application,
        "generation": lease.generation,
        "kind": lease.kind.value,
        "consumer": consumer.entity,
        "consumer_name": consumer.name,
        "lease": lease.id,
        "expires": lease.expires.isoformat().replace("+00:00", "Z"),
    }


def renewal(lease: Lease, account: Account, ttl: timedelta, *, now: datetime) -> Lease:
    """Return `lease` with a later end, a day after it was first issued at most.

    Raise `RefusedError` if its generation is no longer delivered.
    """
    generation = account.served().generation(lease.generation)
    if not generation.stage.deliverable:
        raise RefusedError(f"generation {generation.number} is {generation.stage.value}", hint="get a new bundle")
    not_after = account.certificate(generation.parts.certificate).not_after
    end = min(expiry(ttl, now=now, not_after=not_after), lease.renewable_until)
    return replace(lease, expires=max(lease.expires, end))


def newer_than(lease: Lease, account: Account) -> int | None:
    """Return the current generation if `lease` holds another one."""
    current = account.current
    return current.number if current and current.number != lease.generation else None


def deliverable(account: Account, application_name: str, authentication: Authentication) -> Generation:
    """Return the current generation; raise `RefusedError` if the application cannot get a bundle of it."""
    application = account.served().application(application_name)
    if not application.client_id and CLIENT_ID in authentication.needs:
        raise RefusedError(
            f"application {account.name}/{application.name} has no client_id yet: it comes with the partner's reply",
            hint=f"broker app set {account.name}/{application.name} --client-id ID",
        )
    if account.current is None:
        hint = f"broker rotation status {account.name}"
        raise RefusedError(f"{account.name} has no current generation yet", hint=hint)
    return account.current


def _still_given(account: Account, number: int) -> bool:
    stopped = account.suspended or account.removed
    return not stopped and account.generation(number).stage is Stage.CURRENT


def bundle_of(account: Account, lease: Lease, hidden: SetSecrets, authentication: Authentication) -> Bundle:
    """Return the bundle that `lease` is for."""
    parts = account.generation(lease.generation).parts
    certificate = account.certificate(parts.certificate)
    return Bundle(
        account=account.name,
        application=lease.application,
        generation=lease.generation,
        base_url=account.base_url,
        client_id=parts.client_ids.get(lease.application, account.application(lease.application).client_id),
        login=account.login,
        secrets=hidden.secrets,
        key=hidden.key,
        certificate=certificate.pem,
        not_after=certificate.not_after,
        trust=account.ca_set(parts.trust).pem,
        lease_id=lease.id,
        expires=lease.expires,
        authentication=authentication,
    )
