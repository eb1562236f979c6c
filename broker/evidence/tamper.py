"""Check an account document against its evidence.

The document says where the secrets are sent (base_url, the server's CAs) and with which client_id. A person or program
with write access to Vault could change it without the broker. `differences` finds all such changes, from the whole
chain; `require_first_entry` prevents the worst ones, from the first entry, before any secret is read.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Final

from broker.copies import replace
from broker.errors import InputError, RefusedError, UnknownNameError
from broker.model.account import Account
from broker.model.chain import GENESIS, Entry
from broker.model.history import Event, account_state, fold, identity
from broker.model.names import AccountName
from broker.pki import certificates


def require_first_entry(account: Account, first: Callable[[AccountName], Entry]) -> Account:
    """Return `account`; raise `RefusedError` if it differs from what the first entry of its evidence fixes.

    That entry is written once, no role can overwrite it, and no command changes what it fixes: base_url, login,
    profile, environment. `first` reads it, and raises `UnknownNameError` if it is not stored.
    """
    try:
        entry = first(account.name)
    except UnknownNameError:
        raise RefusedError(
            f"the first entry of the evidence of {account.name} is not stored, so nothing confirms where its secrets "
            "may be sent: nothing was sent",
            hint=_STORE if account.outbox[:1] and account.outbox[0].number == 1 else _VERIFY.format(account.name),
        ) from None
    for message in (*_differs_from_first(account, entry), *_exchanged(account)):
        raise RefusedError(
            f"{message}: it was changed without the broker, and nothing was sent", hint=_VERIFY.format(account.name)
        )
    return account


def differences(account: Account, entries: Sequence[Entry]) -> Iterator[str]:
    """Yield a message for each difference between `account` and its whole chain."""
    if not entries:
        yield _BEGINNING.format(name=account.name)
        return
    ours = account_state(account)
    try:
        theirs = fold(entries)
    except ValueError:
        yield _STATE.format(name=account.name)
        return
    for field, message in _DIFFERENCES.items():
        if getattr(theirs, field) not in (getattr(ours, field), None):
            yield message.format(name=account.name)
    yield from (*_differs_from_first(account, entries[0]), *_exchanged(account))


def _differs_from_first(account: Account, first: Entry) -> Iterator[str]:
    genuine = replace(first, chain=f"accounts/{account.name}", number=1, what=Event.ACCOUNT_ADDED.value, before=GENESIS)
    if first != replace(genuine, hash=genuine.expected_hash):
        yield _BEGINNING.format(name=account.name)
    for field, ours in identity(account).items():
        if first.facts.get(field) != ours:
            yield f"the {field} of {account.name} is {ours!r}, and its evidence says {first.facts.get(field)!r}"


def _exchanged(account: Account) -> Iterator[str]:
    """Find certificates and CAs whose text has another digest than their reference."""
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


_VERIFY: Final = "broker evidence verify {} lists the differences; Vault's audit log shows who wrote them"
_STORE: Final = "add the account again, with the same options: like any change of it, this stores the entry"
_BEGINNING: Final = "the evidence of {name} does not begin with its being added"
_STATE: Final = "the evidence of {name} leads to other stages or parts than the account has"
_DIFFERENCES: Final = {
    "requests": "the signing requests of {name} are not those of its evidence",
    "stages": _STATE,
    "parts": "the parts of the generations of {name} are not those of its evidence",
    "secrets": "the numbers of the secrets of {name} are not those of its evidence",
    "applications": "the applications of {name}, or their client_ids, are not those of its evidence",
    "issuing": "the CAs that replies to {name} must chain to are not those of its evidence",
    "subject": "the subject of {name} is not that of its evidence",
    "settings": "the contacts or the renewal settings of {name} are not those of its evidence",
    "snoozed": "the time until which the renewal of {name} is put off is not that of its evidence",
    "suspended": "whether {name} is suspended is not as its evidence says",
    "removed": "whether {name} was removed is not as its evidence says",
    "trust": "the CAs that {name} verifies the partner's server by are not those of its evidence",
    "compromised": "the keys of {name} that others know are not those of its evidence",
    "rotation": "the steps of the password rotation of {name} are not those of its evidence",
    "holders": "those who hold copies of the keys of {name} outside are not those of its evidence",
}
