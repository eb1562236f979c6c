"""Write access to accounts cannot redirect the secrets of a canary or bundle: entry 1 holds the address."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from broker.copies import replace
from broker.model.account import Account
from broker.model.changes.writing import recorded
from broker.model.clock import Stamp
from broker.model.history import Event
from broker.model.names import AccountName
from broker.model.role import Role
from broker.vault import layout
from broker.vault.accounts import VaultAccounts
from tests.support.accounts import NOW
from tests.support.pki import a_ca, pem
from tests.support.system import System

pytestmark = pytest.mark.slow
ACME = AccountName("acme")


def elsewhere(account: Account) -> Account:
    """Rewrite the base_url, and append an entry that says that it was so from the beginning."""
    facts = {**account.outbox[0].facts} if account.outbox else {}
    facts |= {"base_url": "https://127.0.0.1:1/evil", "login": account.login}
    return recorded(
        replace(account, base_url="https://127.0.0.1:1/evil"), Stamp(NOW, "thief"), Event.ACCOUNT_ADDED, **facts
    )


def another_ca(account: Account) -> Account:
    """Put the text of a CA of the thief's under the digest of the one that a person accepted."""
    assert account.current
    trust = account.ca_set(account.current.parts.trust)
    exchanged = replace(trust, pem=pem(a_ca().certificate))
    return replace(account, anchors=tuple(exchanged if one is trust else one for one in account.anchors))


@pytest.mark.parametrize("rewritten", [elsewhere, another_ca])
def test_a_rewritten_account_sends_no_secret(system: System, rewritten: Callable[[Account], Account]) -> None:
    system.promoted()
    token = system.consumer("acme/reporting")
    get = ("bundle", "get", "acme/reporting", "--consumer-token-file", str(token), "--to")
    system.ok(*get, str(system.home / "honest"))
    system.ok("rotation", "canary", "acme")
    accounts = VaultAccounts(system.vault.connection(Role.OPERATOR))
    seen = accounts.read(ACME)
    accounts.write(rewritten(seen.account), replacing=seen.version)
    for command in (("rotation", "canary", "acme"), (*get, str(system.home / "stolen"))):
        ended = system.run(*command)
        assert ended.code == 6, ended.err
        assert "nothing was sent" in ended.err
        assert "broker evidence verify" in ended.err
    assert not (system.home / "stolen" / "current").exists()
    assert system.account("acme").tries == seen.account.tries, "refused before it was reserved"


def test_missing_first_entry_sends_nothing(system: System) -> None:
    system.promoted()
    accounts = VaultAccounts(system.vault.admin)
    seen, path = accounts.read(ACME), layout.evidence("accounts/acme", 1)
    system.vault.admin.call("DELETE", f"{system.vault.settings.mount}/metadata/{path}")
    ended = system.run("rotation", "canary", "acme")
    assert ended.code == 6, ended.err
    assert "is not stored" in ended.err
    assert system.account("acme").tries == seen.account.tries
