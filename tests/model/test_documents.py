"""Documents of the model as they are stored: what this broker cannot read whole, it neither uses nor writes back."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any

import pytest

from broker.errors import ConflictError
from broker.model.account import Account
from broker.model.chain import Entry
from broker.model.changes import registering
from broker.model.holdings import ConsumerRecord, Holding
from broker.model.names import AccountName
from broker.rotation.amend import amend
from broker.rotation.ports import Version, Versioned
from broker.vault import documents, errors
from broker.vault.documents import DamagedDocumentError, NewerSchemaError, decoded, encoded
from tests.support.accounts import (
    MZP,
    NOW,
    STAMP,
    assert_refused,
    with_current,
    with_open_request,
    with_overtaken_candidate,
    with_rolled_back,
)

Document = dict[str, Any]
Damage = Callable[[Document], object]


def stored(account: Account | None = None) -> Document:
    """Return an account's document as it comes back from Vault: through JSON."""
    return json.loads(json.dumps(encoded(account or with_open_request(with_rolled_back()))))  # type: ignore[no-any-return]


def read(document: Document) -> Account:
    return decoded(document, Account, "account mzp-1")


@pytest.mark.parametrize("account", [with_current(), with_rolled_back(), with_overtaken_candidate()])
def test_an_account_comes_back_as_it_was(account: Account) -> None:
    assert read(stored(account)) == account
    assert json.dumps(encoded(read(stored(account)))) == json.dumps(encoded(account))


def test_the_order_of_fields_does_not_matter() -> None:
    document = stored()
    turned = {"value": dict(reversed(document["value"].items())), "schema": document["schema"]}
    assert read(turned) == read(document)


def test_entry_round_trips_with_its_hash() -> None:
    entry = with_current().outbox[-1]
    again = decoded(json.loads(json.dumps(encoded(entry))), Entry, "entry")
    assert again == entry
    assert again.expected_hash == entry.hash


def test_consumer_record_round_trips() -> None:
    record = ConsumerRecord("e", "billing", (Holding(MZP, "fleet", "by hand", 1, "", NOW, None),))
    assert decoded(json.loads(json.dumps(encoded(record))), ConsumerRecord, "consumer") == record


def at(*path: str | int) -> Callable[[Document], Any]:
    def found(document: Document) -> Any:
        for step in path:
            document = document[step]  # type: ignore[index]
        return document

    return found


def put(value: object, *path: str | int) -> Damage:
    return lambda d: at(*path[:-1])(d).__setitem__(path[-1], value)


def drop(*path: str | int) -> Damage:
    return lambda d: at(*path[:-1])(d).__delitem__(path[-1])


