"""An account, its applications, its passwords and the CAs it trusts."""

from __future__ import annotations

from dataclasses import fields, replace

from broker.errors import ConflictError
from broker.model.account import Account
from broker.model.certificate import CaSet, CaSetRef
from broker.model.changes.moving import moved
from broker.model.changes.writing import born, dooming, holding, noted, without
from broker.model.generation import (
    Application,
    Generation,
    Parts,
    PasswordRef,
)
from broker.model.history import What
from broker.model.stage import Move
from broker.model.stamp import Stamp

__all__ = ["added", "application_removed", "application_set", "ca_accepted", "password_set", "trust_set"]


def added(account: Account, *, by: str) -> Account:
    """Return the new account with its first entry of evidence."""
    return noted(
        account,
        Stamp(account.created_at, by),
        What.ACCOUNT_ADDED,
        profile=account.profile,
        environment=account.environment,
        login=account.login,
        base_url=account.base_url,
        subject=str(account.subject),
    )


def application_set(account: Account, name: str, client_id: str, stamp: Stamp) -> Account:
    """Add application `name`, or give it another client_id ("" leaves the one it has)."""
    known = next((a for a in account.applications if a.name == name), None)
    wanted = Application(name, client_id or (known.client_id if known else ""))
    if known and known.client_id == wanted.client_id and not (client_id and known.rejected_at):
        return account
    applications = tuple(sorted((*without(account.applications, known), wanted), key=lambda a: a.name))
    after = replace(account, applications=applications)
    return noted(after, stamp, What.APPLICATION_SET, application=name, client_id=wanted.client_id)


def application_removed(account: Account, name: str, stamp: Stamp) -> Account:
    """Remove application `name`; nothing to do where it is gone."""
    known = next((a for a in account.applications if a.name == name), None)
    if known is None:
        return account
    after = replace(account, applications=without(account.applications, known))
    return noted(after, stamp, What.APPLICATION_REMOVED, application=name)


def password_set(account: Account, password: PasswordRef, stamp: Stamp) -> Account:
    """Make `password` the newest, with a candidate that tries it where there is a set to join it to.

    Slots between the last password and this one were written by a command that was killed: nobody will ever name
    them, so they are doomed. A person acted, so the breaker closes.
    """
    if account.password == password:
        return account
    if account.password and password < account.password:
        raise ConflictError(
            f"{account.name} got password {account.password} meanwhile, and {password} is not used",
            hint=f"broker evidence show {account.name} says who set it; the same command again puts yours after it",
        )
    orphans = {PasswordRef(n) for n in range((account.password or 0) + 1, password)}
    doomed = account.doomed_passwords | orphans
    after = replace(account, password=password, breaker=None, doomed_passwords=doomed)
    after = noted(after, stamp, What.PASSWORD_SET, password=password)
    return dooming(account, _varied(after, stamp, password=password))


def trust_set(account: Account, trust: CaSet, stamp: Stamp) -> Account:
    """Know the partner's server by `trust` from now on, with a candidate that tries it where there is a set."""
    sets = (account.current, *account.candidates) if account.current else ()
    if account.trust == trust.ref and (not sets or any(g.parts.trust == trust.ref for g in sets)):
        return account
    after = replace(holding(account, trust), trust=trust.ref)
    after = noted(after, stamp, What.TRUST_SET, trust=trust.ref, fingerprints=" ".join(trust.fingerprints))
    return _varied(after, stamp, trust=trust.ref)


def ca_accepted(account: Account, issuing: CaSet, stamp: Stamp) -> Account:
    """Pin `issuing`: certificates that chain to it advance without a person from now on."""
    if account.issuing == issuing.ref:
        return account
    after = replace(holding(account, issuing), issuing=issuing.ref)
    return noted(after, stamp, What.CA_ACCEPTED, issuing=issuing.ref, fingerprints=" ".join(issuing.fingerprints))


def _varied(
    account: Account,
    stamp: Stamp,
    *,
    password: PasswordRef | None = None,
    trust: CaSetRef | None = None,
) -> Account:
    """Add a candidate that differs from the current set in one part; before the first promotion, from the candidate."""
    model = account.current or (account.candidates[-1] if account.candidates else None)
    if model is None:
        return account
    parts = replace(model.parts, password=password or model.parts.password, trust=trust or model.parts.trust)
    if parts == model.parts:
        return account
    after, outdated = account, _outdated(account, "password" if password else "trust")
    if outdated:
        after = moved(after, outdated.number, Move.REJECT, stamp, reason="a part was set anew")
    return born(after, parts, stamp, instead_of=outdated)


def _outdated(account: Account, part: str) -> Generation | None:
    """Return the candidate that tries nothing but an older choice of `part`; before the first promotion, the newest.

    Without this a command that was killed after its write, and run again, would leave two that change the same part.
    """
    if account.current is None:
        return account.candidates[-1]
    for candidate in reversed(account.candidates):
        base = account.generation(candidate.base).parts if candidate.base else None
        if base and not candidate.held and not candidate.restores and _changed(base, candidate.parts) == {part}:
            return candidate
    return None


def _changed(base: Parts, parts: Parts) -> set[str]:
    return {field.name for field in fields(Parts) if getattr(base, field.name) != getattr(parts, field.name)}
