"""Foreign entries in the broker's folders: every listing passes over them, and they are reported."""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Iterator
from contextlib import closing
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final

import pytest

from broker.copies import replace
from broker.embedded.server import find_binary
from broker.evidence.statements import Statement
from broker.model.chain import GENESIS, Head
from broker.model.holdings import ConsumerRecord
from broker.model.role import Role
from broker.partners.catalogue import builtin
from broker.partners.document import to_document
from broker.vault import layout
from broker.vault.accounts import VaultAccounts
from broker.vault.consumers import VaultConsumers
from broker.vault.documents import encoded
from broker.vault.evidence import VaultEvidence, VaultStatements
from broker.vault.listing import every_folder, foreign
from broker.vault.profiles import own_profiles
from tests.support.accounts import NOW, an_account
from tests.support.evidence_archive import ACME, ISSUED, Archive
from tests.support.raw_http import RawVault
from tests.support.vault import TestVault, token_of

pytestmark = pytest.mark.slow

# path: the role that may create it, None for what only a Vault administrator can
FOREIGN: Final[dict[str, Role | None]] = {
    "accounts/Bad Name": Role.OPERATOR,
    "accounts/-": Role.OPERATOR,
    f"accounts/{'a' * 64}": Role.OPERATOR,
    "accounts/a?b#c%2Fd": Role.OPERATOR,
    "accounts/folder/x": None,
    "consumers/Bad+Name": Role.SERVER,
    "consumers/folder/x": None,
    "profiles/Bad Name": Role.OPERATOR,
    "profiles/folder/x": None,
    "evidence/accounts/A/1": Role.ROTATOR,
    "evidence/accounts/document": None,
    "evidence/accounts/acme/note": Role.OPERATOR,
    "evidence/accounts/acme/1": Role.ROTATOR,
    "evidence/accounts/acme/00000000": Role.ROTATOR,
    "evidence/accounts/acme/\u0661\u0661\u0661\u0661\u0661\u0661\u0661\u0661": Role.ROTATOR,
    f"evidence/accounts/acme/{'9' * 5000}": Role.ROTATOR,
    "evidence/accounts/acme/00000001/x": None,
    "evidence/issued/A/1": Role.SERVER,
    "evidence/issued/a?b#c%2Fd/1": Role.SERVER,
    f"evidence/{ISSUED}/note": Role.SERVER,
    "evidence/heads/1": Role.ANCHOR,
    "evidence/heads/999999999": Role.ANCHOR,
    "evidence/heads/note": Role.ANCHOR,
    "evidence/heads/key/x": None,
}


@pytest.fixture
def archive(vault: TestVault) -> Archive:
    made = Archive(vault)
    made.fill()
    vault.admin.create(layout.consumer("entity-1"), encoded(ConsumerRecord("entity-1", "reader")))
    vault.admin.create(layout.profile("own"), to_document(builtin("stellantis")))
    return made


def reported(archive: Archive) -> Iterator[tuple[str, str]]:
    """Yield the path in each finding of the auditor, and its hint."""
    auditor = archive.vault.connection(Role.AUDITOR)
    for found in foreign(auditor, every_folder(auditor)):
        assert (found.code, found.severity.value) == ("vault.foreign", "error")
        yield found.message.removeprefix("foreign entry ").removesuffix(": no broker wrote it"), found.hint


def plant(archive: Archive) -> None:
    for path in FOREIGN:
        archive.vault.admin.create(path, {"x": 1})


def test_roles_may_store_foreign_entries(archive: Archive) -> None:
    """Shows that the entries of these tests are within the reach of a stolen role."""
    for path, role in FOREIGN.items():
        if role:
            archive.vault.connection(role).create(path, {"x": 1})


def test_listings_pass_over_foreign_entries(archive: Archive) -> None:
    plant(archive)
    auditor = archive.vault.connection(Role.AUDITOR)
    assert VaultAccounts(auditor).names() == ("acme", "other")
    assert set(VaultAccounts(auditor).all().found) == {"acme", "other"}
    assert set(VaultConsumers(auditor).all().found) == {"entity-1"}
    assert set(own_profiles(auditor).found) == {"own"}
    assert VaultEvidence(auditor).chains() == (ACME, "accounts/other", ISSUED)
    assert archive.anchor().made == (1,)
    assert [s.number for s in VaultStatements(auditor).statements()] == [1]
    report = archive.verify()
    assert all(c.entries == c.signed > 0 and c.whole for c in report.chains)
    assert report.whole


def test_each_foreign_entry_is_reported(archive: Archive) -> None:
    plant(archive)
    paths = [path for path, _ in reported(archive)]
    assert len(paths) == len(FOREIGN)
    for path in FOREIGN:
        assert [p for p in paths if p == path or (p.endswith("/") and path.startswith(p))], path


def test_the_hint_removes_a_foreign_entry(archive: Archive) -> None:
    vault = archive.vault
    for path in ("accounts/it's Bad", "profiles/a?b#c%2Fd", "evidence/accounts/A/1"):
        vault.admin.create(path, {"x": 1})
    environment = {"BAO_ADDR": vault.settings.address, "BAO_TOKEN": token_of(vault.admin).reveal(), "HOME": "/"}
    hints = [hint for _, hint in reported(archive)]
    assert len(hints) == 3
    for command in (part.partition(": ")[2] for hint in hints for part in hint.split("; ")):
        words = shlex.split(command.replace("/NAME", "/1"))
        subprocess.run([find_binary(), *words[1:]], env=environment, check=True, capture_output=True)
    assert not list(reported(archive))


