"""One consumer against another, and requests that are odd on the wire: what is decided is what is answered."""

from __future__ import annotations

import base64
import json
import re
import socket
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx
import jwt
import pytest

from broker.embedded.up import Embedded
from broker.vault.connection import Connection
from tests.support.replicas import ASKED, FLAT, Replica, grounded, replicas
from tests.support.saved_states import ACCOUNT
from tests.support.system import System
from tests.support.vault import token_of

pytestmark = pytest.mark.slow

Headers = Mapping[str, str]
CHANGING: Final = ("x-request-id", "date", "content-length")


@dataclass
class World:
    """Accounts `acme` and `bravo`, of which consumer A may have one and B the other; two replicas."""

    one: Replica
    other: Replica
    a: Headers
    b: Headers
    nobody: Headers  # a token of Vault without any right here
    lease: str  # of A
    theirs: str  # of B
    system: System

    def raw(self, request: bytes) -> bytes:
        """Send octets as they are; return all that is answered until the service closes the connection."""
        url = httpx.URL(self.one.addresses[0])
        with socket.create_connection((url.host, url.port or 80), 30) as channel:
            channel.sendall(request)
            return b"".join(iter(lambda: channel.recv(65536), b""))

    def ask(self, line: str, *headers: str, body: bytes = b"", length: bool = True) -> bytes:
        """Send a request line, headers and body as A."""
        sized = [f"Content-Length: {len(body)}"] if length and body else []
        head = [line, "Host: 127.0.0.1", "Connection: close", *sized, *headers]
        return self.raw("\r\n".join([*head, "", ""]).encode("latin-1") + body)

    @property
    def as_a(self) -> str:
        """A's header, as it is written."""
        return f"X-Vault-Token: {self.a['X-Vault-Token']}"


