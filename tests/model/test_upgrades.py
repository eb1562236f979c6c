"""Documents and evidence that commit 8e3748c wrote (schema 1) are read, upgraded, verified and used."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from broker.evidence.tamper import differences
from broker.model.account import Account
from broker.model.authentication import PASSWORD
from broker.model.chain import Entry, verify
from broker.model.changes import moving, registering
from broker.model.changes.moving import rollback_target
from broker.model.stage import Move, Stage
from broker.vault.documents import DamagedDocumentError, decoded, encoded
from tests.support.accounts import STAMP, assert_refused, later, promoted, tried, with_answer, without_texts

FOLDER = Path(__file__).parent / "documents-8e3748c"
NAMES = sorted(file.stem for file in FOLDER.glob("*.json"))


@functools.cache
def stored(name: str) -> tuple[Account, tuple[Entry, ...]]:
    document: dict[str, Any] = json.loads((FOLDER / f"{name}.json").read_text())
    account = decoded(document["account"], Account, name)
    return account, tuple(decoded(entry, Entry, name) for entry in document["evidence"])


def account_of(name: str) -> Account:
    return stored(name)[0]


def assert_told(account: Account, entries: tuple[Entry, ...]) -> None:
    """Assert that document and evidence agree, whatever of the evidence was written since."""
    entries += account.outbox
    assert verify(f"accounts/{account.name}", entries, account.head) == ()
    assert list(differences(without_texts(account), entries)) == []


def names_of(account: Account) -> dict[int, str]:
    return {g.number: g.stage.value for g in account.generations}


def test_the_documents_are_of_every_kind() -> None:
    assert len(NAMES) >= 20


@pytest.mark.parametrize("name", NAMES)
def test_it_is_read_and_its_evidence_agrees(name: str) -> None:
    account, entries = stored(name)
    assert_told(account, entries)
    assert decoded(encoded(account), Account, name) == account


@pytest.mark.parametrize("where", [(), ("generations", 0), ("generations", 0, "parts"), ("tries", 0)])
def test_unknown_field_is_refused(where: tuple[str | int, ...]) -> None:
    document = json.loads((FOLDER / "renewed.json").read_text())["account"]
    place = functools.reduce(lambda value, step: value[step], where, document["value"])
    place["colour"] = "new"
    with assert_refused(DamagedDocumentError, "fields that this broker does not know"):
        decoded(document, Account, "account")


@pytest.mark.parametrize("missing", ["held", "base", "parts", "since"])
def test_a_damaged_document_is_refused(missing: str) -> None:
    document = json.loads((FOLDER / "renewed.json").read_text())["account"]
    del document["value"]["generations"][1][missing]
    with assert_refused(DamagedDocumentError):
        decoded(document, Account, "account")


def rolled_back(account: Account, number: int) -> Account:
    account = moving.restored(account, number, STAMP)
    target = rollback_target(account, account.generation(number))
    return moving.moved(tried(account, target.number), target.number, Move.ROLL_BACK, STAMP)


def with_password(account: Account) -> Account:
    return registering.secret_set(account, PASSWORD, account.password + 1, STAMP)


def retired(account: Account) -> Account:
    for generation in account.generations:
        if generation.stage in (Stage.PREVIOUS, Stage.REJECTED):
            account = moving.moved(account, generation.number, Move.RETIRE, STAMP)
    return account


def renewed(account: Account) -> Account:
    account = with_answer(account)
    return promoted(account, account.candidates[-1].number, at=later(days=1))


# name: (what is done with it, the stages that this leads to)
USES: dict[str, tuple[Callable[[Account], Account], dict[int, str]]] = {
    "candidate": (lambda a: promoted(a, 1), {1: "current"}),
    "first-replaced": (lambda a: promoted(a, 2), {1: "rejected", 2: "current"}),
    "renewing": (lambda a: promoted(a, 2), {1: "previous", 2: "current"}),
    "renewed": (lambda a: rolled_back(a, 1), {1: "current", 2: "previous"}),
    "overtaken": (lambda a: promoted(a, 2), {1: "previous", 2: "current", 3: "previous"}),
    "joined": (lambda a: promoted(a, 4), {1: "previous", 2: "rejected", 3: "previous", 4: "current"}),
    "rolled-back": (lambda a: promoted(a, 2), {1: "previous", 2: "current"}),
    "rolled-back-promoted": (lambda a: rolled_back(a, 1), {1: "current", 2: "previous"}),
    "restoring": (
        lambda a: rolled_back(a, 1),
        {1: "previous", 2: "previous", 3: "previous", 4: "current"},
    ),
    "restored": (lambda a: promoted(a, 3), {1: "previous", 2: "previous", 3: "current", 4: "previous"}),
    "password-candidate": (
        lambda a: promoted(with_password(a), 3),
        {1: "previous", 2: "rejected", 3: "current"},
    ),
    "trust-candidate": (
        lambda a: promoted(moving.joined(a, 2, 3, STAMP), 4),
        {1: "previous", 2: "rejected", 3: "rejected", 4: "current"},
    ),
}


@pytest.mark.parametrize("name", USES)
def test_it_is_used_as_one_of_today(name: str) -> None:
    account, entries = stored(name)
    use, stages = USES[name]
    after = use(account)
    assert names_of(after) == stages
    assert_told(after, entries)


@pytest.mark.parametrize("name", [name for name in NAMES if name not in ("requested", "locked")])
def test_it_goes_on_through_renewals(name: str) -> None:
    account, entries = stored(name)
    for step in (with_password, renewed, retired, renewed, retired):
        account = step(account)
        assert_told(account, entries)
    assert account.current
    assert account.current.parts.complete
    assert account.doomed_keys


def test_schema_two_gets_the_modes_of_renewal() -> None:
    document = encoded(account_of("renewed"))
    for name in ("renewal", "promotion", "snoozed", "password_rotation"):
        del document["value"][name]
    for request in document["value"]["requests"]:
        for name in ("closed_because", "compromised", "revoked_at"):
            del request[name]
    for one in (*document["value"]["generations"], *document["value"]["tries"]):
        del one["parts"]["client_ids"]
    assert decoded(document | {"schema": 2}, Account, "account") == account_of("renewed")


def test_candidate_becomes_its_changes() -> None:
    assert account_of("renewing").generation(2).parts.names == {"certificate"}
    assert account_of("password-candidate").generation(2).parts.names == {"secret password"}
    assert account_of("trust-candidate").generation(3).parts.names == {"trust"}
    assert account_of("candidate").generation(1).parts.complete


@pytest.mark.parametrize("name", ["rolled-back", "restored"])
def test_displaced_set_waits_for_a_person(name: str) -> None:
    account = account_of(name)
    (displaced,) = [g for g in account.generations if account.rolled_back(g)]
    assert displaced.stage is Stage.PREVIOUS
    assert account.automatic_candidate is None


def test_waiting_way_back_stays_waiting() -> None:
    account = account_of("restoring")
    assert account.reuses_certificate(account.generation(4))
    assert account.automatic_candidate is None


def test_held_set_is_not_the_way_back() -> None:
    account = account_of("rolled-back-overtaken")
    current = account.current
    assert current
    assert account.generation(1).order == current.order - 1
    assert account.generation(2).order != current.order - 1
