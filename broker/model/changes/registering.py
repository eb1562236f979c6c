"""Changes of an account's applications, secrets and CAs."""

from datetime import datetime

from msgspec import Struct, structs

from broker.copies import replace
from broker.errors import ConflictError, RefusedError
from broker.model.account import Account, Contacts
from broker.model.authentication import PASSWORD
from broker.model.certificate import CaSet
from broker.model.chain import Fact
from broker.model.changes.moving import moved
from broker.model.changes.writing import (
    dooming_unused,
    pruned,
    recorded,
    with_ca_set,
    with_candidate,
    with_password_step,
    with_request_closed,
)
from broker.model.clock import Stamp
from broker.model.generation import (
    Application,
    Closed,
    Halt,
    Parts,
    PromotionMode,
    RenewalMode,
    Snooze,
    secret_refs,
)
from broker.model.history import Event, identity, parts_facts, settings_facts
from broker.model.holdings import Held
from broker.model.password_rotation import PasswordStep
from broker.model.stage import Move
from broker.model.subject import Subject


class AccountSettings(Struct, frozen=True):
    """Settings of an account that a person changes; None keeps what is stored."""

    partner: tuple[str, ...] | None = None
    team: tuple[str, ...] | None = None
    renew_before: str | None = None
    renewal: RenewalMode | None = None
    promotion: PromotionMode | None = None
    submit_via: str | None = None
    language: str | None = None


def added(account: Account, *, by: str) -> Account:
    """Return a new account with the first entry of its evidence."""
    facts = {**identity(account), "subject": str(account.subject), **settings_facts(account)}
    return recorded(account, Stamp(account.created_at, by), Event.ACCOUNT_ADDED, **facts)


def account_set(account: Account, settings: AccountSettings, stamp: Stamp) -> Account:
    """Replace the settings that are given."""
    given = {name: value for name, value in structs.asdict(settings).items() if value is not None}
    contacts = Contacts(
        given.pop("partner", account.contacts.partner),
        given.pop("team", account.contacts.team),
    )
    after = replace(account, contacts=contacts, **given)
    return account if after == account else recorded(after, stamp, Event.ACCOUNT_SET, **settings_facts(after))


def snoozed(account: Account, until: datetime, reason: str, stamp: Stamp) -> Account:
    """Put the renewal off until a time before the certificate's end; raise `RefusedError`."""
    if account.current is None:
        raise RefusedError(f"{account.name} has no certificate yet", hint=f"broker status {account.name}")
    end = account.certificate(account.current.parts.certificate).not_after
    if not stamp.at < until < end:
        raise RefusedError(
            f"{account.name} cannot be snoozed until {until:%F %TZ}: the time must lie between now and the end of its "
            f"certificate, {end:%F %TZ}",
            hint=f"broker rotation plan {account.name} shows when it must be renewed",
        )
    known = account.snoozed
    if known and (known.until, known.reason) == (until, reason):
        return account
    after = replace(account, snoozed=Snooze(stamp.at, until, reason))
    return recorded(after, stamp, Event.RENEWAL_SNOOZED, until=until.isoformat(), reason=reason)


def snooze_ended(account: Account, stamp: Stamp) -> Account:
    """Start the renewal when it is due again."""
    if not account.snoozed:
        return account
    return recorded(replace(account, snoozed=None), stamp, Event.SNOOZE_ENDED)


def subject_set(account: Account, subject: Subject, stamp: Stamp) -> Account:
    """Replace the subject of the next signing request."""
    if account.subject == subject:
        return account
    return recorded(replace(account, subject=subject), stamp, Event.SUBJECT_SET, subject=str(subject))


def suspended(account: Account, reason: str, stamp: Stamp) -> Account:
    """Issue nothing of the account from now on."""
    if account.suspended:
        return account
    after = replace(account, suspended=Halt(stamp.at, reason))
    return recorded(after, stamp, Event.ACCOUNT_SUSPENDED, reason=reason)


def resumed(account: Account, stamp: Stamp) -> Account:
    """Issue bundles of the account again."""
    if not account.suspended:
        return account
    return recorded(replace(account, suspended=None), stamp, Event.ACCOUNT_RESUMED)


def removed(account: Account, reason: str, stamp: Stamp) -> Account:
    """Close the open request and doom every secret. Only the evidence and the name are left."""
    if account.removed:
        return account
    after = account
    if account.open_request:
        after = with_request_closed(account, account.open_request, Closed.CANCELLED, stamp)
    after = recorded(replace(after, removed=Halt(stamp.at, reason)), stamp, Event.ACCOUNT_REMOVED, reason=reason)
    return pruned(dooming_unused(account, after))


def lease_revoked(account: Account, ended: Held, scope: str, reason: str, stamp: Stamp) -> Account:
    """Record that a person ended a lease, or by its `scope` all of a holding: from then on nobody waits for them."""
    record, holding = ended
    facts: dict[str, Fact] = {
        "lease": holding.lease,
        "consumer": record.entity,
        "consumer_name": record.name,
        "application": holding.application,
        "kind": holding.kind,
        "generation": holding.generation,
        "scope": scope,
    }
    return recorded(account, stamp, Event.LEASE_REVOKED, **facts, reason=reason)


