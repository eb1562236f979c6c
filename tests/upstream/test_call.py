"""Requests of a person's own: no text shows a secret, and each answer that is no success has its error."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from datetime import timedelta
from email.message import Message

import pytest
from partner_standin import Standin

from broker.client.paging import Pages
from broker.copies import replace
from broker.errors import BrokerError, Kind, RefusedError
from broker.model.authentication import PASSWORD, Request
from broker.model.bundle import Bundle
from broker.partners.verdict import ProbeFacts, Where
from broker.upstream import exchange
from broker.upstream.call import Calls, parsed, quota_of
from broker.upstream.exchange import Line, Reply, _message
from tests.support.credential_sets import credentials_of
from tests.support.echoing import FORMS, repeated, traces
from tests.support.keeping import Keeping
from tests.support.tls_server import Saying


def reply(body: bytes = b"{}", status: int = 200, **headers: str) -> Reply:
    message = Message()
    for name, value in headers.items():
        message[name.replace("_", "-")] = value
    return Reply(status, message, body)


@pytest.fixture(scope="module")
def calls(bundle: Bundle) -> Calls:
    return Calls(credentials_of(bundle), ("acme", "reporting"), timedelta(seconds=5))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.slow
def test_repeated_secrets_are_hidden(calls: Calls, form: str) -> None:
    text = repeated(form, calls.credentials)
    answer = reply(text.encode(errors="replace"))
    assert not traces(calls.shown(answer).body.decode(), calls.credentials)
    answer = reply(
        json.dumps({"a": [{text: text}]}).encode(), X_Echo="".join(c if c.isprintable() else " " for c in text)
    )
    assert not traces(json.dumps(calls.document(answer), ensure_ascii=False), calls.credentials)
    assert not traces("\n".join(calls.head(answer)), calls.credentials)
    for status in (302, 400, 401, 404, 429, 500):
        with pytest.raises(BrokerError) as raised:
            calls.require_success(reply(json.dumps({"message": text}).encode(), status))
        assert not traces(f"{raised.value.message} {raised.value.hint}", calls.credentials)


@pytest.mark.parametrize(("method", "length"), [("GET", None), ("DELETE", None), ("POST", "0"), ("PUT", "0")])
def test_an_empty_body_has_its_length(calls: Calls, method: str, length: str | None) -> None:
    """RFC 9110, section 8.6: servers answer 411 to a POST without it."""
    sent = _message(calls.credentials, Request(method, f"{calls.credentials.base_url}/fleets")).decode()
    lengths = [line.partition(": ")[2] for line in sent.splitlines() if line.startswith("Content-Length")]
    assert lengths == ([] if length is None else [length])


def test_other_bytes_stay_as_they_are(calls: Calls) -> None:
    octets = bytes(range(256)) + "é".encode()
    assert calls.shown(reply(octets)).body == octets
    value: dict[str, object] = {"a": [1, 1.5, True, None, "é", {}]}
    assert calls.document(reply(json.dumps(value).encode())) == value
    assert calls.document(reply(b" ")) is None


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (302, b"", Kind.REFUSED),
        (400, b"{}", Kind.REFUSED),
        (401, b"{}", Kind.REFUSED),
        (403, b"{}", Kind.REFUSED),
        (403, b"<title>firewall</title>", Kind.PARTNER_UNAVAILABLE),
        (404, b'{"code": 40499}', Kind.UNKNOWN_NAME),
        (408, b"", Kind.PARTNER_UNAVAILABLE),
        (429, b"{}", Kind.PARTNER_UNAVAILABLE),
        (500, b"{}", Kind.PARTNER_UNAVAILABLE),
    ],
)
def test_each_status_has_its_error(calls: Calls, status: int, body: bytes, kind: Kind) -> None:
    with pytest.raises(BrokerError) as raised:
        calls.require_success(reply(body, status))
    assert raised.value.kind is kind
    assert raised.value.hint
    assert f"HTTP {status}" in raised.value.message


def test_the_partner_says_how_long_to_wait(calls: Calls) -> None:
    with pytest.raises(BrokerError) as raised:
        calls.require_success(reply(b"{}", 429, Retry_After="90"))
    assert raised.value.hint == "the partner asks to wait 1m 30s"


def test_quota_is_read_of_headers() -> None:
    left = reply(X_RateLimit_Limit_1="5000", X_RateLimit_Remaining_1="4999", X_RateLimit_Remaining_2="9")
    assert quota_of(left) == "4999 of 5000 for the day, 9 for the burst"
    assert quota_of(reply(X_RateLimit_Remaining_1="a\x1b[2J")) == ""


def test_a_page_that_is_no_json() -> None:
    for body in (b"<html>", b"[" * 100_000):
        with pytest.raises(BrokerError, match="not JSON"):
            parsed(reply(body))


@pytest.mark.parametrize("href", ["https://elsewhere.example/fleets", "//elsewhere.example", "/", "../..", "https://["])
def test_links_elsewhere_are_refused(calls: Calls, href: str) -> None:
    page = {"_links": {"next": {"href": href}}}
    with pytest.raises(RefusedError):
        Pages().after(page, calls.credentials, f"{calls.credentials.base_url}/fleets")


def test_a_write_without_an_answer_may_be_done(calls: Calls) -> None:
    facts = ProbeFacts(Where.BODY, closed=True, detail="the answer is incomplete")
    assert "it may have been carried out" in calls._error(facts, "POST").hint
    assert "it may have been carried out" not in calls._error(facts, "GET").hint
    assert PASSWORD not in calls._error(facts, "GET").hint


@pytest.fixture
def kept(bundle: Bundle) -> Callable[[str], AbstractContextManager[Callable[[], int]]]:
    """Return a function that lends the status of a GET at an address, over a connection that is kept."""

    @contextmanager
    def lent(address: str) -> Iterator[Callable[[], int]]:
        credentials = credentials_of(replace(bundle, base_url=address))
        with closing(Line(credentials)) as line:
            calls = Calls(credentials, ("acme", "reporting"), timedelta(seconds=5), line)
            yield lambda: calls.send(Request("GET", f"{address}/fleets")).status

    return lent


Kept = Callable[[str], AbstractContextManager[Callable[[], int]]]


def test_pages_share_a_connection(partner: Standin, kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    with Keeping(partner) as server, kept(server.url) as get:
        assert [get(), get(), get()] == [200] * 3
        assert len({port for port, _, _ in server.got}) == 1
        monkeypatch.setattr(exchange, "_IDLE", -1.0)
        get()
        assert len({port for port, _, _ in server.got}) == 2
        server.until(lambda: len(server.open) == 1)


def test_a_closed_connection_is_replaced(partner: Standin, kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exchange, "_LISTEN", 0.05)
    saying = Saying(partner, b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")  # and closes it
    with saying as address, kept(address) as get:
        assert [get(), get()] == [200] * 2
        saying.answer = b"nothing"
        with pytest.raises(BrokerError, match="not HTTP"):
            get()
        saying.answer = b""
        with pytest.raises(BrokerError, match="without a reason"):
            get()
    with pytest.raises(BrokerError, match="refused"), kept(address) as get:
        get()
