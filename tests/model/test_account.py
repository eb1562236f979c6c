"""An account whose parts contradict one another cannot be made."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from broker.copies import replace
from broker.errors import UnknownNameError
from broker.model.account import Account
from broker.model.certificate import CaSetRef, CertificateRef
from broker.model.chain import Head
from broker.model.changes import moving, requesting
from broker.model.clock import Stamp
from broker.model.generation import Application, Closed, Generation, KeyRef, SecretRef
from broker.model.stage import Move, Stage
from tests.support.accounts import (
    BY,
    NOW,
    STAMP,
    a_request,
    an_account,
    assert_refused,
    later,
    parts_of,
    with_answer,
    with_current,
    with_new_password,
    with_open_request,
)

Breaking = Callable[[Account], Account]


def another_generation(account: Account, **fields: object) -> Account:
    made = Generation(account.next_generation, parts_of(account, 1), Stage.CANDIDATE, NOW, account.next_order)
    return replace(account, generations=(*account.generations, replace(made, **fields)))  # type: ignore[arg-type]


def test_rejecting_loses_the_answer() -> None:
    account = with_answer(with_current())
    lost = account.answered_only_by(account.generation(2))
    assert lost
    assert lost.key == account.generation(2).parts.key


def test_shared_answer_is_not_lost() -> None:
    account = with_new_password(with_current())
    assert account.answered_only_by(account.generation(2)) is None


@pytest.mark.parametrize("number", [1, 2])
def test_only_a_candidate_can_lose_it(number: int) -> None:
    account = moving.moved(with_answer(with_current()), 2, Move.REJECT, STAMP, reason="x")
    assert account.answered_only_by(account.generation(number)) is None


def partial(account: Account) -> Generation:
    return replace(account.generation(1), parts=parts_of(account, 1).certified)


def other_parts(account: Account, **parts: object) -> Account:
    return another_generation(account, parts=replace(parts_of(account, 1), **parts))  # type: ignore[arg-type]


CONTRADICTIONS: dict[str, tuple[Breaking, str]] = {
    "two current": (lambda a: another_generation(a, stage=Stage.CURRENT), "more than one current"),
    "two open requests": (
        lambda a: replace(a, requests=(*a.requests, a_request(a), a_request(a, slot=9))), "more than one open",
    ),
    "one number for two generations": (lambda a: another_generation(a, number=1), "do not rise"),
    "generations out of order": (lambda a: another_generation(a, number=0), "do not rise"),
    "one number for two requests": (lambda a: replace(a, requests=(*a.requests, a.requests[0])), "do not rise"),
    "two applications of one name": (
        lambda a: replace(a, applications=(Application("fleet"), Application("fleet", "x"))), "two applications",
    ),
    "no such certificate": (lambda a: other_parts(a, certificate=CertificateRef("none")), "missing part"),
    "no such trust": (lambda a: other_parts(a, trust=CaSetRef("none")), "missing part"),
    "no such issuing CA": (lambda a: other_parts(a, issuing=CaSetRef("none")), "missing part"),
    "issuing pin dangles": (lambda a: replace(a, issuing=CaSetRef("none")), "pin"),
    "trust pin dangles": (lambda a: replace(a, trust=CaSetRef("none")), "pin"),
    "a part of a set that is current": (lambda a: replace(a, generations=(partial(a),)), "not complete"),
    "the current key doomed": (lambda a: replace(a, doomed_keys=frozenset({KeyRef("kv:1")})), "in use"),
    "the newest password doomed": (lambda a: replace(a, doomed_secrets=frozenset({SecretRef("password:1")})), "in use"),
    "an outbox with a hole": (lambda a: replace(a, outbox=a.outbox[:1] + a.outbox[2:]), "outbox"),
    "an outbox without its end": (lambda a: replace(a, outbox=a.outbox[:-1]), "outbox"),
    "an outbox out of order": (lambda a: replace(a, outbox=a.outbox[::-1]), "outbox"),
    "an outbox past the head": (lambda a: replace(a, head=Head()), "outbox"),
    "a head of another history": (lambda a: replace(a, head=replace(a.head, hash="0" * 64)), "outbox"),
}  # fmt: skip


@pytest.mark.parametrize("name", CONTRADICTIONS)
def test_contradiction_is_refused_by_name(name: str) -> None:
    breaking, words = CONTRADICTIONS[name]
    with pytest.raises(ValueError, match=words):
        breaking(with_current())


def test_all_contradictions_are_named() -> None:
    with pytest.raises(ValueError, match=r"two applications.*pin"):
        replace(with_current(), applications=(Application("a"), Application("a")), trust=CaSetRef("none"))


@pytest.mark.parametrize(
    "ask",
    [lambda a: a.application("none"), lambda a: a.generation(0), lambda a: a.generation(9), lambda a: a.request(9)],
)
def test_missing_item_is_unknown_name(ask: Callable[[Account], object]) -> None:
    with assert_refused(UnknownNameError, "mzp-1"):
        ask(with_current())


def test_a_new_account_has_nothing_yet() -> None:
    account = an_account()
    assert (account.open_request, account.current, account.candidates) == (None, None, ())
    assert (account.next_request, account.next_generation, account.next_order) == (1, 1, 1)
    assert account.keys_in_use | account.secrets_in_use == frozenset()


def test_slots_are_never_used_again() -> None:
    account = with_open_request(with_current())
    closed = requesting.closed(account, 2, Closed.CANCELLED, STAMP)
    assert closed.next_request == 3


def test_a_key_of_an_open_request_is_in_use() -> None:
    assert with_open_request(with_current()).keys_in_use == {"kv:1", "kv:2"}


def test_shared_key_is_in_use_until_retired() -> None:
    account = moving.moved(with_new_password(with_current()), 2, Move.PROMOTE, STAMP)
    account = moving.moved(with_answer(account), 3, Move.PROMOTE, STAMP)
    one_less = moving.moved(account, 1, Move.RETIRE, Stamp(later(days=1), BY))
    assert one_less.doomed_keys == frozenset()
    assert moving.moved(one_less, 2, Move.RETIRE, Stamp(later(days=1), BY)).doomed_keys == {"kv:1"}
