"""Keys that were made outside: adopted once, and copies of them noted until they are gone."""

from __future__ import annotations

import pytest

from broker.copies import replace
from broker.errors import ConflictError, UnknownNameError
from broker.model.account import Account
from broker.model.certificate import Spki
from broker.model.changes import importing, requesting
from broker.model.generation import Closed, SigningRequest, key_ref
from broker.model.history import account_state, fold
from tests.support.accounts import BY, NOW, STAMP, with_current, with_open_request

SPKI = Spki("f" * 64)


def a_request(account: Account, slot: int = 0) -> SigningRequest:
    number = slot or account.next_request
    return SigningRequest(number, key_ref(number), SPKI, "csr", NOW, imported=True)


def adopted() -> Account:
    account = with_current()
    return importing.adopted(account, a_request(account), by=BY)


def test_a_key_is_adopted_once() -> None:
    account = adopted()
    assert account.open_request == a_request(with_current())
    assert importing.adopted(account, a_request(account), by=BY) is account
    assert account.outbox[-1].facts["origin"] == "imported, known outside"


def test_slots_that_are_passed_over_are_doomed() -> None:
    account = with_current()
    first = account.next_request
    after = importing.adopted(account, a_request(account, first + 2), by=BY)
    assert after.doomed_keys - account.doomed_keys == {key_ref(first), key_ref(first + 1)}


def test_an_open_request_is_not_replaced() -> None:
    account = with_open_request(with_current())
    with pytest.raises(ConflictError, match="has an open signing request"):
        importing.adopted(account, a_request(account), by=BY)


def test_a_number_that_was_given_is_refused() -> None:
    account = with_current()
    taken = replace(a_request(account), spki=Spki("e" * 64))
    account = requesting.closed(importing.adopted(account, taken, by=BY), taken.number, Closed.CANCELLED, STAMP)
    with pytest.raises(ConflictError, match="meanwhile"):
        importing.adopted(account, a_request(account, taken.number), by=BY)


@pytest.mark.parametrize("why", [Closed.CANCELLED, Closed.REJECTED, Closed.SUPERSEDED])
def test_a_key_comes_back_under_a_new_number(why: Closed) -> None:
    account = adopted()
    before = account.requests[-1]
    account = requesting.closed(account, before.number, why, STAMP)
    again = importing.adopted(account, a_request(account), by=BY)
    assert again.open_request == replace(before, number=before.number + 1, key=key_ref(before.number + 1))


def test_copies_are_noted_and_gone() -> None:
    account = adopted()
    number = account.requests[-1].number
    noted = importing.copies_noted(account, number, ["web-1", "web-2", "web-1"], STAMP)
    assert noted.request(number).held_by == ("web-1", "web-2")
    assert importing.copies_noted(noted, number, ["web-1"], STAMP) is noted
    gone = importing.copy_gone(noted, "web-1", "shredded", STAMP)
    assert gone.request(number).held_by == ("web-2",)
    assert fold(gone.outbox).holders == account_state(gone).holders == {number: {"web-2"}}


def test_a_copy_that_nobody_noted_is_unknown() -> None:
    noted = importing.copies_noted(adopted(), adopted().requests[-1].number, ["web-1"], STAMP)
    with pytest.raises(UnknownNameError) as refused:
        importing.copy_gone(noted, "web-2", "", STAMP)
    assert refused.value.hint == "--held-by takes one of: 'web-1'"
