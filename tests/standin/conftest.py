"""One partner a test, one RSA key a session."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from broker.standin import Standin
from tests.support.partner import LOGIN, PASSWORD, Customer


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
