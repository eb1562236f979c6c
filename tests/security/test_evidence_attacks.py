"""Verification finds every change to evidence in Vault past the broker, with the entry and the reason."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from broker.copies import replace
from broker.errors import UnknownNameError
from broker.evidence.statements import AnchorKey, Statement, VerifyingKey
from broker.model.chain import Head
from broker.model.finding import FindingsError
from broker.model.role import Role
from broker.model.secret import Secret
from broker.vault import layout
from broker.vault.documents import encoded
from broker.vault.evidence import VaultStatements
from tests.support.accounts import NOW
from tests.support.evidence_archive import ACME, ISSUED, Archive, rewritten
from tests.support.pki import a_ca, pem
from tests.support.vault import TestVault

pytestmark = pytest.mark.slow
Attack = Callable[[Archive], object]


@pytest.fixture
def archive(vault: TestVault) -> Archive:
    made = Archive(vault)
    made.fill()
    return made


def test_untouched_evidence_is_whole(archive: Archive) -> None:
    assert archive.verify().whole
    archive.anchor()
    report = archive.verify()
    assert report.whole
    assert {c.chain for c in report.chains} == {ACME, "accounts/other", ISSUED}
    assert all(c.entries == c.signed > 0 for c in report.chains)
    assert not report.findings


def place(number: int, chain: str = ACME) -> str:
    return layout.evidence(chain, number)


def edit(archive: Archive, number: int, **fields: Any) -> None:
    entry = archive.entries()[number - 1]
    archive.put(place(number), encoded(replace(entry, **fields)))


def swap(archive: Archive) -> None:
    one, other = archive.entries()[2:4]
    archive.put(place(3), encoded(other))
    archive.put(place(4), encoded(one))


def soft_delete(archive: Archive) -> None:
    archive.vault.admin.call("DELETE", f"{archive.vault.settings.mount}/data/{place(3)}")


def newer(archive: Archive) -> None:
    archive.put(place(3), {**encoded(archive.entries()[2]), "schema": 99})


def without_zone(archive: Archive) -> None:
    value = encoded(archive.entries()[2])["value"]
    archive.put(place(3), {"schema": 1, "value": {**value, "at": "2026-01-01T00:00:00"}})


def replay(archive: Archive) -> None:
    archive.replace_chain(archive.entries("accounts/other"))


def append(archive: Archive) -> None:
    entries = archive.entries()
    more = rewritten([*entries, replace(entries[-1], number=len(entries) + 1, what="breaker-reset")], len(entries) + 1)
    archive.put(place(len(more)), encoded(more[-1]))


# What is found without any signature, by the hashes and the account's document
ATTACKS: dict[str, tuple[Attack, str, str]] = {
    "edited": (lambda a: edit(a, 3, by="nobody"), "evidence.edited", f"{ACME} entry 3 was edited"),
    "a fact edited": (lambda a: edit(a, 1, facts={}), "evidence.edited", f"{ACME} entry 1 was edited"),
    "erased": (lambda a: a.erase(place(3)), "evidence.gap", f"{ACME} entry 4 stands at place 3, after entry 2"),
    "deleted, its metadata left": (soft_delete, "evidence.deleted", f"{ACME} entry 3 was deleted"),
    "reordered": (swap, "evidence.misplaced", f"{ACME} entry 3 says that it is entry 4"),
    "all of it erased": (lambda a: a.replace_chain([]), "evidence.cut", f"{ACME} ends at entry 0, but its head is at"),
    "tail cut": (lambda a: a.erase(place(len(a.entries()))), "evidence.cut", f"{ACME} ends at entry"),
    "another account's": (replay, "evidence.foreign", f"{ACME} entry 1 belongs to accounts/other"),
    "forked": (
        lambda a: a.replace_chain(rewritten(a.entries(), 2, by="nobody")),
        "evidence.forked", "differs from its head",
    ),
    "forged entry appended": (append, "evidence.ahead", "are after the account's head"),
    "newer schema": (newer, "evidence.unreadable", f"{ACME} entry 3 cannot be read"),
    "a time without a zone": (without_zone, "evidence.unreadable", f"{ACME} entry 3 cannot be read"),
    "garbage": (lambda a: a.put(place(3), {"x": 1}), "evidence.unreadable", f"{ACME} entry 3 cannot be read"),
    "account's document deleted": (
        lambda a: a.erase("accounts/acme"), "evidence.orphan", f"{ACME} has no account document",
    ),
    "account of a newer schema": (
        lambda a: a.put("accounts/acme", {"schema": 9, "value": {}}), "evidence.account", "account acme has schema 9",
    ),
    "stage set past the rules": (
        lambda a: a.set_account("acme", secrets={"password": 7}), "evidence.differs", "the numbers of the secrets",
    ),
}  # fmt: skip


@pytest.mark.parametrize("attack", ATTACKS)
def test_attack_is_found_by_entry_and_reason(archive: Archive, attack: str) -> None:
    how, code, words = ATTACKS[attack]
    how(archive)
    found = archive.errors()
    assert code in found, found
    assert words in found[code]
    assert [c.chain for c in archive.verify().chains if not c.whole] == [ACME]


PAST_THE_RULES: dict[str, tuple[Attack, str]] = {
    "secrets sent elsewhere": (
        lambda a: a.set_account("acme", base_url="https://evil.example/v3"), "the base_url of acme is 'https://evil.",
    ),
    "another login": (lambda a: a.set_account("acme", login="MZP2"), "the login of acme is 'MZP2'"),
    "another client_id": (
        lambda a: a.set_account("acme", applications=[{**application(a), "client_id": "other"}]), "or their client_ids",
    ),
    "an application more": (
        lambda a: a.set_account("acme", applications=[application(a), {**application(a), "name": "zzz"}]),
        "the applications of acme",
    ),
    "another pin for the server": (
        lambda a: a.set_account("acme", trust=pin(a, "issuing")), "verifies the partner's server by",
    ),
    "another pin for replies": (
        lambda a: a.set_account("acme", issuing=pin(a, "trust")), "must chain to are not those",
    ),
    "a password without evidence": (
        lambda a: a.set_account("acme", secrets={"password": 7}), "the numbers of the secrets",
    ),
    "other CAs under a pinned digest": (lambda a: exchange(a, "anchors"), "is that of other CAs"),
    "another certificate under its digest": (lambda a: exchange(a, "certificates"), "is another certificate's"),
}  # fmt: skip


def stored(archive: Archive) -> dict[str, Any]:
    return dict(archive.vault.admin.read("accounts/acme").data["value"])


def application(archive: Archive) -> dict[str, Any]:
    return dict(stored(archive)["applications"][0])


def pin(archive: Archive, name: str) -> str:
    return str(stored(archive)[name])


def exchange(archive: Archive, name: str) -> None:
    listed = stored(archive)[name]
    archive.set_account("acme", **{name: [{**listed[0], "pem": pem(a_ca().certificate)}, *listed[1:]]})


@pytest.mark.parametrize("attack", PAST_THE_RULES)
def test_rewritten_account_is_reported(archive: Archive, attack: str) -> None:
    how, words = PAST_THE_RULES[attack]
    how(archive)
    found = archive.errors()
    assert set(found) == {"evidence.differs"}
    assert words in found["evidence.differs"]


def test_entry_written_over_is_a_warning(archive: Archive) -> None:
    archive.vault.admin.write(place(3), encoded(archive.entries()[2]), replacing=1)
    (chain,) = archive.verify("acme").chains
    assert [(f.code, f.severity.value) for f in chain.findings] == [("evidence.overwritten", "warning")]
    assert chain.whole


def forge_consistently(archive: Archive, at: int = 2, keep: int | None = None) -> None:
    """Forge, as an administrator of the vault can, a history and an account that agrees with it."""
    forged = rewritten(archive.entries()[:keep], at, by="nobody")
    archive.replace_chain(forged)
    archive.set_account("acme", head={"number": forged[-1].number, "hash": forged[-1].hash})


def test_signed_head_reveals_forged_history(archive: Archive) -> None:
    forge_consistently(archive)
    assert not archive.errors()


def test_every_statement_counts(archive: Archive) -> None:
    length = len(archive.entries())
    archive.anchor()
    archive.go_on()
    archive.anchor()
    forge_consistently(archive, at=length + 1)
    assert f"entry {length + 1} differs from the one that statement 2" in archive.errors()["evidence.forked"]
    assert f"forked after entry {length}" in archive.errors()["evidence.forked"]
    forge_consistently(archive, at=1)
    assert f"entry {length} differs from the one that statement 1" in archive.errors()["evidence.forked"]
    assert "was rewritten" in archive.errors()["evidence.forked"]


def test_signed_head_reveals_a_cut_tail(archive: Archive) -> None:
    length = len(archive.entries())
    archive.anchor()
    forge_consistently(archive, at=length, keep=length - 1)
    assert f"ends at entry {length - 1}, but statement 1" in archive.errors()["evidence.cut"]


def test_account_reveals_unsigned_cut_tail(archive: Archive) -> None:
    archive.anchor()
    archive.go_on()
    archive.replace_chain(archive.entries()[:-1])
    assert archive.errors() == {"evidence.cut": archive.errors()["evidence.cut"]}
    assert "its head is at" in archive.errors()["evidence.cut"]


def test_signed_head_reveals_a_missing_chain(archive: Archive) -> None:
    archive.anchor()
    archive.replace_chain([], ISSUED)
    assert f"{ISSUED} ends at entry 0, but statement 1" in archive.errors()["evidence.cut"]


def resign(archive: Archive, number: int, **fields: Any) -> None:
    """Sign statement `number` again with another key."""
    heads = {ACME: Head(1, archive.entries()[0].hash)}
    statement = replace(Statement(number, NOW, heads, "0" * 64), **fields)
    archive.put(layout.head(number), encoded(AnchorKey(Secret(b"\1" * 32)).signed(statement).text))


def tamper(archive: Archive) -> None:
    text = archive.vault.admin.read(layout.head(2)).data["value"]
    middle = len(text) // 2
    archive.put(layout.head(2), encoded(text[:middle] + ("A" if text[middle] != "A" else "B") + text[middle + 1 :]))


def swap_statements(archive: Archive) -> None:
    one, two = (dict(archive.vault.admin.read(layout.head(n)).data) for n in (1, 2))
    archive.put(layout.head(1), two)
    archive.put(layout.head(2), one)


def copy_over(archive: Archive) -> None:
    archive.put(layout.head(2), dict(archive.vault.admin.read(layout.head(1)).data))


STATEMENTS: dict[str, tuple[Attack, str, str]] = {
    "edited": (tamper, "anchor.edited", "statement 2 was edited"),
    "signed with another key": (lambda a: resign(a, 2), "anchor.key", "statement 2 is signed with another key"),
    "removed from the middle": (lambda a: a.erase(layout.head(2)), "anchor.gap", "statement 3 of"),
    "reordered": (swap_statements, "anchor.misplaced", "statement 1 says that it is statement 2"),
    "replayed": (copy_over, "anchor.misplaced", "statement 2 says that it is statement 1"),
    "newer schema": (
        lambda a: a.put(layout.head(2), {"schema": 99, "value": ""}), "anchor.unreadable", "statement 2 cannot be read",
    ),
    "garbage": (lambda a: a.put(layout.head(2), encoded("")), "anchor.edited", "statement 2 was edited"),
    "deleted": (
        lambda a: a.vault.admin.call("DELETE", f"{a.vault.settings.mount}/data/{layout.head(2)}"),
        "anchor.unreadable", "statement 2 was deleted",
    ),
    "public key erased": (lambda a: a.erase(layout.ANCHOR_KEY), "anchor.key", "the key to verify them is gone"),
}  # fmt: skip


@pytest.mark.parametrize("attack", STATEMENTS)
def test_an_attack_on_statements_is_named(archive: Archive, attack: str) -> None:
    for name in ("one", "two", "three"):
        archive.go_on(client_id=name)
        archive.anchor()
    how, code, words = STATEMENTS[attack]
    how(archive)
    found = archive.errors()
    assert code in found, found
    assert words in found[code]


def test_damaged_statements_stop_signing(archive: Archive) -> None:
    archive.anchor()
    archive.go_on()
    resign(archive, 1)
    with pytest.raises(FindingsError, match="statement 1 is signed with another key"):
        archive.anchor()
    assert archive.vault.admin.read_or_none(layout.head(2)) is None


def test_own_key_reveals_replaced_statements(archive: Archive) -> None:
    kept = archive.anchor().key
    forger = AnchorKey(Secret(b"\1" * 32))
    resign(archive, 1)
    archive.put(layout.ANCHOR_KEY, encoded(forger.verifying.pem))
    assert not archive.errors(), "with Vault's own key nothing shows: its administrator can replace it"
    found = archive.errors(key=kept)
    assert "another public key than the one given" in found["anchor.key"]


def test_replaced_public_key_stops_signing(archive: Archive) -> None:
    from broker.errors import RefusedError

    archive.anchor()
    archive.put(layout.ANCHOR_KEY, encoded(AnchorKey(Secret(b"\1" * 32)).verifying.pem))
    with pytest.raises(RefusedError, match="not that of the key that signs"):
        archive.anchor()


def test_damaged_chain_keeps_its_old_head(archive: Archive) -> None:
    archive.anchor()
    archive.go_on("acme")
    archive.go_on("other")
    forge_consistently(archive, at=1)
    done = archive.anchor()
    assert done.made == (2,)
    assert [f.code for f in done.findings] == ["evidence.forked"]
    assert ACME in done.findings[0].message
    (_, second) = VaultStatements(archive.vault.connection(Role.AUDITOR)).statements()
    assert "other" in str(_claims(second.text)["chains"])
    assert ACME not in _claims(second.text)["chains"]


def test_forged_chain_is_not_signed(archive: Archive) -> None:
    archive.anchor()
    archive.go_on()
    archive.go_on(client_id="third")
    edit(archive, len(archive.entries()) - 1, by="nobody")
    done = archive.anchor()
    assert done.made == ()
    assert "evidence.edited" in {f.code for f in done.findings}


def test_nothing_new_makes_no_statement(archive: Archive) -> None:
    assert archive.anchor().made == (1,)
    assert archive.anchor().made == ()
    archive.go_on()
    assert archive.anchor().made == (2,)
    (_, second) = VaultStatements(archive.vault.connection(Role.AUDITOR)).statements()
    assert list(_claims(second.text)["chains"]) == [ACME], "only what went on is named"


def test_ten_at_once_sign_everything_once(archive: Archive) -> None:
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(10) as pool:
        done = list(pool.map(lambda _: archive.anchor(), range(10)))
    assert sorted(number for one in done for number in one.made) == [1]
    assert {one.key.fingerprint for one in done} == {done[0].key.fingerprint}
    assert archive.verify().whole


def test_kill_between_writes_is_harmless(archive: Archive) -> None:
    """The key, its public half, the statement: killed before or after each, the next run ends the same."""
    from broker.evidence.statements import anchor
    from broker.vault.connection import Phase
    from broker.vault.evidence import VaultEvidence

    class Killed(BaseException):
        pass

    seen: list[str] = []
    for at in range(100):
        calls = 0

        def observer(phase: Phase, path: str) -> None:
            nonlocal calls
            calls += 1
            if calls == at + 1:  # noqa: B023
                seen.append(path)
                raise Killed

        connection = archive.vault.connection(Role.ANCHOR, observer=observer)
        statements = VaultStatements(connection)
        try:
            anchor(statements.key(), statements, VaultEvidence(connection), lambda: NOW)
            break
        except Killed:
            continue
    assert len(seen) >= 3
    assert archive.anchor().made == ()
    assert archive.verify().whole
    assert archive.verify().statements == 1


def test_unknown_account_is_refused(archive: Archive) -> None:
    with pytest.raises(UnknownNameError):
        archive.verify("acmee")


@pytest.mark.parametrize("pem", ["", "nonsense", "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----"])
def test_other_key_files_are_refused(pem: str) -> None:
    from broker.errors import InputError

    with pytest.raises(InputError):
        VerifyingKey(pem)


def _claims(text: str) -> Any:
    import base64
    import json

    payload = text.split(".")[1]
    return json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