def application_set(account: Account, name: str, client_id: str, stamp: Stamp) -> Account:
    """Add application `name`, or set its client_id ("" keeps the one it has).

    If consumers are given another one, a candidate with the new one is added, as for a new password. The one they are
    given withdraws a candidate with another.
    """
    known = next((a for a in account.applications if a.name == name), None)
    if known and known.client_id and account.current and client_id not in ("", known.client_id):
        return _with_change(account, Parts(client_ids={name: client_id}), stamp)
    wanted = Application(name, client_id or (known.client_id if known else ""))
    account = _without_change(account, name, stamp) if client_id else account
    if known and known.client_id == wanted.client_id and not (client_id and known.rejected_at):
        return account
    others = (a for a in account.applications if a is not known)
    after = replace(account, applications=tuple(sorted((*others, wanted), key=lambda a: a.name)))
    return recorded(after, stamp, Event.APPLICATION_SET, application=name, client_id=wanted.client_id)


def application_removed(account: Account, name: str, stamp: Stamp) -> Account:
    """Remove application `name`, if the account has it."""
    kept = tuple(a for a in account.applications if a.name != name)
    if kept == account.applications:
        return account
    account = _without_change(account, name, stamp)
    generations = tuple(
        replace(g, parts=g.parts.without_client_id(name)) if g.stage.deliverable else g for g in account.generations
    )
    after = replace(account, applications=kept, generations=generations)
    return recorded(after, stamp, Event.APPLICATION_REMOVED, application=name)


def secret_set(account: Account, name: str, number: int, stamp: Stamp) -> Account:
    """Make `number` the newest of the secrets called `name`, and add a candidate with it if there is a set to change.

    Numbers between the last one and this were written by killed commands and are never used, so they are doomed. Since
    a person acted, the breaker is reset.
    """
    newest = account.secrets.get(name, 0)
    if newest == number:
        return account
    if number < newest:
        raise ConflictError(
            f"{account.name} got {name} {newest} meanwhile, and {number} is not used",
            hint=f"broker evidence show {account.name} shows who set it; to replace it, run the same command again",
        )
    orphans = (secret_refs({name: n}) for n in range(newest + 1, number))
    doomed, change = account.doomed_secrets.union(*orphans), Parts(secrets={name: number})
    after = replace(account, secrets={**account.secrets, name: number}, breaker=None, doomed_secrets=doomed)
    if name == PASSWORD:
        after = with_password_step(after, PasswordStep.STORED, number, stamp)
    what = Event.PASSWORD_SET if name == PASSWORD else Event.SECRET_SET
    return dooming_unused(account, _with_change(recorded(after, stamp, what, **parts_facts(change)), change, stamp))


def trust_set(account: Account, trust: CaSet, stamp: Stamp) -> Account:
    """Make `trust` the CAs of the partner's server, and add a candidate with them if there is a set to change."""
    sets = (account.current, *account.candidates) if account.current else ()
    if account.trust == trust.ref and (not sets or any(g.parts.trust == trust.ref for g in sets)):
        return account
    after = replace(with_ca_set(account, trust), trust=trust.ref)
    after = recorded(after, stamp, Event.TRUST_SET, trust=trust.ref, fingerprints=" ".join(trust.fingerprints))
    return _with_change(after, Parts(trust=trust.ref), stamp)


def ca_accepted(account: Account, issuing: CaSet, stamp: Stamp) -> Account:
    """Pin `issuing`: certificates that chain to these CAs are accepted without a person."""
    if account.issuing == issuing.ref:
        return account
    after = replace(with_ca_set(account, issuing), issuing=issuing.ref)
    return recorded(after, stamp, Event.CA_ACCEPTED, issuing=issuing.ref, fingerprints=" ".join(issuing.fingerprints))


def _with_change(account: Account, change: Parts, stamp: Stamp) -> Account:
    """Add a candidate that makes `change`, in place of one that changes the same part.

    Otherwise a command that was killed after its write, and run again, would leave two.
    """
    replaced = next((c for c in reversed(account.candidates) if c.parts.names & change.names), None)
    current = account.current
    if change.over(current.parts) == current.parts if current else replaced is None:
        return account
    if replaced:
        change = change.over(replaced.parts)
        if change == replaced.parts:
            return account
        account = moved(account, replaced.number, Move.REJECT, stamp, "a part was set again")
    return with_candidate(account, change, stamp)


def _without_change(account: Account, application: str, stamp: Stamp) -> Account:
    """Withdraw candidates that change the client_id of `application`; what else they change goes on in new ones."""
    for candidate in account.candidates:
        if application in candidate.parts.client_ids:
            account = moved(account, candidate.number, Move.REJECT, stamp, "a part was set again")
            rest = candidate.parts.without_client_id(application)
            account = with_candidate(account, rest, stamp) if rest.names else account
    return account
