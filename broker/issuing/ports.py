"""Ports of issuing. Unlike those of rotation they return secrets: a bundle is made of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from broker.model.account import Account
from broker.model.generation import Parts
from broker.model.lease import BundleKind, ConsumerRecord
from broker.model.names import AccountName
from broker.model.secret import Secret


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
