"""Steps that changes share: record evidence, replace an item, doom unused secrets."""

from typing import TypeVar

from broker.copies import replace
from broker.model.account import Account
from broker.model.certificate import CaSet
from broker.model.chain import Fact, appended
from broker.model.clock import Stamp
from broker.model.generation import Closed, Generation, Parts, SigningRequest
from broker.model.history import Event, parts_facts
from broker.model.password_rotation import PasswordStep
from broker.model.stage import Stage

T = TypeVar("T")


def recorded(account: Account, stamp: Stamp, what: Event, **facts: Fact) -> Account:
    """Return `account` with one more entry in its chain and its outbox."""
    entry = appended(f"accounts/{account.name}", account.head, stamp, what.value, facts)
    return replace(
        account, outbox=(*account.outbox, entry), head=replace(account.head, number=entry.number, hash=entry.hash)
    )


def with_candidate(account: Account, parts: Parts, stamp: Stamp) -> Account:
    """Return `account` with a new candidate that changes `parts`."""
    newest = Generation(account.next_generation, parts, Stage.CANDIDATE, stamp.at, account.next_order)
    after = replace(account, generations=(*account.generations, newest))
    return recorded(after, stamp, Event.GENERATION_BORN, generation=newest.number, **parts_facts(parts))


def with_request_closed(
    account: Account, request: SigningRequest, why: Closed, stamp: Stamp, because: str = ""
) -> Account:
    """Return `account` with `request` closed. The text of its CSR is dropped, its SPKI kept."""
    ended = replace(request, closed=why, closed_at=stamp.at, closed_because=because, csr="")
    after = replace(account, requests=swapped(account.requests, request, ended))
    facts = {"reason": because} if because else {}
    return recorded(after, stamp, Event.REQUEST_CLOSED, request=request.number, closed=why.value, **facts)


def dooming_unused(before: Account, after: Account) -> Account:
    """Return `after` with the keys and secrets doomed that `before` used and `after` does not."""
    return replace(
        after,
        doomed_keys=after.doomed_keys | (before.keys_in_use - after.keys_in_use),
        doomed_secrets=after.doomed_secrets | (before.secrets_in_use - after.secrets_in_use),
    )


def pruned(account: Account) -> Account:
    """Drop the text of certificates and CAs that no living generation and no pin refers to; keep their facts."""
    living = [g.parts for g in account.living]
    kept = {p.certificate for p in living}
    known = {ref for p in living for ref in (p.trust, p.issuing)} | {account.issuing, account.trust}
    return replace(
        account,
        certificates=tuple(c if c.ref in kept else replace(c, pem="") for c in account.certificates),
        anchors=tuple(a if a.ref in known else replace(a, pem="") for a in account.anchors),
    )


def with_ca_set(account: Account, ca_set: CaSet) -> Account:
    """Return `account` with the text of `ca_set` in it."""
    return replace(account, anchors=(*(a for a in account.anchors if a.ref != ca_set.ref), ca_set))


def with_password_step(account: Account, step: PasswordStep, password: int, stamp: Stamp) -> Account:
    """Note `step` in the password rotation that is under way, if `password` is newer than the one it replaces."""
    rotation = account.password_rotation
    if rotation is None or password <= rotation.old:
        return account
    return replace(account, password_rotation=rotation.with_step(step, stamp))


def swapped(items: tuple[T, ...], old: T, new: T) -> tuple[T, ...]:
    """Return `items` with `new` in place of `old`."""
    return tuple(new if item == old else item for item in items)
