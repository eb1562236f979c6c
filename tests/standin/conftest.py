"""One partner for each test, one RSA key for the session."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from partner_standin import Standin

from tests.support.partner import LOGIN, PASSWORD, Clock, Customer


@pytest.fixture(scope="session")
def key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


@pytest.fixture
def partner(tmp_path: Path) -> Iterator[Standin]:
    with Standin(tmp_path / "partner", accounts={LOGIN: PASSWORD}) as standin:
        yield standin
    assert standin.crashes == ()


@pytest.fixture
def customer(partner: Standin, tmp_path: Path, key: rsa.RSAPrivateKey) -> Customer:
    """A customer with a good certificate."""
    (tmp_path / "customer").mkdir()
    return Customer(partner, tmp_path / "customer", key).enrolled()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def timed(tmp_path: Path, key: rsa.RSAPrivateKey, clock: Clock) -> Iterator[Customer]:
    """A customer with a good certificate, of a partner whose time is `clock`."""
    (tmp_path / "customer").mkdir()
    with Standin(tmp_path / "partner", accounts={LOGIN: PASSWORD}, clock=clock) as standin:
        yield Customer(standin, tmp_path / "customer", key).enrolled()
    assert standin.crashes == ()