DAMAGES: dict[str, Damage] = {
    "no schema": drop("schema"),
    "schema of text": put("1", "schema"),
    "schema true": put(True, "schema"),
    "schema 0": put(0, "schema"),
    "schema -1": put(-1, "schema"),
    "schema 1.0": put(1.0, "schema"),
    "schema null": put(None, "schema"),
    "no value": drop("value"),
    "value null": put(None, "value"),
    "value a list": put([], "value"),
    "value a text": put("account", "value"),
    "value empty": put({}, "value"),
    "no name": drop("value", "name"),
    "name a number": put(7, "value", "name"),
    "name null": put(None, "value", "name"),
    "no default field": drop("value", "breaker"),
    "a time that is none": put("yesterday", "value", "created_at"),
    "a time as a number": put(0, "value", "created_at"),
    "a stage nobody knows": put("lost", "value", "generations", 0, "stage"),
    "a number as text": put("1", "value", "generations", 0, "number"),
    "a number with a fraction": put(1.5, "value", "generations", 0, "number"),
    "a number written 1.0": put(1.0, "value", "generations", 0, "number"),
    "a password that is true": put(True, "value", "password"),
    "a list as an object": put({}, "value", "generations"),
    "a part missing": drop("value", "generations", 0, "parts", "trust"),
    "a fact of a list": put([1], "value", "outbox", 0, "facts", "profile"),
    "two current": put("current", "value", "generations", 1, "stage"),
    "a key in use doomed": put(["kv:1"], "value", "doomed_keys"),
    "a doomed key twice": put(["kv:9", "kv:9"], "value", "doomed_keys"),
    "an outbox cut": drop("value", "outbox", -1),
    "a dangling certificate": put([], "value", "certificates"),
    "an unknown field": put("new", "value", "colour"),
    "an unknown field deep inside": put("new", "value", "generations", 0, "parts", "colour"),
    "an unknown field that is null": put(None, "value", "colour"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_what_no_broker_wrote_is_refused(damage: str) -> None:
    document = stored()
    DAMAGES[damage](document)
    with assert_refused(DamagedDocumentError, "account mzp-1"):
        read(document)


@pytest.mark.parametrize("kind", [Entry, ConsumerRecord])
def test_document_of_another_kind_is_refused(kind: type) -> None:
    with assert_refused(DamagedDocumentError, "that place"):
        decoded(stored(), kind, "that place")


@pytest.mark.parametrize("schema", [documents.SCHEMA + 1, 99, 10**30])
def test_newer_schema_is_refused_first(schema: int) -> None:
    with assert_refused(NewerSchemaError, f"schema {schema}"):
        read({"schema": schema, "value": "whatever it means by then"})


# -- upgrades: a broker of schema 3, which renamed `login` twice


def to_two(document: errors.Document) -> errors.Document:
    value = dict(document["value"])
    value["user_name"] = value.pop("user")
    return {"schema": 2, "value": value}


def to_three(document: errors.Document) -> errors.Document:
    value = dict(document["value"])
    value["login"] = value.pop("user_name")
    return {"schema": 3, "value": value}


@pytest.fixture
def _at_schema_three(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(documents, "SCHEMA", 3)
    monkeypatch.setattr(documents, "UPGRADES", {1: to_two, 2: to_three})


def renamed(schema: int, name: str) -> Document:
    document = stored(with_current())
    document["schema"] = schema
    document["value"][name] = document["value"].pop("login")
    return document


@pytest.mark.usefixtures("_at_schema_three")
@pytest.mark.parametrize(("schema", "name"), [(1, "user"), (2, "user_name"), (3, "login")])
def test_older_document_is_upgraded_on_read(schema: int, name: str) -> None:
    document = renamed(schema, name)
    before = copy.deepcopy(document)
    assert read(document) == with_current()
    assert document == before
    assert encoded(read(document))["schema"] == 3


@pytest.mark.usefixtures("_at_schema_three")
@pytest.mark.parametrize(
    "document",
    [
        renamed(1, "user_name"),
        renamed(1, "login"),
        renamed(2, "user"),
        {"schema": 1},
        {"schema": 1, "value": None},
        {"schema": 2, "value": ["login"]},
        renamed(1, "user") | {"value": renamed(1, "user")["value"] | {"colour": "new"}},
    ],
)
def test_damaged_older_document_is_refused(document: Document) -> None:
    with assert_refused(DamagedDocumentError, "account mzp-1"):
        read(document)


@pytest.mark.usefixtures("_at_schema_three")
def test_schema_after_the_next_is_refused() -> None:
    with assert_refused(NewerSchemaError):
        read(renamed(4, "login"))


# -- nothing is written back


class OneDocument:
    """Accounts on one stored document, as `vault.accounts` reads and writes it."""

    def __init__(self, document: Document) -> None:
        self.document = document
        self.writes = 0

    def read(self, name: AccountName) -> Versioned:
        return Versioned(decoded(self.document, Account, f"account {name}"), Version(1))

    def write(self, account: Account, replacing: Version) -> None:
        self.writes += 1
        raise ConflictError("no")

    def landed(self, account: Account, replacing: Version) -> bool:
        return False

    def names(self) -> Any:
        return iter([MZP])


@pytest.mark.parametrize(
    ("damage", "kind"),
    [
        ("an unknown field", DamagedDocumentError),
        ("an unknown field deep inside", DamagedDocumentError),
        ("no schema", DamagedDocumentError),
        ("newer", NewerSchemaError),
    ],
)
def test_unreadable_document_is_kept(damage: str, kind: type[Any]) -> None:
    accounts = OneDocument(stored())
    DAMAGES.get(damage, put(99, "schema"))(accounts.document)
    with assert_refused(kind):
        amend(accounts, MZP, lambda a: registering.application_set(a, "other", "", STAMP))
    assert accounts.writes == 0
