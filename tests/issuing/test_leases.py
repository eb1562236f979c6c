"""Leases as text: any broker with the keys reads what another wrote, and nobody else can write one."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import jwt
import pytest

from broker.errors import DeniedError
from broker.issuing.leases import AUDIENCE, LeaseKeys, LeaseSigner
from broker.model.lease import BundleKind, Lease
from broker.model.names import AccountName
from broker.model.secret import Secret
from tests.support.accounts import NOW, later

OLD, NEW = Secret(b"o" * 32), Secret(b"n" * 32)
LEASE = Lease("id", "entity", AccountName("acme"), "fleet", BundleKind.DIRECT, 3, NOW, later(hours=1))


def signer(newest: str = "new", **keys: Secret[bytes]) -> LeaseSigner:
    return LeaseSigner(LeaseKeys(newest, keys or {"old": OLD, "new": NEW}))


def forged(key: bytes = NEW.reveal(), kid: str = "new", algorithm: str = "HS256", **changes: Any) -> Secret[str]:
    good = jwt.decode(signer().signed(LEASE).reveal(), options={"verify_signature": False})
    claims = {name: value for name, value in {**good, **changes}.items() if value is not None}
    return Secret(jwt.encode(claims, key, algorithm, headers={"kid": kid}))


def test_what_one_wrote_another_reads() -> None:
    assert signer().opened(signer().signed(LEASE), now=NOW) == LEASE


def test_while_keys_change_both_are_read_and_the_newest_signs() -> None:
    old = signer("old", old=OLD).signed(LEASE)
    assert signer().opened(old, now=NOW) == LEASE
    assert jwt.get_unverified_header(signer().signed(LEASE).reveal())["kid"] == "new"
    with pytest.raises(DeniedError):
        signer("new", new=NEW).opened(old, now=NOW)


def test_it_ends_by_our_clock() -> None:
    text = signer().signed(LEASE)
    assert signer().opened(text, now=later(hours=1) - timedelta(seconds=1)) == LEASE
    for moment in (later(hours=1), later(days=1)):
        with pytest.raises(DeniedError):
            signer().opened(text, now=moment)


FORGERIES: dict[str, Callable[[], Secret[str]]] = {
    "nothing": lambda: Secret(""),
    "no lease": lambda: Secret("not.a.lease"),
    "cut": lambda: Secret(signer().signed(LEASE).reveal()[:-2]),
    "another key": lambda: forged(b"x" * 32),
    "a key under another's name": lambda: forged(OLD.reveal()),
    "a kid that nobody has": lambda: forged(kid="none"),
    "another algorithm": lambda: forged(b"n" * 64, algorithm="HS512"),
    "no signature at all": lambda: Secret(jwt.encode({"aud": AUDIENCE}, "", "none", headers={"kid": "new"})),
    "for another purpose": lambda: forged(aud="credential-broker/ticket"),
    "without an audience": lambda: forged(aud=None),
    "without an end": lambda: forged(exp=None),
    "without a lease": lambda: forged(lease=None),
    "with half a lease": lambda: forged(lease={"id": "x"}),
    "of a kind that is none": lambda: forged(lease={"kind": "everything"}),
}


@pytest.mark.parametrize("name", FORGERIES)
def test_what_is_not_ours_is_denied_in_the_same_words(name: str) -> None:
    with pytest.raises(DeniedError) as caught:
        signer().opened(FORGERIES[name](), now=NOW)
    assert caught.value.message == "this lease is not valid, or no longer"


def test_a_lease_does_not_print() -> None:
    text = signer().signed(LEASE)
    assert text.reveal() not in f"{text} {text!r}"
