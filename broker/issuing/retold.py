"""What an account's document says besides stages and numbers, held against its evidence.

Where the secrets travel (base_url), whom they are shown to (the server's CA) and which client_id goes with them stand
in the document, and whoever may write documents past the broker could change them there.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from broker.errors import InputError
from broker.model.account import Account
from broker.model.evidence import Entry
from broker.model.history import What, fold, standing
from broker.model.stage import Stage
from broker.pki import certificates

__all__ = ["untold"]


def untold(account: Account, entries: Sequence[Entry]) -> Iterator[str]:
    """Yield a sentence for each thing in `account` that its whole chain tells otherwise, or never told."""
    if not _same_standing(account, entries):
        yield f"the evidence of {account.name} leads to other stages or parts than the account has"
        return
    for field, said in _identity(account).items():
        told = _last(entries, What.ACCOUNT_ADDED, field)
        if told != said:
            yield f"the {field} of {account.name} is {said!r}, and its evidence says {told!r}"
    clients = {a.name: a.client_id for a in account.applications}
    if clients != _applications(entries):
        yield f"the applications of {account.name}, or their client_ids, are not those of its evidence"
    if (account.issuing or "") != _last(entries, What.CA_ACCEPTED, "issuing"):
        yield f"the CAs that replies to {account.name} must chain to are not those of its evidence"
    if (account.trust or "") != _trust(entries):
        yield f"the CAs that {account.name} knows the partner's server by are not those of its evidence"
    yield from _exchanged(account)


def _same_standing(account: Account, entries: Iterable[Entry]) -> bool:
    try:
        return fold(entries) == standing(account)
    except (KeyError, ValueError):
        return False


def _identity(account: Account) -> dict[str, str]:
    return {
        "profile": account.profile,
        "environment": account.environment,
        "login": account.login,
        "base_url": account.base_url,
        "subject": str(account.subject),
    }


def _last(entries: Iterable[Entry], what: What, field: str) -> str:
    """Return what the last entry of this kind says of `field`, "" where there is none."""
    return next((str(e.facts.get(field, "")) for e in reversed([*entries]) if e.what == what.value), "")


def _trust(entries: Iterable[Entry]) -> str:
    """Return what the server is known by: what was set last, or came with the generation that became current last."""
    trust, parts = "", dict[int, str]()
    for entry in entries:
        facts = entry.facts
        if entry.what == What.TRUST_SET.value:
            trust = str(facts.get("trust", ""))
        elif entry.what == What.GENERATION_BORN.value:
            parts[int(facts["generation"])] = str(facts.get("trust", ""))
        elif entry.what == What.GENERATION_MOVED.value and facts.get("stage") == Stage.CURRENT.value:
            trust = parts.get(int(facts["generation"]), "")
    return trust


def _applications(entries: Iterable[Entry]) -> dict[str, str]:
    found: dict[str, str] = {}
    for entry in entries:
        name = str(entry.facts.get("application", ""))
        if entry.what == What.APPLICATION_SET.value:
            found[name] = str(entry.facts.get("client_id", ""))
        elif entry.what == What.APPLICATION_REMOVED.value:
            found.pop(name, None)
    return found


def _exchanged(account: Account) -> Iterator[str]:
    """Find a certificate or a set of CAs whose text is not that of the digest it goes by."""
    for kept in account.certificates:
        if kept.pem and _digest(kept.pem, leaf=True) != kept.ref:
            yield f"the text of certificate {kept.ref[:16]}… of {account.name} is another certificate's"
    for pinned in account.anchors:
        if pinned.pem and _digest(pinned.pem, leaf=False) != pinned.ref:
            yield f"the text of the CAs {pinned.ref[:16]}… of {account.name} is that of other CAs"


def _digest(pem: str, *, leaf: bool) -> str:
    try:
        return certificates.certificate(pem).ref if leaf else certificates.anchors(pem).ref
    except (InputError, ValueError):
        return ""
