"""Account documents are compared with their evidence, and entries appended later do not hide a difference."""

from __future__ import annotations

from typing import Any

import pytest

from broker.copies import replace
from broker.errors import RefusedError, UnknownNameError
from broker.evidence.audit import collect
from broker.evidence.statements import ChainRecord, StoredStatement, VerifyingKey
from broker.evidence.tamper import differences, require_first_entry
from broker.model.account import Account, Contacts
from broker.model.certificate import CaSetRef
from broker.model.chain import Entry, Fact, Head, verify
from broker.model.changes import importing, moving, registering
from broker.model.changes.registering import AccountSettings
from broker.model.changes.writing import recorded
from broker.model.clock import Stamp
from broker.model.finding import Finding, Severity
from broker.model.history import Event, parts_facts
from broker.model.names import AccountName
from broker.model.stage import Move
from broker.pki.certificates import ca_set
from tests.support.accounts import (
    MZP,
    NOW,
    STAMP,
    an_account,
    assert_refused,
    promoted,
    tried,
    with_answer,
    with_candidate,
    with_current,
    with_new_password,
    with_open_request,
    with_rolled_back,
    without_texts,
)
from tests.support.pki import a_ca, pem

EVIL = "https://evil.test"


def differences_in(account: Account) -> list[str]:
    assert verify(f"accounts/{account.name}", account.outbox, account.head) == (), "the chain itself is whole"
    return list(differences(without_texts(account), account.outbox))


def forged(account: Account, what: Event, **facts: Fact) -> Account:
    """Append an entry that follows well from the one before, as a writer of accounts can."""
    return recorded(account, Stamp(NOW, "thief"), what, **facts)


def added_again(account: Account) -> Account:
    facts: dict[str, Fact] = {**account.outbox[0].facts, "base_url": EVIL}
    return forged(replace(account, base_url=EVIL), Event.ACCOUNT_ADDED, **facts)


def born_again(account: Account) -> Account:
    """Give the current generation other parts, and say that it was born with them."""
    generation = account.generation(1)
    other = replace(account.anchors[0], ref=CaSetRef("e" * 64))
    parts = replace(generation.parts, trust=other.ref)
    account = replace(
        account,
        anchors=(*account.anchors, other),
        generations=(replace(generation, parts=parts),),
        trust=other.ref,
    )
    account = forged(account, Event.GENERATION_BORN, generation=1, base=0, restores=0, replaces=0, **parts_facts(parts))
    return forged(account, Event.GENERATION_MOVED, generation=1, move="promote", stage="current")


def drafted_again(account: Account) -> Account:
    return forged(account, Event.REQUEST_DRAFTED, request=1, key="kv:1", spki="f" * 64)


def accepted_too_early() -> Account:
    """Return a certificate that the partner accepted with a password that is superseded since."""
    account = tried(with_new_password(with_answer(with_current())), 2)
    return promoted(account, 3)


FORGERIES = {
    "a base_url, added again": added_again(with_current()),
    "a base_url, nothing appended": replace(with_current(), base_url=EVIL),
    "a generation, born again": born_again(with_current()),
    "a request, drafted again": drafted_again(with_open_request()),
    "a promotion without a canary": moving.moved(with_candidate(), 1, Move.PROMOTE, STAMP),
    "a promotion after another's canary": moving.moved(with_answer(with_current()), 2, Move.PROMOTE, STAMP),
    "an ok for other parts": moving.moved(accepted_too_early(), 2, Move.PROMOTE, STAMP),
    "a displaced one back, on its old canary": moving.moved(with_rolled_back(), 2, Move.PROMOTE, STAMP),
}


@pytest.mark.parametrize("account", FORGERIES.values(), ids=FORGERIES)
def test_appended_entry_hides_nothing(account: Account) -> None:
    assert differences_in(account)


@pytest.mark.parametrize(
    "account",
    [
        with_current(),
        with_rolled_back(),
        moving.moved(with_rolled_back(), 2, Move.RETIRE, STAMP),
    ],
)
def test_honest_account_has_no_difference(account: Account) -> None:
    assert differences_in(account) == []


def test_rollback_needs_canary_or_reason() -> None:
    account = promoted(with_answer(with_current()), 2)
    assert differences_in(moving.moved(account, 1, Move.ROLL_BACK, STAMP))
    assert differences_in(moving.moved(account, 1, Move.ROLL_BACK, STAMP, reason="outage")) == []


