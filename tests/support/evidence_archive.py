"""Evidence in a real vault, for tests that attack it: two accounts with a history, and one issuing process."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from broker.copies import replace
from broker.evidence.audit import Record, Report, collect, examine
from broker.evidence.journal import Journal
from broker.evidence.statements import Anchored, VerifyingKey, anchor
from broker.model.chain import GENESIS, Entry
from broker.model.changes import registering
from broker.model.names import AccountName
from broker.model.role import Role
from broker.rotation.amend import amend, settle
from broker.rotation.ports import Version
from broker.vault import layout
from broker.vault.accounts import VaultAccounts
from broker.vault.documents import encoded
from broker.vault.evidence import VaultEvidence, VaultStatements
from tests.support.accounts import BY, NOW, STAMP, an_account, with_answer, with_current, without_texts
from tests.support.vault import TestVault

__all__ = ["ACME", "ISSUED", "Archive", "rewritten"]

ACME = "accounts/acme"
ISSUED = "issued/20260101-000000-abcdef"


def rewritten(entries: list[Entry], at: int, **fields: object) -> list[Entry]:
    """Return the chain with entry `at` changed, and every hash after it made to fit, as a forger would."""
    out = entries[: at - 1]
    for old in entries[at - 1 :]:
        before = out[-1].hash if out else GENESIS
        new = replace(old, before=before, **(fields if old.number == at else {}))  # type: ignore[arg-type]
        out.append(replace(new, hash=new.expected_hash))
    return out


@dataclass
class Archive:
    """A vault's evidence, and an attacker who may write anything in it."""

    vault: TestVault

    def fill(self) -> None:
        """Store the accounts `acme` and `other`, their evidence, and that of one issuing process."""
        accounts, evidence = VaultAccounts(self.vault.admin), VaultEvidence(self.vault.admin)
        for name in ("acme", "other"):
            account = without_texts(with_answer(with_current(an_account(name))))
            accounts.write(account, replacing=Version(0))
            settle(account.name, accounts=accounts, log=evidence.append)
        journal = Journal(ISSUED, evidence.append, lambda: NOW, BY)
        for number in range(3):
            journal.append("bundle-issued", account="acme", lease=f"lease-{number}")

    def go_on(self, name: str = "acme", client_id: str = "another") -> None:
        """Let one more thing happen to an account."""
        accounts = VaultAccounts(self.vault.admin)
        amend(accounts, AccountName(name), lambda a: registering.application_set(a, "fleet", client_id, STAMP))
        settle(AccountName(name), accounts=accounts, log=VaultEvidence(self.vault.admin).append)

    def anchor(self, at: datetime = NOW) -> Anchored:
        statements = VaultStatements(self.vault.connection(Role.ANCHOR))
        return anchor(statements.key(), statements, VaultEvidence(self.vault.connection(Role.ANCHOR)), lambda: at)

    def record(self, *names: str) -> Record:
        auditor = self.vault.connection(Role.AUDITOR)
        accounts = VaultAccounts(auditor)
        wanted = [AccountName(n) for n in names] or list(accounts.names())
        return collect(
            VaultEvidence(auditor),
            VaultStatements(auditor),
            lambda name: accounts.read(name).account,
            wanted,
            everything=not names,
        )

    def verify(self, *names: str, key: VerifyingKey | None = None) -> Report:
        return examine(self.record(*names), key, everything=not names)

    def errors(self, *names: str, key: VerifyingKey | None = None) -> dict[str, str]:
        """Return the sentences of all errors, by code; where several share a code, the first."""
        report = self.verify(*names, key=key)
        found = [*report.findings, *(f for chain in report.chains for f in chain.findings)]
        return {f.code: f.message for f in reversed(found) if f.severity.value == "error"}

    def entries(self, chain: str = ACME) -> list[Entry]:
        return list(VaultEvidence(self.vault.admin).kept(chain).entries)

    # what an attacker does

    def put(self, path: str, document: dict[str, Any]) -> None:
        """Write `document` over whatever is at `path`, and leave no older version to see."""
        self.erase(path)
        self.vault.admin.create(path, document)

    def erase(self, path: str) -> None:
        """Remove `path` with all its metadata."""
        self.vault.admin.call("DELETE", f"{self.vault.settings.mount}/metadata/{path}")

    def replace_chain(self, entries: list[Entry], chain: str = ACME) -> None:
        """Make `entries` what is stored, each at the place of its order."""
        for old in self.entries(chain):
            self.erase(layout.evidence(chain, old.number))
        for place, entry in enumerate(entries, start=1):
            self.put(layout.evidence(chain, place), encoded(entry))

    def set_account(self, name: str, **fields: Any) -> None:
        """Change fields of an account's document past all rules."""
        path = layout.account(name)
        stored = self.vault.admin.read(path)
        document = {**stored.data, "value": {**stored.data["value"], **fields}}
        self.vault.admin.write(path, document, replacing=stored.version)
