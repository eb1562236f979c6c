"""Accounts for tests, from a new one to one in the middle of a rotation.

Everything is made by the changes of the model, so an account built here is one that can exist. Nothing is settled
unless a test does it: `outbox` is then the whole chain.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

import pytest

from broker.copies import replace
from broker.errors import BrokerError
from broker.model.account import Account, Contacts
from broker.model.authentication import PASSWORD
from broker.model.certificate import CaSet, CaSetRef, Certificate, CertificateRef, Spki
from broker.model.chain import verify
from broker.model.changes import moving, registering, requesting, trying
from broker.model.clock import Stamp
from broker.model.generation import Generation, Parts, SigningRequest, key_ref
from broker.model.history import account_state, fold
from broker.model.names import AccountName
from broker.model.stage import Move
from broker.model.subject import Subject
from broker.model.verdict import CanaryResult, Verdict

__all__ = [
    "BY",
    "MZP",
    "NOW",
    "PLANTED",
    "STAMP",
    "a_certificate",
    "a_request",
    "an_account",
    "assert_refused",
    "assert_sound",
    "assert_unchanged",
    "ca_set_named",
    "later",
    "only",
    "parts_of",
    "promoted",
    "tried",
    "with_answer",
    "with_candidate",
    "with_current",
    "with_new_password",
    "with_open_request",
    "with_overtaken_candidate",
    "with_rolled_back",
    "without_texts",
]

MZP = AccountName("mzp-1")
NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
BY = "ops"
STAMP = Stamp(NOW, BY)
PLANTED = "correct-horse-battery-staple"  # a secret that no test may see in any text

Change = Callable[[Account], Account]


def later(**length: float) -> datetime:
    """Return NOW and `length`, as `timedelta` takes it."""
    return NOW + timedelta(**length)


def an_account(name: str = MZP, **fields: object) -> Account:
    """Return an account that has just been added: no password, no CA, nothing requested."""
    subject = Subject((("C", "FR"), ("O", "Example"), ("OU", "Programs Partners"), ("CN", "MZP1")))
    account = Account(
        AccountName(name), "stellantis", "standin", "MZP1", "https://partner.test:8443/api/v3", subject, NOW,
        Contacts(("desk@partner.test",), ("ops@example.test",)),
    )  # fmt: skip
    return registering.added(replace(account, **fields), by=BY)  # type: ignore[arg-type]


def ca_set_named(name: str) -> CaSet:
    """Return a set of one CA, made up from `name`."""
    digest = hashlib.sha256(name.encode()).hexdigest()
    return CaSet(CaSetRef(digest), (digest,), later(days=3650), f"pem of {name}")


def a_request(account: Account, *, at: datetime = NOW, slot: int = 0) -> SigningRequest:
    """Return the request that comes next."""
    number = slot or account.next_request
    return SigningRequest(number, key_ref(number), _spki(account, number), f"csr {number}", at)


def a_certificate(account: Account, request: int, *, serial: str = "01", days: int = 365) -> Certificate:
    """Return a certificate that answers request `request`."""
    ref = hashlib.sha256(f"{account.name}/{request}/{serial}".encode()).hexdigest()
    return Certificate(
        CertificateRef(ref), _spki(account, request), "CN=MZP1", "CN=CA", serial, NOW, later(days=days), f"pem {ref}"
    )


def with_open_request(account: Account | None = None) -> Account:
    """Return `account` waiting for its people."""
    account = account or an_account()
    return requesting.requested(account, a_request(account), by=BY)


def with_answer(account: Account) -> Account:
    """Return `account` with the candidate that comes of one more request and its answer."""
    asked = account if account.open_request else with_open_request(account)
    assert asked.open_request
    number = asked.open_request.number
    return requesting.answered(asked, number, a_certificate(asked, number), STAMP)


def with_candidate(account: Account | None = None) -> Account:
    """Return `account` with a password, an accepted CA, and its first candidate, number 1."""
    account = registering.application_set(account or an_account(), "fleet", "id-fleet", STAMP)
    account = registering.secret_set(account, PASSWORD, 1, STAMP)
    account = registering.ca_accepted(account, ca_set_named("ca"), STAMP)
    account = registering.trust_set(account, ca_set_named("server-ca"), STAMP)
    return with_answer(account)


def with_current(account: Account | None = None) -> Account:
    """Return `account` with generation 1 current: key kv:1, password 1."""
    return promoted(with_candidate(account), 1)


def tried(account: Account, number: int, *, at: datetime = NOW) -> Account:
    """Return `account` with a canary of generation `number` that the partner accepted."""
    sent = trying.canary_sent(
        account, number, account.parts_of(account.generation(number)), f"try {account.head.number}", Stamp(at, BY)
    )
    return trying.canary_answered(sent, sent.tries[-1].number, CanaryResult(Verdict.OK), Stamp(at, BY))


def promoted(account: Account, number: int, *, at: datetime = NOW) -> Account:
    """Return `account` with candidate `number` current, accepted by the partner before."""
    return moving.moved(tried(account, number, at=at), number, Move.PROMOTE, Stamp(at, BY))


def with_new_password(account: Account) -> Account:
    """Return `account` with its next password, and so with a candidate that tries it."""
    return registering.secret_set(account, PASSWORD, account.password + 1, STAMP)


def with_overtaken_candidate() -> Account:
    """Return an account whose candidate 2 (a certificate) is older than the current generation 3 (a password)."""
    return promoted(with_new_password(with_answer(with_current())), 3)


def with_rolled_back() -> Account:
    """Return an account that went from generation 1 to 2, a new certificate, and back: a roll-back displaced 2."""
    account = tried(promoted(with_answer(with_current()), 2), 1, at=later(hours=1))
    return moving.moved(account, 1, Move.ROLL_BACK, Stamp(later(hours=1), BY))


def without_texts(account: Account) -> Account:
    """Return `account` without the texts of its certificates, which are made up and not of their digests."""
    certificates = tuple(replace(one, pem="") for one in account.certificates)
    return replace(account, certificates=certificates, anchors=tuple(replace(one, pem="") for one in account.anchors))


@contextmanager
def assert_refused(kind: type[BrokerError], *words: str) -> Iterator[None]:
    """Assert that the body raises exactly `kind`, in a message with `words`, and that no secret is in it."""
    with pytest.raises(kind) as caught:
        yield
    assert caught.type is kind
    for word in words:
        assert word in caught.value.message
    assert PLANTED not in caught.value.message + caught.value.hint


def assert_unchanged(account: Account, change: Change) -> None:
    """Assert that `change` finds nothing to do, and says so by returning its very argument."""
    assert change(account) is account


def assert_sound(account: Account) -> None:
    """Assert what holds for every account whose outbox was never settled."""
    assert verify(f"accounts/{account.name}", account.outbox, account.head) == ()
    assert fold(account.outbox) == account_state(account)


def parts_of(account: Account, number: int) -> Parts:
    """Return what generation `number` refers to."""
    return account.generation(number).parts


def only(generations: tuple[Generation, ...]) -> Generation:
    """Return the one generation there is."""
    (one,) = generations
    return one


def _spki(account: Account, slot: int) -> Spki:
    return Spki(hashlib.sha256(f"key {account.name}/{slot}".encode()).hexdigest())
