"""What issuing needs from the world. Unlike rotation's, these ports do yield secrets: a bundle is made of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from broker.model.account import Account
from broker.model.consumer import ConsumerRecord
from broker.model.generation import Parts
from broker.model.lease import BundleKind
from broker.model.names import AccountName
from broker.model.secret import Secret

__all__ = ["Consumer", "Consumers", "Judge", "ReadAccount", "ReadSecrets", "SetSecrets"]


@dataclass(frozen=True, slots=True)
class Consumer:
    """Who asks: an entity that Vault vouches for."""

    entity: str
    name: str


@dataclass(frozen=True, slots=True)
class SetSecrets:
    """The secrets of a set."""

    key: Secret[bytes]  # PKCS#8 DER
    secrets: Mapping[str, Secret[str]]  # by name; "password" is one


class Consumers(Protocol):
    """The record of what each consumer holds."""

    def change(self, entity: str, name: str, change: Callable[[ConsumerRecord], ConsumerRecord]) -> ConsumerRecord:
        """Apply the pure `change` to a consumer's record, run again on whatever won."""


ReadAccount = Callable[[AccountName], Account]
ReadSecrets = Callable[[AccountName, Parts], SetSecrets]  # raises RefusedError where they are destroyed
Judge = Callable[[Account, str, BundleKind], Consumer]  # (account, application, kind); raises DeniedError