class Overwritten:
    """Stored evidence of which nothing is known but a warning; the rest waits in the account's outbox."""

    warning = Finding("evidence.overwritten", Severity.WARNING, "entry 2 was written 2 times", "ask")

    def chains(self) -> tuple[str, ...]:
        return ()

    def kept(self, chain: str, *, since: int = 1) -> ChainRecord:
        return ChainRecord((), findings=(self.warning,))

    def statements(self) -> tuple[StoredStatement, ...]:
        return ()

    def verifying_key(self) -> VerifyingKey | None:
        return None

    def add(self, statement: StoredStatement) -> None:
        raise NotImplementedError


def test_warning_keeps_the_comparison() -> None:
    evil, stored = replace(with_current(), base_url=EVIL), Overwritten()
    record = collect(stored, stored, lambda name: evil, [MZP], everything=False)
    codes = {finding.code for finding in record.chains[f"accounts/{MZP}"].findings}
    assert codes == {"evidence.overwritten", "evidence.differs"}


# -- before a secret is read


def added(account: Account) -> Entry:
    return account.outbox[0]


def test_account_like_its_first_entry_passes() -> None:
    account = without_texts(with_rolled_back())
    assert require_first_entry(account, lambda name: added(account)) is account


@pytest.mark.parametrize("field", ["base_url", "login", "profile", "environment"])
def test_identity_must_match_first_entry(field: str) -> None:
    account = without_texts(with_current())
    entry = added(account)
    fields: dict[str, Any] = {field: EVIL}
    changed = replace(account, **fields)
    with assert_refused(RefusedError, f"the {field} of mzp-1", "nothing was sent"):
        require_first_entry(changed, lambda name: entry)
    with assert_refused(RefusedError, f"the {field} of mzp-1"):
        require_first_entry(without_texts(added_again(account)) if field == "base_url" else changed, lambda name: entry)


@pytest.mark.parametrize("forgery", [{"facts": {}}, {"number": 2}, {"chain": "accounts/other"}, {"what": "trust-set"}])
def test_forged_first_entry_is_refused(forgery: dict[str, Any]) -> None:
    account = without_texts(with_current())
    forged = replace(added(account), **forgery)
    for entry in (forged, replace(forged, hash=forged.expected_hash)):
        with assert_refused(RefusedError, "mzp-1"):
            require_first_entry(account, lambda name: entry)  # noqa: B023


def test_exchanged_ca_text_is_refused() -> None:
    true, other = (ca_set(pem(a_ca().certificate)) for _ in range(2))
    account = registering.trust_set(an_account(), true, STAMP)
    assert require_first_entry(account, lambda name: added(account)) is account
    exchanged = replace(account, anchors=(replace(true, pem=other.pem),))
    with assert_refused(RefusedError, "is that of other CAs"):
        require_first_entry(exchanged, lambda name: added(account))


@pytest.mark.parametrize(("stored", "hint"), [(False, "add the account again"), (True, "broker evidence verify")])
def test_missing_first_entry_sends_nothing(stored: bool, hint: str) -> None:
    def missing(name: AccountName) -> Entry:
        raise UnknownNameError("nothing is stored there")

    account = without_texts(with_current())
    with pytest.raises(RefusedError, match="nothing was sent") as refused:
        require_first_entry(replace(account, outbox=()) if stored else account, missing)
    assert hint in refused.value.hint


def test_older_evidence_has_no_contacts() -> None:
    """Chains of 0.1.0 begin without them: they are compared from the first `account-set` on."""
    account = without_texts(an_account())
    first = account.outbox[0]
    added = ("contact", "team", "renew_before", "renewal", "promotion")
    bare = replace(first, facts={n: v for n, v in first.facts.items() if n not in added})
    bare = replace(bare, hash=bare.expected_hash)
    old = replace(account, outbox=(bare,), head=Head(1, bare.hash))
    assert not list(differences(old, old.outbox))
    set_ = registering.account_set(old, AccountSettings(renew_before="20%"), STAMP)
    assert not list(differences(set_, set_.outbox))
    changed = replace(set_, contacts=Contacts(partner=("x@evil.example",)))
    assert list(differences(changed, changed.outbox)) == [
        "the contacts or the renewal settings of mzp-1 are not those of its evidence"
    ]


def test_a_removed_holder_is_found() -> None:
    """Else a writer of accounts could hide a copy outside, and have its generation retired."""
    account = with_current()
    account = importing.copies_noted(account, 1, ["web-1"], STAMP)
    assert not differences_in(account)
    hidden = replace(account, requests=(replace(account.requests[0], held_by=()), *account.requests[1:]))
    (found,) = differences_in(hidden)
    assert found.startswith("those who hold copies of the keys")
