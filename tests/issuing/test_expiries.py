"""Ends of certificates for monitoring, and readiness of an account."""

from __future__ import annotations

import threading

import pytest

from broker.copies import replace
from broker.errors import RefusedError, VaultUnavailableError
from broker.issuing import expiries
from broker.issuing.expiries import Expiries
from broker.issuing.readiness import require_issuable
from broker.model.account import Account
from broker.model.authentication import Authentication
from broker.model.changes import moving
from broker.model.names import AccountName
from broker.model.stage import Move
from tests.support.accounts import MZP, NOW, STAMP, an_account, later, with_answer, with_current


def promoted_twice() -> Account:
    account = with_answer(with_current())
    return moving.moved(account, account.next_generation - 1, Move.PROMOTE, STAMP)


def shown(account: Account) -> list[tuple[int, str]]:
    return [(one.generation, one.stage) for one in expiries.expiries(account)]


def test_living_generations_are_shown() -> None:
    assert shown(with_answer(with_current())) == [(1, "current"), (2, "candidate")]
    account = promoted_twice()
    assert shown(account) == [(1, "previous"), (2, "current")]
    retired = moving.moved(account, 1, Move.RETIRE, STAMP)
    assert shown(retired) == [(2, "current")]
    (one,) = expiries.expiries(retired)
    assert one.not_after == retired.certificates[-1].not_after.timestamp()


def test_an_unreadable_account_keeps_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(expiries, "_PAUSE", 0)
    away: set[str] = set()
    names = [MZP, AccountName("other")]

    def read(name: AccountName) -> Account:
        if name in away:
            raise VaultUnavailableError("away")
        return with_current() if name == MZP else an_account()

    found = Expiries(lambda: names, read)
    found.refresh()
    assert ([one.account for one in found.all()], found.unread) == ([MZP], 0)
    away.add(MZP)
    found.refresh()
    assert ([one.account for one in found.all()], found.unread) == ([MZP], 1)
    names.remove(MZP)
    found.refresh()
    assert (found.all(), found.unread) == ([], 0)


def test_accounts_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(expiries, "_PAUSE", 0)
    monkeypatch.setattr(expiries, "_MOST", 3)
    found = Expiries(lambda: [AccountName(f"a{n}") for n in range(5)], lambda _: with_current())
    found.refresh()
    assert (len(found.all()), found.unread) == (3, 2)


def test_the_reader_ends_with_the_service() -> None:
    asked = threading.Event()

    def names() -> list[AccountName]:
        asked.set()
        raise VaultUnavailableError("away")

    with Expiries(names, lambda _: with_current()) as found:
        assert asked.wait(30)
        while not found.unread:  # it is known that something is not
            pass
    assert not found._thread.is_alive()


def test_an_account_is_ready() -> None:
    assert require_issuable(with_current(), Authentication(), NOW).number == 1


@pytest.mark.parametrize(
    ("account", "reason"),
    [
        (an_account(), "no application"),
        (replace(an_account(), applications=with_current().applications), "no current generation"),
    ],
)
def test_an_account_is_not_ready(account: Account, reason: str) -> None:
    with pytest.raises(RefusedError, match=reason):
        require_issuable(account, Authentication(), NOW)


def test_an_expired_account_is_not_ready() -> None:
    with pytest.raises(RefusedError, match="expired on"):
        require_issuable(with_current(), Authentication(), later(days=4000))
