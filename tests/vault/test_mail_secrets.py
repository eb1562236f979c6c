"""Secrets for mail servers: the newest counts, those before are destroyed, and a taken number is passed over."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from broker.errors import ConflictError
from broker.model.secret import Secret
from broker.vault.mail_secrets import VaultMailSecrets
from tests.support.vault import TestVault


class Behind(VaultMailSecrets):
    """Its listings are old: those of a command that another overtakes, or whose answer was lost."""

    listings: Iterator[list[int]]

    def numbers(self, name: str) -> list[int]:
        return next(self.listings, None) or super().numbers(name)


def test_taken_number_is_passed_over(vault: TestVault) -> None:
    secrets = Behind(vault.admin)
    secrets.listings = iter(())
    assert secrets.store("smtp", Secret("first")) == 1
    secrets.listings = iter([[0]])
    assert secrets.store("smtp", Secret("second")) == 2
    assert secrets.newest("smtp").reveal() == "second"
    assert not any(vault.admin.versions("mail/smtp/1").values())


def test_numbers_that_stay_taken_are_a_conflict(vault: TestVault) -> None:
    secrets = Behind(vault.admin)
    secrets.listings = iter(())
    secrets.store("smtp", Secret("first"))
    secrets.listings = iter([[0]] * 9)
    with pytest.raises(ConflictError, match=r"\[mail.smtp\]"):
        secrets.store("smtp", Secret("second"))
