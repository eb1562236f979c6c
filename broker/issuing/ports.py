"""Ports of issuing. Unlike those of rotation they return secrets: a bundle is made of them."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import Final, Protocol

from broker.model.account import Account
from broker.model.consumer import ConsumerRecord
from broker.model.generation import Parts
from broker.model.lease import BundleKind
from broker.model.names import AccountName
from broker.model.secret import Secret

_DIGEST_KEY: Final = secrets.token_bytes(32)


@dataclass(frozen=True, slots=True)
class Caller:
    """The identity that a request shows, and where it comes from (None: a unix socket)."""

    credential: Secret[str]
    peer: IPv4Address | IPv6Address | None = None
    is_jwt: bool = False  # else a token of Vault

    @property
    def digest(self) -> bytes:
        """A digest that means nothing outside this process, for caches."""
        text = f"{self.is_jwt}|{self.peer}|{self.credential.reveal()}".encode(errors="surrogatepass")
        return hashlib.blake2b(text, key=_DIGEST_KEY).digest()


@dataclass(frozen=True, slots=True)
class Consumer:
    """The consumer that asks: an entity that Vault has authenticated."""

    entity: str
    name: str


@dataclass(frozen=True, slots=True)
class SetSecrets:
    """The secrets of one generation."""

    key: Secret[bytes]  # PKCS#8 DER
    secrets: Mapping[str, Secret[str]]  # by name; "password" is one


class Consumers(Protocol):
    """The records of the generations that each consumer holds."""

    def change(self, entity: str, name: str, change: Callable[[ConsumerRecord], ConsumerRecord]) -> ConsumerRecord:
        """Apply the pure `change` to a consumer's record; after a conflict apply it to the newer record."""


ReadAccount = Callable[[AccountName], Account]
ReadSecrets = Callable[[AccountName, Parts], SetSecrets]  # raises RefusedError if they are destroyed
Authorize = Callable[[Account, str, BundleKind], Consumer]  # (account, application, kind); raises DeniedError