@pytest.fixture(scope="module")
def world(vault_server: tuple[Embedded, Connection], tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with grounded(vault_server, tmp_path_factory.mktemp("isolation")) as saved:
        system = saved.system
        saved.put("promoted")
        system.promoted("bravo")
        a = {"X-Vault-Token": Path(saved.token()).read_text()}
        b = {"X-Vault-Token": system.consumer("bravo/reporting", name="b").read_text()}
        nobody = {"X-Vault-Token": token_of(system.vault.admin, policies=["default"], ttl="1h").reveal()}
        with replicas(system, 2) as made:
            one, other = made.running
            lease = one.post(headers=a).json()["lease"]
            theirs = other.post(headers=b, **BRAVO).json()["lease"]
            yield World(one, other, a, b, nobody, lease, theirs, system)


BRAVO: Final = {"account": "bravo", "application": "reporting"}


def told(answer: httpx.Response) -> tuple[int, dict[str, str], dict[str, Any]]:
    """Return all that a caller can tell answers apart by."""
    headers = {name: value for name, value in answer.headers.items() if name not in CHANGING}
    body = answer.json()
    return answer.status_code, {**headers, "length": str(len(answer.content))}, {**body, "request": ""}


def test_all_refusals_are_one_answer(world: World) -> None:
    """Forbidden and unknown: account, application, token; for every route; status, headers, length and body."""
    strangers = [world.nobody, {"X-Vault-Token": "s.unknown"}, world.b, {"Authorization": "Bearer a.b.c"}]
    others = [BRAVO, {"account": "none", "application": "reporting"}, {**ASKED, "application": "none"}]
    answers = [world.one.post(headers=stranger) for stranger in strangers]
    answers += [world.other.post(headers=world.a, **asked) for asked in others]
    answers += [world.one.get(stranger) for stranger in strangers]
    answers += [world.one.get(world.a, f"/v1/bundles/{asked['account']}/{asked['application']}") for asked in others]
    assert {told(answer)[0] for answer in answers} == {403}
    first = told(answers[0])
    assert all(told(answer) == first for answer in answers), [told(answer) for answer in answers]


def damaged(lease: str) -> Iterator[str]:
    """Yield texts that are nearly a lease."""
    head, body, mark = lease.split(".")
    yield from (
        lease[:-1],
        lease[:-20],
        f"{head}.{body}.",
        f"{head}.{body}",
        head,
        "",
        ".",
        "..",
        lease + "A",
        f" {lease}",
    )
    yield from (
        f"{head}..{mark}",
        f".{body}.{mark}",
        lease.swapcase(),
        lease[::-1],
        lease + "\x00",
        lease.replace(".", "·"),
    )
    claims = json.loads(base64.urlsafe_b64decode(body + "=="))
    for key in ("", "broker", "-----BEGIN PUBLIC KEY-----"):
        yield jwt.encode(claims, key.ljust(32), "HS256", headers={"kid": "1"})
    for kid in ("", "2", "../lease", "1\x00", 1, None, ["1"]):
        altered = base64.urlsafe_b64encode(json.dumps({"alg": "HS256", "typ": "JWT", "kid": kid}).encode()).rstrip(b"=")
        yield f"{altered.decode()}.{body}.{mark}"
    none = base64.urlsafe_b64encode(b'{"alg":"none","kid":"1"}').rstrip(b"=").decode()
    yield from (f"{none}.{body}.", f"{none}.{body}.{mark}")
    for name, value in (("account", "bravo"), ("application", "other"), ("generation", 2), ("consumer", "x")):
        changed = json.dumps({**claims, "lease": {**claims["lease"], name: value}}).encode()
        yield f"{head}.{base64.urlsafe_b64encode(changed).rstrip(b'=').decode()}.{mark}"


@pytest.mark.parametrize("verb", ["renew", "revoke"])
def test_damaged_leases_are_refused(world: World, verb: str) -> None:
    """Forged, cut, altered, of another algorithm: one answer, which is also that for another's lease."""
    first = told(world.one.post(f"/v1/leases/{verb}", world.a, lease=world.theirs))
    assert first[0] == 403
    for text in damaged(world.lease):
        answer = world.one.post(f"/v1/leases/{verb}", world.a, lease=text)
        assert told(answer) == first, text


def test_a_lease_is_for_its_holder(world: World) -> None:
    """Neither another entity nor another right renews or revokes it; its holder then does, at another replica."""
    for verb in ("renew", "revoke"):
        for who in (world.b, world.nobody, {"X-Vault-Token": "s.unknown"}):
            assert world.one.post(f"/v1/leases/{verb}", who, lease=world.lease).status_code == 403
    assert world.other.post("/v1/leases/renew", world.a, lease=world.lease).status_code == 200


def test_a_revoked_lease_is_refused(world: World) -> None:
    text = world.one.post(headers=world.a).json()["lease"]
    renewed = world.other.post("/v1/leases/renew", world.a, lease=text).json()["lease"]
    assert world.other.post("/v1/leases/revoke", world.a, lease=text).status_code == 204
    refused = told(world.one.post("/v1/leases/renew", world.a, lease=world.theirs))
    for replica in (world.one, world.other):
        for each in (text, renewed):
            assert told(replica.post("/v1/leases/renew", world.a, lease=each)) == refused
            assert replica.post("/v1/leases/revoke", world.a, lease=each).status_code == 204, "it is done"
    assert world.one.post("/v1/leases/revoke", world.b, lease=text).status_code == 403


def test_own_leases_are_listed_and_ended(world: World) -> None:
    """By id: at any replica, and none of another consumer, whose answer is that of an id that was made up."""
    c = {"X-Vault-Token": world.system.consumer("bravo/reporting", name="c").read_text()}
    records = world.system.vault.admin.list("consumers")
    assert world.one.post("/v1/leases/revoke", c, lease_id="0a" * 16, **BRAVO).status_code == 403
    assert world.system.vault.admin.list("consumers") == records, "a refusal leaves no record"
    flat = world.one.get(c, "/v1/bundles/bravo/reporting").json()
    assert [(one["lease_id"], one["shared"]) for one in leases(world.other, c)] == [(flat["lease_id"], False)]
    theirs = leases(world.one, world.b)[0]["lease_id"]
    assert not {theirs, flat["lease_id"]} & {one["lease_id"] for one in leases(world.one, world.a)}
    refused = [
        told(world.one.post("/v1/leases/revoke", who, lease_id=lease_id, **asked))
        for who, lease_id, asked in (
            (c, theirs, BRAVO),
            (c, "0a" * 16, BRAVO),
            (c, flat["lease_id"], ASKED),
            (world.a, flat["lease_id"], BRAVO),
            (world.a, theirs, BRAVO),
            (world.nobody, theirs, BRAVO),
            (world.nobody, theirs, {**BRAVO, "account": "none"}),
        )
    ]
    assert refused == [told(world.one.client.get("/v1/leases", headers=world.nobody))] * len(refused)
    assert refused[0][0] == 403
    for _ in range(2):
        assert world.other.post("/v1/leases/revoke", c, lease_id=flat["lease_id"], **BRAVO).status_code == 204
    assert leases(world.one, c) == []
    assert world.one.post("/v1/leases/renew", world.b, lease=world.theirs).status_code == 200


def leases(replica: Replica, who: Headers) -> list[Any]:
    """Return the leases of a caller."""
    answer = replica.client.get("/v1/leases", headers=who)
    assert answer.status_code == 200, answer.text
    found: list[Any] = answer.json()["leases"]
    return found


def test_a_revoked_token_is_refused(world: World) -> None:
    """At both replicas, though each has just judged it: for its bundles, and for its lease."""
    token = {"X-Vault-Token": world.system.consumer(f"{ACCOUNT}/reporting", name="brief").read_text()}
    leases = [replica.post(headers=token).json()["lease"] for replica in (world.one, world.other)]
    world.system.vault.admin.call("POST", "auth/token/revoke", {"token": token["X-Vault-Token"]})
    for replica in (world.one, world.other):
        while replica.post(headers=token).status_code == 201:
            pass
        assert replica.post(headers=token).status_code == 403
        assert {replica.post("/v1/leases/renew", token, lease=lease).status_code for lease in leases} == {403}


def test_keys_of_others_join_nothing(world: World) -> None:
    """The same Idempotency-Key of another consumer is another lease."""
    key = {"Idempotency-Key": "the same"}
    ids = {
        world.one.post(headers={**world.a, **key}).json()["lease_id"],
        world.other.post(headers={**world.b, **key}, **BRAVO).json()["lease_id"],
    }
    assert len(ids) == 2


ODD_PATHS: Final = (
    "/v1/bundles/bravo/reporting/../../acme/reporting",
    "/v1/bundles/bravo%2Freporting/../acme/reporting",
    "/v1/bundles/acme%2freporting",
    "/v1/bundles/acme/reporting/",
    "/v1/bundles/acme//reporting",
    "//v1/bundles/acme/reporting",
    "/v1//bundles/acme/reporting",
    "/v1/./bundles/acme/reporting",
    "/v1/bundles/./acme/reporting",
    "/v1/bundles/%2e%2e/acme/reporting",
    "/v1/bundles/%2e/acme/reporting",
    "/v1/bundles/acme/%2e%2e/reporting",
    "/v1/bundles/acme/..%2freporting",
    "/v1/bundles/acme%00/reporting",
    "/v1/bundles/acme/reporting%00",
    "/v1/bundles/acme/reporting%0a",
    "/v1/bundles/acme/reporting;x=1",
    "/v1/bundles/acme/reporting%3fx=1",
    "/v1/bundles/%61cme/reporting",
    "/v1/bundles/acme/reporting?x=1",
    "/v1/bundles/acme/reporting%23",
    "/v1/bundles/ACME/reporting",
    "/v1/bundles/acme/Reporting",
    "/V1/bundles/acme/reporting",
    "/v1/bundles/%ef%bd%81cme/reporting",  # a fullwidth a, which NFKC folds
    "/v1/bundles/acme/report\u0131ng",
    "/v1/bundles/acme%20/reporting",
    "/v1/bundles/acme/reporting\\..\\x",
    "/v1/bundles/%61cme%252freporting",
    "/v1/bundles/*/*",
    "/v1/bundles/acme/*",
    "/v1/bundles/acme/+",
    "http://127.0.0.1/v1/bundles/bravo/reporting",
    "*",
    "",
)


def status_of(answer: bytes) -> int:
    found = re.match(rb"HTTP/1\.1 (\d{3}) ", answer)
    return int(found[1]) if found else 0  # 0: closed without an answer


@pytest.mark.parametrize("path", ODD_PATHS)
def test_odd_paths_get_no_bundle(world: World, path: str) -> None:
    """B's names by A are refused however they are written, and A's own names have one spelling."""
    answer = world.raw(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{world.as_a}\r\n\r\n".encode())
    assert status_of(answer) in (0, 400, 403, 404, 405)
    assert b"PRIVATE KEY" not in answer


@pytest.mark.parametrize("method", ["HEAD", "OPTIONS", "TRACE", "PUT", "DELETE", "PATCH", "get", "GETX", "CONNECT"])
def test_other_methods_grant_nothing(world: World, method: str) -> None:
    for path in (FLAT, "/v1/bundles"):
        answer = world.ask(f"{method} {path} HTTP/1.1", world.as_a, body=json.dumps(dict(ASKED)).encode())
        assert status_of(answer) in (0, 400, 405)
        assert b"PRIVATE KEY" not in answer


@pytest.mark.parametrize(
    "override", ["X-HTTP-Method-Override: GET", "X-Original-URL: /v1/bundles/acme/reporting", "X-Forwarded-For: ::1"]
)
def test_override_headers_change_nothing(world: World, override: str) -> None:
    assert status_of(world.ask("GET /v1/bundles/bravo/reporting HTTP/1.1", world.as_a, override)) == 403
    assert status_of(world.ask(f"DELETE {FLAT} HTTP/1.1", world.as_a, override)) == 405


def test_a_body_with_a_name_twice_gets_its_own(world: World) -> None:
    """JSON with duplicate names: whichever is taken, A gets its own or nothing."""
    twice = b'{"account":"bravo","account":"acme","application":"reporting"}'
    other = b'{"account":"acme","account":"bravo","application":"reporting"}'
    escaped = b'{"\\u0061ccount":"acme","account":"bravo","application":"reporting"}'
    for body in (twice, other, escaped):
        answer = world.ask("POST /v1/bundles HTTP/1.1", world.as_a, body=body)
        assert status_of(answer) in (201, 400, 403)
        assert b"bravo" not in answer


@pytest.mark.parametrize(
    "names",
    [
        {"account": "acme\u0000"},
        {"account": "acme/reporting", "application": ""},
        {"account": "bravo/../acme"},
        {"account": "ACME"},
        {"account": " acme"},
        {"account": "acme\n"},
        {"account": "\uff41cme"},
        {"application": "reporting/direct"},
        {"application": "+"},
        {"application": "*"},
        {"application": ["reporting"]},
        {"account": None},
        {"account": 1},
    ],
    ids=str,
)
def test_odd_names_get_no_bundle(world: World, names: dict[str, Any]) -> None:
    answer = world.one.post(headers=world.a, **{**ASKED, **names})
    assert answer.status_code == 400


def test_two_identities_are_refused(world: World) -> None:
    """Of two tokens, or a token and a JWT, none counts; neither does one in a cookie, a query or a trailer."""
    b = f"X-Vault-Token: {world.b['X-Vault-Token']}"
    line = f"GET {FLAT} HTTP/1.1"
    for headers in (
        (world.as_a, b),
        (b, world.as_a),
        (world.as_a, world.as_a),
        (world.as_a, "Authorization: Bearer a.b.c"),
    ):
        assert status_of(world.ask(line, *headers)) == 401
    for header in (
        "Accept: */*",
        world.as_a.replace("X-Vault-Token:", "Cookie: X-Vault-Token="),
        f"X-Vault-Token : {b[15:]}",
    ):
        assert status_of(world.ask(line, header)) in (400, 401)
    folded = f"X-Vault-Token: nobody\r\n {world.a['X-Vault-Token']}"
    assert status_of(world.ask(line, folded)) in (400, 403)
    chunked = b"POST /v1/bundles HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
    body = json.dumps(dict(ASKED)).encode()
    trailer = f"{len(body):x}\r\n".encode() + body + b"\r\n0\r\n" + world.as_a.encode() + b"\r\n\r\n"
    assert status_of(world.raw(chunked + trailer)) in (400, 401)


def smuggled(world: World) -> Iterator[bytes]:
    """Yield requests of B for its own, with one for A's bundle inside that a reader in front would not see."""
    inner = f"GET {FLAT} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode()
    head = f"POST /v1/leases/revoke HTTP/1.1\r\nHost: localhost\r\nX-Vault-Token: {world.b['X-Vault-Token']}\r\n"
    for way in (
        "Content-Length: 4\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nContent-Length: 4",
        "Transfer-Encoding: identity\r\nContent-Length: 4",
        "Transfer-Encoding: chunked, identity",
        "Transfer-Encoding: xchunked\r\nContent-Length: 4",
        "Transfer-Encoding : chunked\r\nContent-Length: 4",
        "Content-Length: 4\r\nContent-Length: 0",
        "Content-Length: +4",
        "Content-Length: 4, 4",
        "Content-Length: -1",
    ):
        yield f"{head}{way}\r\n\r\n0\r\n\r\n".encode() + inner


def test_smuggled_requests_have_no_identity(world: World) -> None:
    """However the length is written: a second request has only the headers of its own, so it gets nothing."""
    for request in smuggled(world):
        answer = world.raw(request)
        assert b"PRIVATE KEY" not in answer
        assert not re.search(rb"HTTP/1\.1 20\d", answer), request


def test_pipelined_requests_keep_their_identities(world: World) -> None:
    """Two on one connection, of different consumers: each gets the answer to its own."""
    for first, second in ((world.a, world.b), (world.b, world.a)):
        lines = [
            f"GET {FLAT} HTTP/1.1\r\nHost: localhost\r\nX-Vault-Token: {who['X-Vault-Token']}\r\n"
            for who in (first, second)
        ]
        answer = world.raw(f"{lines[0]}\r\n{lines[1]}Connection: close\r\n\r\n".encode())
        assert [int(code) for code in re.findall(rb"HTTP/1\.1 (\d{3})", answer)] == [
            200 if who is world.a else 403 for who in (first, second)
        ]


def test_a_timeline_is_for_those_with_a_right(world: World) -> None:
    """The refusals are those of an account that does not exist, and no contact or reason is in an answer."""
    client = world.one.client
    mine = client.get(f"/v1/accounts/{ACCOUNT}/timeline", headers=world.a)
    assert mine.status_code == 200, mine.text
    shown = mine.json()
    assert (shown["account"], shown["phase"], shown["who"]) == (ACCOUNT, "not-due", "nobody")
    assert next(m["message"] for m in shown["moments"] if m["planned"]) == "renewal starts"
    assert "generation 1 became current" in mine.text
    assert "@" not in mine.text, "no contact"
    refused = [client.get(f"/v1/accounts/{name}/timeline", headers=world.a) for name in ("bravo", "none")]
    refused += [client.get(f"/v1/accounts/{ACCOUNT}/timeline", headers=who) for who in (world.b, world.nobody)]
    assert [answer.status_code for answer in refused] == [403] * 4
    assert all(told(answer) == told(refused[0]) for answer in refused)
    assert client.get("/v1/accounts/A%20B/timeline", headers=world.a).status_code == 400
    assert client.get(f"/v1/accounts/{ACCOUNT}/timeline").status_code == 401


def test_a_timeline_knows_who_sends(world: World) -> None:
    """A request that goes by a draft of a mail is sent by people, not by the scheduler."""
    world.system.ok("csr", "new", "bravo")
    shown = world.one.client.get("/v1/accounts/bravo/timeline", headers=world.b).json()
    assert (shown["phase"], shown["who"], shown["automatic"]) == ("drafted", "us", False)


def test_accounts_of_others_are_not_named(world: World) -> None:
    """Nothing that A is answered names B's account."""
    answers = [world.one.client.get(path, headers=world.a) for path in ("/v1/accounts", "/openapi.json", FLAT)]
    assert all("bravo" not in answer.text for answer in answers)
    assert ACCOUNT in answers[-1].text or answers[-1].status_code == 200