def test_false_statement_stops_no_chain(archive: Archive) -> None:
    """A stolen anchor role may sign a chain that can have no entries."""
    statements = VaultStatements(archive.vault.connection(Role.ANCHOR))
    statements.add(statements.key().signed(Statement(1, NOW, {"accounts/Bad Name": Head(1, "0" * 64)}, GENESIS)))
    done = archive.anchor()
    assert done.made == (2,)
    assert [f.code for f in done.findings] == ["evidence.forked"]
    assert [c.chain for c in archive.verify().chains if not c.whole] == ["accounts/Bad Name"]


def nested(depth: int) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for _ in range(depth):
        found = {"a": found}
    return found


GOOD: Final = encoded(an_account("damaged"))
VALUE: Final = GOOD["value"]
OUTBOX: Final = {"chain": "accounts/Bad Name", "number": 1, "at": "2026-01-01T00:00:00Z", "by": "x", "what": "x"}
DAMAGED: Final[dict[str, Any]] = {
    "empty": {},
    "null": None,
    "no document": {"schema": 1, "value": []},
    "of a newer broker": {**GOOD, "schema": 9},
    "another field": {"schema": 1, "value": {**VALUE, "more": 1}},
    "deep": {"schema": 1, "value": nested(900)},
    "deep in another field": {"schema": 1, "value": {**VALUE, "more": nested(800)}},
    "a time without a zone": {"schema": 1, "value": {**VALUE, "created_at": "2026-01-01T00:00:00"}},
    "another account's": {"schema": 1, "value": {**VALUE, "name": "other"}},
    "an outbox of another chain": {
        "schema": 1,
        "value": {
            **VALUE,
            "outbox": [{**OUTBOX, "facts": {}, "before": "0" * 64, "hash": "h"}],
            "head": {"number": 1, "hash": "h"},
        },
    },
}


def test_a_damaged_document_hides_no_other(archive: Archive) -> None:
    names = [f"damaged-{number}" for number in range(len(DAMAGED))]
    for name, document in zip(names, DAMAGED.values(), strict=True):
        for path in (layout.account(name), layout.consumer(name), layout.profile(name)):
            store(archive, path, document)
    auditor = archive.vault.connection(Role.AUDITOR)
    accounts, records = VaultAccounts(auditor).all(), VaultConsumers(auditor).all()
    assert set(accounts.found) == {"acme", "other"}
    assert set(accounts.unread) == set(names)
    assert {found.code for found in accounts.unread.values()} == {"account.unreadable"}
    assert set(records.found) == {"entity-1"}
    assert set(records.unread) == set(names)
    assert {found.code for found in records.unread.values()} == {"consumer.unreadable"}
    assert "own" in own_profiles(auditor).found
    assert archive.anchor().made == (1,)
    assert {c.chain for c in archive.verify().chains if not c.whole} == {f"accounts/{name}" for name in names}


def test_a_damaged_entry_hides_no_other(archive: Archive) -> None:
    for number, document in enumerate(DAMAGED.values(), start=4):
        store(archive, layout.evidence(ISSUED, number), document)
    assert len(VaultEvidence(archive.vault.admin).kept(ISSUED).entries) == 3
    assert len(VaultEvidence(archive.vault.admin).kept(ISSUED).findings) == len(DAMAGED)
    assert archive.anchor().made == (1,)
    assert [c.chain for c in archive.verify().chains if not c.whole] == [ISSUED]


def test_a_large_document_hides_no_other(archive: Archive) -> None:
    """Larger than an answer is read: a vault whose storage is not raft keeps it."""
    store(archive, layout.account("large"), {"x": "x" * 17 * 1024 * 1024})
    accounts = VaultAccounts(archive.vault.connection(Role.AUDITOR)).all()
    assert (set(accounts.found), set(accounts.unread)) == ({"acme", "other"}, {"large"})
    assert [c.chain for c in archive.verify().chains if not c.whole] == ["accounts/large"]


def test_account_without_evidence_is_found(archive: Archive) -> None:
    archive.put(layout.account("alone"), encoded(replace(an_account("alone"), outbox=(), head=Head())))
    assert "does not begin with its being added" in archive.errors()["evidence.differs"]
    assert [c.chain for c in archive.verify().chains if not c.whole] == ["accounts/alone"]


def test_deleted_documents_hide_no_other(archive: Archive) -> None:
    mount, admin = archive.vault.settings.mount, archive.vault.admin
    for path in ("accounts/gone", "consumers/gone", "profiles/gone"):
        admin.create(path, {"x": 1})
        admin.call("DELETE", f"{mount}/data/{path}")
    assert set(VaultAccounts(admin).all().found) == {"acme", "other"}
    assert set(VaultAccounts(admin).all().unread) == {"gone"}
    assert set(VaultConsumers(admin).all().found) == {"entity-1"}
    assert set(own_profiles(admin).found) == {"own"}
    assert [c.chain for c in archive.verify().chains if not c.whole] == ["accounts/gone"]


@pytest.mark.parametrize("document", [{"x": 1}, encoded("no key")], ids=["damaged", "no key"])
def test_a_damaged_key_hides_no_chain(archive: Archive, document: dict[str, Any]) -> None:
    archive.put(layout.ANCHOR_KEY, document)
    assert set(archive.errors()) == {"anchor.key"}
    assert all(c.entries and c.whole for c in archive.verify().chains)


def store(archive: Archive, path: str, document: dict[str, Any] | None) -> None:
    """Store `document`, which may be null or nested deep."""
    vault = archive.vault
    with closing(RawVault(Path(str(vault.settings.socket)), token_of(vault.admin))) as raw:
        reply = raw.send("POST", f"{vault.settings.mount}/data/{path}", {"data": document, "options": {"cas": 0}})
    assert reply.status == HTTPStatus.OK
