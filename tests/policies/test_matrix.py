"""matrix.toml against a real vault: every role, every path, every kind of request."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from broker.embedded.up import Embedded
from broker.model.role import Role
from broker.vault.connection import Connection
from tests.support.matrix import CONSUMER, WAYS, Matrix, Row
from tests.support.raw_http import RawVault, Reply
from tests.support.vault import TestVault, mounted

pytestmark = pytest.mark.slow

MATRIX: Final = Matrix.load()
KINDS: Final = ("data", "metadata", "destroy", "delete", "undelete", "subkeys", "detailed-metadata")
WHO: Final = (*(role.value for role in Role), CONSUMER)
PLANTED: Final = {"there": "already"}


@dataclass(frozen=True, slots=True)
class Attempt:
    """A request to one document. `way` is its name in the matrix; no role may make those without a name."""

    method: str
    kind: str
    body: object = None
    way: str = ""
    fresh: bool = False  # at a path that was never used
    query: str = ""


ATTEMPTS: Final[Mapping[str, Attempt]] = {
    "read": Attempt("GET", "data", way="read"),
    "read an old version": Attempt("GET", "data", way="read", query="?version=1"),
    "create": Attempt("POST", "data", {"data": {}, "options": {"cas": 1}}, way="create", fresh=True),
    "create by PUT": Attempt("PUT", "data", {"data": {}, "options": {"cas": 1}}, way="create", fresh=True),
    "update": Attempt("POST", "data", {"data": {}, "options": {"cas": 99}}, way="update"),
    "patch": Attempt("PATCH", "data", {"data": {"there": "patched"}}),
    "delete softly": Attempt("DELETE", "data"),
    "delete versions": Attempt("POST", "delete", {"versions": [1]}),
    "undelete": Attempt("POST", "undelete", {"versions": [1]}),
    "destroy": Attempt("PUT", "destroy", {"versions": [99]}, way="destroy"),
    "versions": Attempt("GET", "metadata", way="versions"),
    "shape": Attempt("GET", "subkeys"),
    "describe": Attempt("POST", "metadata", {"max_versions": 1}),
    "patch the metadata": Attempt("PATCH", "metadata", {"custom_metadata": {"a": "b"}}),
    "forget": Attempt("DELETE", "metadata"),
}  # fmt: skip
LISTINGS: Final[Mapping[str, Attempt]] = {
    "list": Attempt("LIST", "metadata", way="list"),
    "list by GET": Attempt("GET", "metadata", way="list", query="?list=true"),
    "scan": Attempt("SCAN", "metadata"),
    "scan by GET": Attempt("GET", "metadata", query="?scan=true"),
    "list with metadata": Attempt("LIST", "detailed-metadata", way="list-versions"),
    "list the data": Attempt("LIST", "data"),
    "delete the folder": Attempt("DELETE", "metadata"),
}


@pytest.fixture(scope="module")
def shared(vault_server: tuple[Embedded, Connection]) -> Iterator[TestVault]:
    """One vault for all: nothing that is tried here may change anything."""
    with mounted(vault_server) as made:
        for row in MATRIX.rows:
            if row.mounted and not row.example.endswith("/"):
                made.admin.create(row.example, PLANTED)
        yield made


@pytest.fixture
def wire(shared: TestVault, role: str) -> Iterator[RawVault]:
    """Requests on the wire of a holder of a token of `role`."""
    raw = RawVault(Path(str(shared.settings.socket)), shared.token(role))
    yield raw
    raw.close()


def tried(wire: RawVault, mount: str, path: str, attempt: Attempt) -> Reply:
    target = f"{mount}/{attempt.kind}/{path}{attempt.query}"
    if attempt.method == "PATCH":
        return wire.patch(target, attempt.body)
    return wire.send(attempt.method, target, attempt.body)


@contextmanager
def emptied(vault: TestVault, path: str, fresh: bool) -> Iterator[None]:
    """See that nothing ever was at `path`, and plant it again afterwards."""
    if fresh:
        vault.admin.call("DELETE", f"{vault.settings.mount}/metadata/{path}")
    yield
    if fresh:
        vault.admin.create(path, PLANTED)


def documents() -> Iterator[Row]:
    return (row for row in MATRIX.rows if row.mounted and not row.path.endswith("/"))


def test_matrix_names_every_role() -> None:
    assert MATRIX.roles == set(WHO)


@pytest.mark.parametrize("role", WHO)
def test_rights_on_documents(shared: TestVault, role: str, wire: RawVault) -> None:
    for row in documents():
        for name, attempt in ATTEMPTS.items():
            with emptied(shared, row.example, attempt.fresh):
                reply = tried(wire, shared.settings.mount, row.example, attempt)
            may = attempt.way in row.ways(role)
            assert reply.refused is not may, f"{role}: {name} {row.example}: {reply.status}"
        assert shared.admin.versions(row.example) == {1: True}
        assert shared.admin.read(row.example).data == PLANTED


@pytest.mark.parametrize("role", WHO)
def test_rights_on_folders(shared: TestVault, role: str, wire: RawVault) -> None:
    for row in MATRIX.rows:
        if row.mounted and row.path.endswith("/"):
            for name, attempt in LISTINGS.items():
                reply = tried(wire, shared.settings.mount, row.example, attempt)
                may = attempt.way in row.ways(role)
                assert reply.refused is not may, f"{role}: {name} {row.example}: {reply.status}"


@pytest.mark.parametrize("role", WHO)
def test_rights_outside_the_mount(shared: TestVault, role: str, wire: RawVault) -> None:
    bodies = {"auth/token/lookup": {"token": "s.unknown"}, "auth/token/renew-self": {}}
    for row in MATRIX.rows:
        if not row.mounted and row.path != "auth/token/revoke-self":
            body = bodies.get(row.path, {"token": "s.unknown", "paths": ["x"]})
            method = "GET" if "read" in row.ways("server") else "POST"
            reply = wire.send(method, row.example, body if method == "POST" else None)
            # Vault answers 403 for a token that it does not know, too, and says so
            refused = reply.refused and b"bad token" not in reply.body
            assert refused is not bool(row.ways(role)), f"{role}: {row.example}: {reply.body!r}"
    assert not wire.send("POST", "auth/token/revoke-self", {}).refused
    assert wire.send("POST", "sys/capabilities-self", {"paths": ["x"]}).refused


@pytest.mark.parametrize("role", WHO)
def test_vault_confirms_the_matrix(shared: TestVault, role: str) -> None:
    """Check what requests cannot show: a capability that none of our requests uses."""
    mount = shared.settings.mount
    expected: dict[str, set[str]] = {}
    for row in MATRIX.rows:
        places = [f"{mount}/{kind}/{row.example}" for kind in KINDS] if row.mounted else [row.example]
        for place in places:
            expected.setdefault(place, set())
        for way in row.ways(role):
            kind, operation = WAYS[way] if row.mounted else ("", way)
            expected[f"{mount}/{kind}/{row.example}" if row.mounted else row.example].add(operation)
    asked = {"token": shared.token(role).reveal(), "paths": list(expected)}
    answer = shared.admin.call("POST", "sys/capabilities", asked)["data"]
    for path, capabilities in expected.items():
        # "+" fits an empty segment too: "folder/" as a document, which cannot exist
        nothing = {"deny", "read", "create", "update"} if path.endswith("/") else {"deny"}
        assert set(answer[path]) - nothing == capabilities, f"{role} on {path}"


def test_bad_row_is_refused(tmp_path: Path) -> None:
    for text in (
        '[mount."a/"]\nserver = ["read"]\n[api]',
        '[mount."a/+"]\nexample = "a/b/c"\n[api]',
        '[mount."a"]\nserver = ["sudo"]\n[api]',
        '[mount."a"]',
    ):
        (tmp_path / "matrix.toml").write_text(text)
        with pytest.raises(ValueError, match="matrix"):
            Matrix.load(tmp_path / "matrix.toml")
