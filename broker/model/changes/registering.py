"""An account, its applications, its passwords and the CAs it trusts."""

from __future__ import annotations

from dataclasses import replace

from broker.errors import ConflictError
from broker.model.account import Account, Contacts
from broker.model.authentication import PASSWORD
from broker.model.certificate import CaSet
from broker.model.changes.moving import moved
from broker.model.changes.writing import dooming_unused, recorded, with_ca_set, with_candidate, without
from broker.model.generation import Application, Parts, secret_refs
from broker.model.history import Event, parts_facts
from broker.model.stage import Move
from broker.model.stamp import Stamp

__all__ = ["account_set", "added", "application_removed", "application_set", "ca_accepted", "secret_set", "trust_set"]


def added(account: Account, *, by: str) -> Account:
    """Return the new account with its first entry of evidence."""
    return recorded(
        account,
        Stamp(account.created_at, by),
        Event.ACCOUNT_ADDED,
        profile=account.profile,
        environment=account.environment,
        login=account.login,
        base_url=account.base_url,
        subject=str(account.subject),
    )


def account_set(account: Account, contacts: Contacts, renew_before: str, stamp: Stamp) -> Account:
    """Replace the contacts and the renewal setting."""
    if (account.contacts, account.renew_before) == (contacts, renew_before):
        return account
    after = replace(account, contacts=contacts, renew_before=renew_before)
    partner, team = " ".join(contacts.partner), " ".join(contacts.team)
    return recorded(after, stamp, Event.ACCOUNT_SET, contact=partner, team=team, renew_before=renew_before)


def application_set(account: Account, name: str, client_id: str, stamp: Stamp) -> Account:
    """Add application `name`, or give it another client_id ("" leaves the one it has)."""
    known = next((a for a in account.applications if a.name == name), None)
    wanted = Application(name, client_id or (known.client_id if known else ""))
    if known and known.client_id == wanted.client_id and not (client_id and known.rejected_at):
        return account
    applications = tuple(sorted((*without(account.applications, known), wanted), key=lambda a: a.name))
    after = replace(account, applications=applications)
    return recorded(after, stamp, Event.APPLICATION_SET, application=name, client_id=wanted.client_id)


def application_removed(account: Account, name: str, stamp: Stamp) -> Account:
    """Remove application `name`; nothing to do where it is gone."""
    known = next((a for a in account.applications if a.name == name), None)
    if known is None:
        return account
    after = replace(account, applications=without(account.applications, known))
    return recorded(after, stamp, Event.APPLICATION_REMOVED, application=name)


def secret_set(account: Account, name: str, number: int, stamp: Stamp) -> Account:
    """Make `number` the newest of the secrets called `name`, with a candidate that tries it if there is a set.

    Numbers between the last one and this were written by a command that was killed: nobody will ever name them, so they
    are doomed. A person acted, so the breaker closes.
    """
    newest = account.secrets.get(name, 0)
    if newest == number:
        return account
    if number < newest:
        raise ConflictError(
            f"{account.name} got {name} {newest} meanwhile, and {number} is not used",
            hint=f"broker evidence show {account.name} says who set it; the same command again puts yours after it",
        )
    orphans = frozenset(ref for n in range(newest + 1, number) for ref in secret_refs({name: n}))
    change = Parts(secrets={name: number})
    after = replace(account, secrets={**account.secrets, name: number}, breaker=None)
    after = replace(after, doomed_secrets=account.doomed_secrets | orphans)
    what = Event.PASSWORD_SET if name == PASSWORD else Event.SECRET_SET
    return dooming_unused(account, _varied(recorded(after, stamp, what, **parts_facts(change)), change, stamp))


def trust_set(account: Account, trust: CaSet, stamp: Stamp) -> Account:
    """Know the partner's server by `trust` from now on, with a candidate that tries it where there is a set."""
    sets = (account.current, *account.candidates) if account.current else ()
    if account.trust == trust.ref and (not sets or any(g.parts.trust == trust.ref for g in sets)):
        return account
    after = replace(with_ca_set(account, trust), trust=trust.ref)
    after = recorded(after, stamp, Event.TRUST_SET, trust=trust.ref, fingerprints=" ".join(trust.fingerprints))
    return _varied(after, Parts(trust=trust.ref), stamp)


def ca_accepted(account: Account, issuing: CaSet, stamp: Stamp) -> Account:
    """Pin `issuing`: certificates that chain to it advance without a person from now on."""
    if account.issuing == issuing.ref:
        return account
    after = replace(with_ca_set(account, issuing), issuing=issuing.ref)
    return recorded(after, stamp, Event.CA_ACCEPTED, issuing=issuing.ref, fingerprints=" ".join(issuing.fingerprints))


def _varied(account: Account, change: Parts, stamp: Stamp) -> Account:
    """Add a candidate that makes `change`. It takes the place of one that waits to change the same part.

    Without that a command that was killed after its write, and run again, would leave two.
    """
    waiting = next((c for c in reversed(account.candidates) if c.parts.names & change.names), None)
    current = account.current
    if waiting is None and current is None:
        return account
    if current and change.over(current.parts) == current.parts:
        return account
    if waiting is None:
        return with_candidate(account, change, stamp)
    after = moved(account, waiting.number, Move.REJECT, stamp, "a part was set anew")
    return with_candidate(after, change.over(waiting.parts), stamp)
