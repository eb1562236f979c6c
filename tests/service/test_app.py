"""The routes of the service: what they read, what they answer, and what they never say."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from datetime import timedelta
from ipaddress import ip_address
from types import SimpleNamespace
from typing import Any, Final, cast

import httpx
import msgspec
import pytest

from broker.copies import replace
from broker.errors import (
    BrokerError,
    BusyError,
    ConflictError,
    DeniedError,
    RateError,
    RefusedError,
    StorageFullError,
    UnknownNameError,
    VaultUnavailableError,
)
from broker.issuing.batch_issuer import Issued
from broker.issuing.grant import Renewed, lease_of
from broker.model.bundle import Wanted
from broker.model.holdings import Holding, NamedLease
from broker.model.lease import Caller, Consumer, Lease
from broker.model.secret import Secret
from broker.service.answers import Contents
from broker.service.app import application
from broker.service.listing import course, holding, listing
from broker.service.messages import BundleAnswer, LeaseAnswer
from broker.service.problems import Problem
from broker.service.waiting import waiting
from broker.telemetry import log
from tests.support.accounts import MZP, NOW, PLANTED, with_current
from tests.support.credential_sets import paper

TOKEN = {"X-Vault-Token": "s.token"}
ASKED = {"account": "mzp-1", "application": "fleet", "ttl": "5m"}
READER = Consumer("entity-1", "reader")
UNUSED: Final = cast("Any", SimpleNamespace(clock=lambda: NOW))  # tests of their own call them
OTHERS: Final = {
    ("POST", "/v1/wait"): waiting(UNUSED),
    ("GET", "/v1/accounts"): listing(UNUSED),
    ("GET", "/v1/leases"): holding(UNUSED),
    ("GET", "/v1/accounts/*/timeline"): course(UNUSED),
}


@dataclass
class Bundles:
    """Use-cases that note what they were asked, and answer or raise what a test wants."""

    error: BaseException | None = None
    callers: list[Caller] = field(default_factory=list)
    wanted: list[Wanted] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    held: list[Holding] = field(default_factory=list)

    async def grant(self, caller: Caller, wanted: Wanted) -> Issued[Contents]:
        self._note(caller)
        self.wanted.append(wanted)
        lease = self._lease(wanted.ttl)
        bundle = replace(
            paper(generation=1, password=PLANTED), application="fleet", lease_id=lease.id, expires=lease.expires
        )
        return Issued(Contents(bundle), READER, lease, Secret("lease-text"))

    async def renew(self, caller: Caller, lease_text: Secret[str], ttl: timedelta) -> Renewed:
        self._note(caller)
        self.texts.append(lease_text.reveal())
        return Renewed(self._lease(ttl), Secret("renewed-text"), newer=2)

    async def revoke(self, caller: Caller, lease_text: Secret[str]) -> Lease:
        self._note(caller)
        self.texts.append(lease_text.reveal())
        return self._lease(timedelta(hours=1))

    async def revoke_named(self, caller: Caller, named: NamedLease) -> Consumer:
        self._note(caller)
        self.texts.append("/".join((named.account, named.application, named.id)))
        return READER

    async def of(self, caller: Caller) -> list[Holding]:
        """Return what the caller holds."""
        self._note(caller)
        return self.held

    def _note(self, caller: Caller) -> None:
        self.callers.append(caller)
        if self.error:
            raise self.error

    def _lease(self, ttl: timedelta) -> Lease:
        wanted = Wanted(MZP, "fleet", ttl, idempotency_key="k")
        account = with_current()
        return lease_of(wanted, READER, account, account.generation(1), now=NOW)


def ask(bundles: Bundles, method: str, path: str, **more: object) -> httpx.Response:
    """Send one request to the application."""

    async def asked() -> httpx.Response:
        transport = httpx.ASGITransport(application(bundles, OTHERS), client=("192.0.2.7", 1))
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
            return await client.request(method, path, **more)  # type: ignore[arg-type]

    return asyncio.run(asyncio.wait_for(asked(), 30))


def refused(answer: httpx.Response) -> Problem:
    assert answer.headers["content-type"] == "application/problem+json"
    found = msgspec.json.decode(answer.content, type=Problem)
    assert found.status == answer.status_code
    return found


def test_a_bundle_is_answered_with_its_parts() -> None:
    bundles = Bundles()
    answer = ask(bundles, "POST", "/v1/bundles", json=ASKED, headers=TOKEN)
    assert answer.status_code == 201
    found = msgspec.json.decode(answer.content, type=BundleAnswer)
    assert (found.account, found.application, found.generation, found.lease) == ("mzp-1", "fleet", 1, "lease-text")
    assert found.secrets == {"password": PLANTED}
    assert found.key.startswith("-----BEGIN PRIVATE KEY-----")
    assert bundles.wanted[0].ttl == timedelta(minutes=5)
    assert answer.headers["cache-control"] == "no-store"


def test_the_caller_is_header_and_peer() -> None:
    bundles = Bundles()
    ask(bundles, "POST", "/v1/bundles", json=ASKED, headers=TOKEN)
    ask(bundles, "POST", "/v1/bundles", json=ASKED, headers={"Authorization": "Bearer a.b.c"})
    token, jwt = bundles.callers
    assert (token.credential.reveal(), token.is_jwt, token.peer) == ("s.token", False, ip_address("192.0.2.7"))
    assert (jwt.credential.reveal(), jwt.is_jwt) == ("a.b.c", True)


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": "Basic dTpw"},
        {"X-Vault-Token": "a", "Authorization": "Bearer b"},
        [("X-Vault-Token", "a"), ("X-Vault-Token", "b")],
    ],
)
def test_one_identity_is_needed(headers: object) -> None:
    bundles = Bundles()
    answer = ask(bundles, "POST", "/v1/bundles", json=ASKED, headers=headers)
    found = refused(answer)
    assert (found.status, found.detail) == (401, "the request shows no identity, or two")
    assert "X-Vault-Token" in str(found.hint)
    assert answer.headers["www-authenticate"] == "Bearer"
    assert not bundles.callers


def test_no_path_takes_a_query() -> None:
    bundles = Bundles()
    for path in ("bundles", "leases/renew", "leases/revoke", "wait"):
        found = refused(ask(bundles, "POST", f"/v1/{path}?token=s.token", json=ASKED, headers=TOKEN))
        assert (found.status, found.detail) == (400, "no path takes a query")
    for path in ("bundles/mzp-1/fleet", "accounts"):
        assert refused(ask(bundles, "GET", f"/v1/{path}?token=s.token", headers=TOKEN)).status == 400
    assert not bundles.callers


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (DeniedError("the entity of reader is disabled"), 403),
        (UnknownNameError("there is no account mzp-1"), 403),
        (RefusedError("expired"), 409),
        (ConflictError("rotated"), 409),
        (RateError("often"), 429),
        (StorageFullError("full"), 500),
        (VaultUnavailableError("sealed"), 503),
        (asyncio.CancelledError(), 503),
        (BrokerError("fault"), 500),
        (ZeroDivisionError("fault"), 500),
    ],
)
def test_each_error_is_a_problem(error: BaseException, status: int) -> None:
    found = refused(ask(Bundles(error), "POST", "/v1/bundles", json=ASKED, headers=TOKEN))
    assert found.status == status
    assert found.request


def test_denied_and_unknown_are_one_answer() -> None:
    answers = [
        refused(ask(Bundles(error), "POST", "/v1/bundles", json=ASKED, headers=TOKEN))
        for error in (DeniedError("the entity is disabled", hint="x"), UnknownNameError("there is no account"))
    ]
    first, second = (msgspec.structs.replace(a, request="") for a in answers)
    assert first == second
    assert "entity" not in first.detail


def test_vault_away_says_when_to_retry() -> None:
    """Not why: the text of the error names addresses and paths, and the log has it."""
    error = VaultUnavailableError("Vault at http://10.0.0.7:8200 was not reached for accounts", hint="see 10.0.0.7")
    answer = ask(Bundles(error), "POST", "/v1/bundles", json=ASKED, headers=TOKEN)
    assert int(answer.headers["retry-after"]) > 0
    assert refused(answer).retryable
    assert "Vault is away" in refused(answer).detail
    assert "10.0.0.7" not in answer.text
    ((_, fields), _) = logged(lambda: ask(Bundles(error), "POST", "/v1/bundles", json=ASKED, headers=TOKEN))
    assert fields["reason"] == error.message


def test_a_busy_replica_says_so() -> None:
    busy = BusyError("too many requests wait", hint="ask another replica")
    found = refused(ask(Bundles(busy), "POST", "/v1/bundles", json=ASKED, headers=TOKEN))
    assert (found.status, found.detail, found.hint) == (503, busy.message, busy.hint)


def test_faults_of_ours_are_not_quoted() -> None:
    answer = ask(Bundles(ZeroDivisionError(PLANTED)), "POST", "/v1/bundles", json=ASKED, headers=TOKEN)
    assert PLANTED not in answer.text


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b'"text"',
        b"\xff\xfe",
        b'{"account":"mzp-1"}',
        b'{"account":"mzp-1","application":"fleet","more":1}',
        b'{"account":"mzp-1","application":"fleet","ttl":"soon"}',
        b'{"account":"mzp-1","application":"fleet","ttl":"-1h"}',
        b'{"account":"../x","application":"fleet"}',
        b'{"account":"mzp-1","application":"fl\\u0000eet"}',
        b'{"account":"mzp-1","application":"fleet","kind":"gateway"}',
        b'{"account":' + b"[" * 100_000,
        b'{"account":"' + b"a" * 70_000 + b'"}',
    ],
)
def test_bad_bodies_are_refused(body: bytes) -> None:
    bundles = Bundles()
    answer = ask(bundles, "POST", "/v1/bundles", content=body, headers=TOKEN)
    assert refused(answer).status in (400, 409)
    assert not bundles.wanted


def test_a_body_that_never_ends_is_cut() -> None:
    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield b"a" * 4096

    bundles = Bundles()
    assert refused(ask(bundles, "POST", "/v1/bundles", content=endless(), headers=TOKEN)).status == 400
    assert not bundles.wanted


@pytest.mark.parametrize(("method", "path", "status"), [("GET", "/v1/bundles", 405), ("GET", "/none", 404)])
def test_other_paths_and_methods(method: str, path: str, status: int) -> None:
    assert refused(ask(Bundles(), method, path)).status == status


def test_a_lease_is_renewed_and_revoked() -> None:
    bundles = Bundles()
    answer = ask(bundles, "POST", "/v1/leases/renew", json={"lease": "text", "ttl": "5m"}, headers=TOKEN)
    found = msgspec.json.decode(answer.content, type=LeaseAnswer)
    assert (found.lease, found.generation, found.newer) == ("renewed-text", 1, 2)
    answer = ask(bundles, "POST", "/v1/leases/revoke", json={"lease": "text"}, headers=TOKEN)
    assert (answer.status_code, answer.content) == (204, b"")
    assert bundles.texts == ["text", "text"]


def test_a_lease_is_named_in_one_way() -> None:
    """By its text, or by its whole id and the names of its application."""
    bundles, names = Bundles(), {"account": "mzp-1", "application": "fleet"}
    whole = {"lease_id": "0a" * 16, **names}
    assert ask(bundles, "POST", "/v1/leases/revoke", json=whole, headers=TOKEN).status_code == 204
    assert bundles.texts == [f"mzp-1/fleet/{'0a' * 16}"]
    for wrong in (
        {},
        names,
        {**whole, "lease": "text"},
        {"lease_id": "0a" * 16},
        {**whole, "lease_id": "0a"},
        {**whole, "lease_id": "0A" * 16},
        {**whole, "lease_id": "0a" * 16 + "\n"},
        {**whole, "lease_id": None},
        {**whole, "account": "../mzp-1"},
    ):
        assert ask(bundles, "POST", "/v1/leases/revoke", json=wrong, headers=TOKEN).status_code == 400, wrong
    assert len(bundles.texts) == 1


def test_flat_json_has_a_value_for_each_file() -> None:
    bundles = Bundles()
    answer = ask(bundles, "GET", "/v1/bundles/mzp-1/fleet", headers=TOKEN)
    assert answer.status_code == 200
    found = answer.json()
    assert set(found) >= {
        "tls.key",
        "tls.crt",
        "ca.crt",
        "username",
        "password",
        "client_id",
        "base_url",
        "generation",
        "lease_id",
    }
    assert all(isinstance(value, str) for value in found.values())
    assert found["password"] == PLANTED
    assert answer.headers["cache-control"] == "no-store"
    ask(bundles, "GET", "/v1/bundles/mzp-1/fleet", headers=TOKEN)
    assert len({wanted.idempotency_key for wanted in bundles.wanted} - {""}) == 1


@pytest.mark.parametrize("path", ["/v1/bundles/mzp-1/fleet?token=x", "/v1/bundles/../fleet", "/v1/bundles//fleet"])
def test_flat_json_takes_names_only(path: str) -> None:
    bundles = Bundles()
    assert refused(ask(bundles, "GET", path, headers=TOKEN)).status in (400, 404)
    assert not bundles.wanted


def test_head_grants_nothing() -> None:
    bundles = Bundles()
    assert ask(bundles, "HEAD", "/v1/bundles/mzp-1/fleet", headers=TOKEN).status_code == 405
    assert not bundles.wanted


def test_who_is_refused_is_logged() -> None:
    error = DeniedError("no right")
    error.who = READER.fields
    lines = logged(lambda: ask(Bundles(error), "POST", "/v1/bundles", json=ASKED, headers=TOKEN))
    assert [(event, fields["consumer"], fields["entity"]) for event, fields in lines] == [
        (event, "reader", "entity-1") for event in ("refused", "request")
    ]


def test_a_limit_says_when_to_retry() -> None:
    answer = ask(Bundles(RateError("often")), "POST", "/v1/bundles", json=ASKED, headers=TOKEN)
    assert (refused(answer).code, refused(answer).retryable) == ("rate", True)
    assert int(answer.headers["retry-after"]) in range(1, 4)


def logged(test: Callable[[], object]) -> list[tuple[str, dict[str, object]]]:
    """Return the events that `test` logs, with their fields."""
    lines: list[tuple[str, dict[str, object]]] = []
    log.send_to(log.Level.DEBUG, lambda _level, event, fields: lines.append((event, dict(fields))))
    try:
        test()
    finally:
        log.reset()
    return lines


def test_a_request_is_logged_whole() -> None:
    trace = {"traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"}
    bundles = Bundles()
    asked = ("POST", "/v1/bundles", ASKED), ("POST", "/v1/leases/renew", {"lease": "x"})
    for method, path, body in asked:
        ((event, fields),) = logged(lambda: ask(bundles, method, path, json=body, headers={**TOKEN, **trace}))  # noqa: B023
        assert event == "request"
        assert {
            "request", "trace", "span", "method", "route", "status", "milliseconds",
            "account", "application", "generation", "lease", "entity",
        } <= set(fields)  # fmt: skip
        assert (fields["route"], fields["trace"]) == (path, trace["traceparent"][3:35])


def test_other_paths_are_logged_as_such() -> None:
    ((_, fields),) = logged(lambda: ask(Bundles(), "GET", "/s.secret", headers={"traceparent": "x"}))
    assert (fields["route"], fields["status"], "trace" in fields) == ("none", 404, False)
    assert "s.secret" not in str(fields)


def test_requests_are_logged_without_secrets() -> None:
    lines: list[str] = []
    log.send_to(log.Level.DEBUG, lambda _level, event, fields: lines.append(f"{event} {dict(fields)}"))
    try:
        for headers in (TOKEN, {"Authorization": "Bearer s.token.x"}):
            ask(Bundles(), "POST", "/v1/bundles", json=ASKED, headers=headers)
        ask(Bundles(), "POST", "/v1/leases/renew", json={"lease": "lease-text-in"}, headers=TOKEN)
    finally:
        log.reset()
    text = "\n".join(lines)
    assert "'status': 201" in text
    assert "'consumer': 'reader'" in text
    for secret in (PLANTED, "s.token", "lease-text", "BEGIN PRIVATE"):
        assert secret not in text


def test_the_description_has_every_route() -> None:
    found = ask(Bundles(), "GET", "/openapi.json").json()
    described = {(path, method) for path, methods in found["paths"].items() for method in methods}
    assert ("/v1/bundles/{account}/{application}", "get") in described
    for template, method in described:
        path = template.format(account="mzp-1", application="fleet")
        assert ask(Bundles(), method.upper(), path).status_code in (400, 401)
        assert set(ask(Bundles(), "PATCH", path).headers["allow"].split(", ")) == {
            m.upper() for p, m in described if p == template
        }
