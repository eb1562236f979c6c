"""Leases as text: every broker with the keys reads and writes them; a forgery is denied."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import jwt
import pytest

from broker.errors import DeniedError
from broker.issuing.leases import AUDIENCE, LeaseSigner
from broker.model.lease import BundleKind, Lease
from broker.model.names import AccountName
from broker.model.secret import Secret
from tests.support.accounts import NOW, later

OLD, NEW = Secret(b"o" * 32), Secret(b"n" * 32)
LEASE = Lease("id", "entity", AccountName("acme"), "fleet", BundleKind.DIRECT, 3, NOW, later(hours=1))


def signer(newest: str = "new", **keys: Secret[bytes]) -> LeaseSigner:
    return LeaseSigner(newest, keys or {"old": OLD, "new": NEW})


def forged(key: bytes = NEW.reveal(), kid: str = "new", algorithm: str = "HS256", **changes: Any) -> Secret[str]:
    good = jwt.decode(signer().signed(LEASE).reveal(), options={"verify_signature": False})
    claims = {name: value for name, value in {**good, **changes}.items() if value is not None}
    return Secret(jwt.encode(claims, key, algorithm, headers={"kid": kid}))


def test_another_signer_reads_a_lease() -> None:
    assert signer().opened(signer().signed(LEASE), now=NOW) == LEASE


def test_key_change_keeps_old_leases() -> None:
    old = signer("old", old=OLD).signed(LEASE)
    assert signer().opened(old, now=NOW) == LEASE
    assert jwt.get_unverified_header(signer().signed(LEASE).reveal())["kid"] == "new"
    with pytest.raises(DeniedError):
        signer("new", new=NEW).opened(old, now=NOW)


def test_lease_ends_by_the_brokers_clock() -> None:
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
    "an unknown kid": lambda: forged(kid="none"),
    "another algorithm": lambda: forged(b"n" * 64, algorithm="HS512"),
    "no signature": lambda: Secret(jwt.encode({"aud": AUDIENCE}, "", "none", headers={"kid": "new"})),
    "for another purpose": lambda: forged(aud="credential-broker/ticket"),
    "without an audience": lambda: forged(aud=None),
    "without an end": lambda: forged(exp=None),
    "without a lease": lambda: forged(lease=None),
    "with half a lease": lambda: forged(lease={"id": "x"}),
    "of an unknown kind": lambda: forged(lease={"kind": "everything"}),
}


@pytest.mark.parametrize("name", FORGERIES)
def test_forgeries_are_denied_alike(name: str) -> None:
    with pytest.raises(DeniedError) as caught:
        signer().opened(FORGERIES[name](), now=NOW)
    assert caught.value.message == "the lease is not valid, or has ended"


def test_lease_text_is_not_printed() -> None:
    text = signer().signed(LEASE)
    assert text.reveal() not in f"{text} {text!r}"
