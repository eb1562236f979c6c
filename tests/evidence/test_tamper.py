"""What an account says is held against what its evidence said first, and entries appended later unsay nothing."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from broker.errors import RefusedError, UnknownNameError
from broker.evidence.audit import collect
from broker.evidence.statements import ChainRecord, StoredStatement, VerifyingKey
from broker.evidence.tamper import untold, vouched
from broker.model import changes
from broker.model.account import Account
from broker.model.certificate import CaSetRef
from broker.model.chain import Entry, Fact, verify
from broker.model.changes.writing import noted
from broker.model.finding import Finding, Severity
from broker.model.history import What, parts_facts
from broker.model.names import AccountName
from broker.model.stage import Move
from broker.model.stamp import Stamp
from broker.model.subject import Subject
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


def told_otherwise(account: Account) -> list[str]:
    assert verify(f"accounts/{account.name}", account.outbox, account.head) == (), "the chain itself is whole"
    return list(untold(without_texts(account), account.outbox))


def forged(account: Account, what: What, **facts: Fact) -> Account:
    """Append an entry that follows well from the one before, as whoever may write the account can."""
    return noted(account, Stamp(NOW, "thief"), what, **facts)


def added_again(account: Account) -> Account:
    facts: dict[str, Fact] = {**account.outbox[0].facts, "base_url": EVIL}
    return forged(replace(account, base_url=EVIL), What.ACCOUNT_ADDED, **facts)


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
    account = forged(account, What.GENERATION_BORN, generation=1, base=0, restores=0, replaces=0, **parts_facts(parts))
    return forged(account, What.GENERATION_MOVED, generation=1, move="promote", stage="current")


def drafted_again(account: Account) -> Account:
    return forged(account, What.REQUEST_DRAFTED, request=1, key="kv:1", spki="f" * 64)


def accepted_too_early() -> Account:
    """Return a certificate that the partner accepted with a password that is superseded since."""
    account = tried(with_new_password(with_answer(with_current())), 2)
    return promoted(account, 3)


FORGERIES = {
    "a base_url, added again": added_again(with_current()),
    "a base_url, nothing appended": replace(with_current(), base_url=EVIL),
    "a generation, born again": born_again(with_current()),
    "a request, drafted again": drafted_again(with_open_request()),
    "a promotion without a canary": changes.moved(with_candidate(), 1, Move.PROMOTE, STAMP),
    "a promotion after another's canary": changes.moved(with_answer(with_current()), 2, Move.PROMOTE, STAMP),
    "an ok for other parts": changes.moved(accepted_too_early(), 2, Move.PROMOTE, STAMP),
    "a displaced one back, on its old canary": changes.moved(with_rolled_back(), 2, Move.PROMOTE, STAMP),
}


@pytest.mark.parametrize("account", FORGERIES.values(), ids=FORGERIES)
def test_an_appended_entry_does_not_hide_what_was_rewritten(account: Account) -> None:
    assert told_otherwise(account)


@pytest.mark.parametrize(
    "account",
    [
        with_current(),
        with_rolled_back(),
        changes.moved(with_rolled_back(), 2, Move.RETIRE, STAMP),
    ],
)
def test_an_honest_account_is_told_as_it_is(account: Account) -> None:
    assert told_otherwise(account) == []


def test_going_back_needs_a_canary_or_a_persons_reason() -> None:
    account = promoted(with_answer(with_current()), 2)
    assert told_otherwise(changes.moved(account, 1, Move.ROLL_BACK, STAMP))
    assert told_otherwise(changes.moved(account, 1, Move.ROLL_BACK, STAMP, reason="outage")) == []


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


def test_a_warning_does_not_switch_off_the_comparison_with_the_account() -> None:
    evil, stored = replace(with_current(), base_url=EVIL), Overwritten()
    record = collect(stored, stored, lambda name: evil, [MZP], everything=False)
    codes = {finding.code for finding in record.chains[f"accounts/{MZP}"].findings}
    assert codes == {"evidence.overwritten", "evidence.differs"}


# -- before a secret is read


def added(account: Account) -> Entry:
    return account.outbox[0]


def test_an_account_is_let_through_where_its_first_entry_says_what_it_says() -> None:
    account = without_texts(with_rolled_back())
    assert vouched(account, lambda name: added(account)) is account


@pytest.mark.parametrize("field", ["base_url", "login", "profile", "environment", "subject"])
def test_secrets_travel_nowhere_else_than_the_first_entry_says(field: str) -> None:
    account = without_texts(with_current())
    entry = added(account)
    fields: dict[str, Any] = {field: Subject((("CN", "X"),)) if field == "subject" else EVIL}
    changed = replace(account, **fields)
    with assert_refused(RefusedError, f"the {field} of mzp-1", "nothing was sent"):
        vouched(changed, lambda name: entry)
    with assert_refused(RefusedError, f"the {field} of mzp-1"):
        vouched(without_texts(added_again(account)) if field == "base_url" else changed, lambda name: entry)


@pytest.mark.parametrize("forgery", [{"facts": {}}, {"number": 2}, {"chain": "accounts/other"}, {"what": "trust-set"}])
def test_another_entry_in_the_first_ones_place_vouches_for_nothing(forgery: dict[str, Any]) -> None:
    account = without_texts(with_current())
    forged = replace(added(account), **forgery)
    for entry in (forged, replace(forged, hash=forged.expected_hash)):
        with assert_refused(RefusedError, "mzp-1"):
            vouched(account, lambda name: entry)  # noqa: B023


def test_the_text_of_other_cas_under_a_true_digest_is_refused() -> None:
    true, other = (ca_set(pem(a_ca().certificate)) for _ in range(2))
    account = changes.trust_set(an_account(), true, STAMP)
    assert vouched(account, lambda name: added(account)) is account
    exchanged = replace(account, anchors=(replace(true, pem=other.pem),))
    with assert_refused(RefusedError, "is that of other CAs"):
        vouched(exchanged, lambda name: added(account))


@pytest.mark.parametrize(("stored", "hint"), [(False, "broker account add"), (True, "broker evidence verify")])
def test_where_the_first_entry_is_missing_nothing_is_sent_and_the_hint_says_what_stores_it(
    stored: bool, hint: str
) -> None:
    def missing(name: AccountName) -> Entry:
        raise UnknownNameError("nothing is stored there")

    account = without_texts(with_current())
    with pytest.raises(RefusedError, match="nothing was sent") as refused:
        vouched(replace(account, outbox=()) if stored else account, missing)
    assert hint in refused.value.hint
