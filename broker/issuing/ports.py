"""What issuing needs from the world. Unlike rotation's, these ports do yield secrets: a bundle is made of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from broker.model.account import Account
from broker.model.consumer import ConsumerRecord
from broker.model.generation import Generation
from broker.model.lease import BundleKind
from broker.model.names import AccountName
from broker.model.secret import Secret

__all__ = ["Authorize", "Consumer", "Consumers", "ReadAccount", "ReadSecrets", "SetSecrets"]


@dataclass(frozen=True, slots=True)
class Consumer:
    """Who asks: an entity that Vault vouches for."""

    entity: str
    name: str


@dataclass(frozen=True, slots=True)
class SetSecrets:
    """What a generation hides."""

    key: Secret[bytes]  # PKCS#8 DER
    password: Secret[str]


class Consumers(Protocol):
    """The record of what each consumer holds."""

    def change(self, entity: str, name: str, change: Callable[[ConsumerRecord], ConsumerRecord]) -> ConsumerRecord:
        """Apply the pure `change` to a consumer's record, run again on whatever won."""


ReadAccount = Callable[[AccountName], Account]
ReadSecrets = Callable[[AccountName, Generation], SetSecrets]  # raises RefusedError where they are destroyed
Authorize = Callable[[Account, str, BundleKind], Consumer]  # (account, application, kind); raises DeniedError
