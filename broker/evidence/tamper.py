"""Check an account document against its evidence.

The document holds the address that gets the secrets (base_url), the CA that verifies the server, and the client_ids. A
program with write access to Vault could change them there. `differences` finds every such change afterwards, from the
whole chain; `confirmed` prevents the worst ones, from the first entry alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Final

from broker.errors import InputError, RefusedError, UnknownNameError
from broker.model.account import Account
from broker.model.chain import GENESIS, Entry
from broker.model.history import What, fold, standing
from broker.model.names import AccountName
from broker.pki import certificates

__all__ = ["confirmed", "differences"]


def confirmed(account: Account, first: Callable[[AccountName], Entry]) -> Account:
    """Return `account` if it sends its secrets to the address in the first entry of its evidence; raise `RefusedError`.

    That entry is written once, no role can overwrite it, and no command changes what it fixes: base_url, login,
    profile, environment, subject. So call this before any secret is read. `first` reads the entry, and raises
    `UnknownNameError` if it is not stored.
    """
    try:
        entry = first(account.name)
    except UnknownNameError:
        raise RefusedError(
            f"the first entry of evidence of {account.name} is not stored, and nothing else says where its secrets may "
            "travel: nothing was sent",
            hint=_STORE if account.outbox[:1] and account.outbox[0].number == 1 else _VERIFY,
        ) from None
    for what in (*_begun_otherwise(account, entry), *_exchanged(account)):
        raise RefusedError(f"{what}: it was changed past the rules, and nothing was sent", hint=_VERIFY)
    return account


def differences(account: Account, entries: Sequence[Entry]) -> Iterator[str]:
    """Yield a message for each difference between `account` and its whole chain."""
    if not entries:
        yield f"the evidence of {account.name} does not begin with its being added"
        return
    ours = standing(account)
    try:
        theirs = fold(entries)
    except ValueError:
        yield _STORY.format(name=account.name)
        return
    for field, message in _DIFFERENCES.items():
        if getattr(ours, field) != getattr(theirs, field):
            yield message.format(name=account.name)
    yield from (*_begun_otherwise(account, entries[0]), *_exchanged(account))


def _begun_otherwise(account: Account, first: Entry) -> Iterator[str]:
    """Yield differences between `account` and its first entry."""
    chain, what = f"accounts/{account.name}", What.ACCOUNT_ADDED.value
    begins = replace(first, chain=chain, number=1, what=what, before=GENESIS)
    if first != replace(begins, hash=begins.expected_hash):
        yield f"the evidence of {account.name} does not begin with its being added"
    for field, said in standing(account).identity.items():
        if first.facts.get(field) != said:
            yield f"the {field} of {account.name} is {said!r}, and its evidence says {first.facts.get(field)!r}"


def _exchanged(account: Account) -> Iterator[str]:
    """Yield certificates and sets of CAs whose text does not match their digest."""
    for kept in account.certificates:
        if kept.pem and _digest(kept.pem, leaf=True) != kept.ref:
            yield f"the text of certificate {kept.ref[:16]}… of {account.name} is another certificate's"
    for pinned in account.anchors:
        if pinned.pem and _digest(pinned.pem, leaf=False) != pinned.ref:
            yield f"the text of the CAs {pinned.ref[:16]}… of {account.name} is that of other CAs"


def _digest(pem: str, *, leaf: bool) -> str:
    try:
        return certificates.certificate(pem).ref if leaf else certificates.ca_set(pem).ref
    except (InputError, ValueError):
        return ""


_VERIFY: Final = "broker evidence verify ACCOUNT says what differs; Vault's audit log says who wrote it"
_STORE: Final = (
    "any command that changes the account stores it, the one that added it too: broker account add, as before"
)
_STORY: Final = "the evidence of {name} leads to other stages or parts than the account has"
_DIFFERENCES: Final = {
    "requests": "the signing requests of {name} are not those of its evidence",
    "stages": _STORY,
    "parts": "the parts of the generations of {name} are not those of its evidence",
    "secrets": "the numbers of the secrets of {name} are not those of its evidence",
    "applications": "the applications of {name}, or their client_ids, are not those of its evidence",
    "issuing": "the CAs that replies to {name} must chain to are not those of its evidence",
    "trust": "the CAs that {name} verifies the partner's server by are not those of its evidence",
}
