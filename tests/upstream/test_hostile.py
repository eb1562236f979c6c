"""A partner that never ends, or announces what no memory holds: left at the deadline, and blamed for it."""

from __future__ import annotations

import gzip
import json
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
import requests
from partner_standin import Standin

import broker.client
from broker.copies import replace
from broker.errors import BrokerError, PartnerUnavailableError
from broker.model.bundle import Bundle
from broker.model.names import AccountName
from broker.model.verdict import Verdict
from broker.partners.catalogue import builtin
from broker.rotation.reports import require_ok
from broker.upstream import response as module
from broker.upstream.canary import ask
from broker.upstream.session import PartnerSession
from tests.support.credential_sets import credentials_of, publish
from tests.support.echoing import answer
from tests.support.tls_server import Saying

pytestmark = pytest.mark.slow

PROBE = builtin("stellantis").probe
CLOSE = b"Connection: close\r\n"
CHUNKED = b"HTTP/1.1 200 OK\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n"

IMPOSSIBLE = {
    "length, terabytes": b"HTTP/1.1 200 OK\r\n" + CLOSE + b"Content-Length: 99999999999999\r\n\r\n{}",
    "length, beyond 64 bits": b"HTTP/1.1 200 OK\r\n" + CLOSE + b"Content-Length: " + b"9" * 30 + b"\r\n\r\n{}",
    "length, 5000 digits": b"HTTP/1.1 500 no\r\n" + CLOSE + b"Content-Length: " + b"9" * 5000 + b"\r\n\r\n{}",
    "length, negative": b"HTTP/1.1 500 no\r\n" + CLOSE + b"Content-Length: -5\r\n\r\n{}",
    "chunk, terabytes": CHUNKED + b"fffffffffff\r\n{}",
    "chunk, beyond 64 bits": CHUNKED + b"f" * 30 + b"\r\n{}",
    "chunk, 60,000 digits": CHUNKED + b"f" * 60000 + b"\r\n{}",
    "chunk, negative": CHUNKED + b"-5\r\n{}",
    "chunk, minus one": CHUNKED + b"-1\r\n{}",
    "chunk, no number": CHUNKED + b"\xff\xfe\r\n{}",
    "status, 5000 digits": b"HTTP/1.1 " + b"2" * 5000 + b" OK\r\n\r\n{}",
    "JSON, deep": answer(200, b'{"a":' * 100_000),
    "JSON, deep list": answer(200, b"[" * 100_000),
    "JSON, a number of 5000 digits": answer(200, b'{"a": ' + b"9" * 5000 + b"}"),
    "JSON, lone surrogates": answer(500, json.dumps({"message": "\ud800", "code": ["\udfff"]}).encode()),
    "JSON, UTF-32 cut": answer(200, b"\xff\xfe\x00\x00{"),
    "JSON, not a character": answer(200, b'{"a": "\xff\xff"}'),
    "charset, unknown": answer(500, b"\xff", "application/json; charset=no-such"),
    "charset, no charset": answer(500, b"\xff", "text/html; charset=idna"),
    "retry, 5000 digits": b"HTTP/1.1 429 no\r\n"
    + CLOSE
    + b"Retry-After: "
    + b"9" * 5000
    + b"\r\nContent-Length: 0\r\n\r\n",
    "retry, end of time": b"HTTP/1.1 429 no\r\n" + CLOSE + b"Retry-After: Fri, 31 Dec 9999 23:59:59 -2359\r\n\r\n",
    "cookie, end of time": b"HTTP/1.1 500 no\r\n" + CLOSE + b"Set-Cookie: a=b; Max-Age=" + b"9" * 5000 + b"\r\n\r\n",
    "encoding, damaged": b"HTTP/1.1 500 no\r\n" + CLOSE + b"Content-Encoding: gzip\r\nContent-Length: 2\r\n\r\n{}",
    "link, no URL": answer(200, b'{"_links": {"next": {"href": "https://[::1"}}}'),
    "link, lone surrogate": answer(200, b'{"_links": {"next": {"href": "\\ud800"}}}'),
    "redirect, no UTF-8": b"HTTP/1.1 302 no\r\n" + CLOSE + b"Location: /v3/\xff\xfe\r\nContent-Length: 0\r\n\r\n",
}


@pytest.mark.parametrize("case", [case for case in IMPOSSIBLE if not case.startswith("link")])
def test_the_canary_blames_the_partner(partner: Standin, bundle: Bundle, case: str) -> None:
    with Saying(partner, IMPOSSIBLE[case]) as url:
        tried = ask(credentials_of(replace(bundle, base_url=url)), PROBE)
    assert tried.verdict in (Verdict.PARTNER_DOWN, Verdict.QUOTA)
    assert tried.detail
    with pytest.raises(PartnerUnavailableError):  # exit code 4
        require_ok(AccountName("mzp-1"), 7, tried)


@pytest.mark.parametrize("case", IMPOSSIBLE)
def test_pages_blames_the_partner(partner: Standin, bundle: Bundle, tmp_path: Path, case: str) -> None:
    with Saying(partner, IMPOSSIBLE[case]) as url:
        publish(tmp_path / "r", replace(bundle, base_url=url))
        with broker.client.open(tmp_path / "r") as session, suppress(requests.RequestException, BrokerError):
            list(session.pages("/fleets"))


@pytest.mark.parametrize("case", ["JSON, deep", "JSON, a number of 5000 digits"])
def test_pages_reports_unreadable_json(partner: Standin, bundle: Bundle, tmp_path: Path, case: str) -> None:
    with Saying(partner, IMPOSSIBLE[case]) as url:
        publish(tmp_path / "r", replace(bundle, base_url=url))
        with broker.client.open(tmp_path / "r") as session, pytest.raises(PartnerUnavailableError):
            list(session.pages("/fleets"))


@contextmanager
def dripping(partner: Standin, head: bytes, drop: bytes, every: float) -> Iterator[str]:
    """Answer with `head`, then `drop` again and again until the client is gone; read nothing meanwhile."""
    ended = threading.Event()

    def serve(connection: ssl.SSLSocket) -> None:
        with suppress(OSError):
            connection.sendall(head)
            while not ended.wait(every):
                connection.sendall(drop)

    saying = Saying(partner, b"-", serve=serve)
    with saying as url:
        yield url
        ended.set()


OK = b"HTTP/1.1 200 OK\r\n"
ENDLESS = {
    "100 Continue": (b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 50, 0.001),
    "100 Continue, slowly": (b"", b"HTTP/1.1 100 Continue\r\n\r\n", 0.1),
    "headers of 100 Continue": (b"HTTP/1.1 100 Continue\r\n", b"A: b\r\n", 0.1),
    "status line": (b"HTTP/1.1 ", b"2", 0.1),
    "header": (OK, b"A", 0.1),
    "body": (OK + b"Content-Length: 100000\r\n\r\n", b"x", 0.1),
    "body without a length": (OK + b"\r\n", b"x", 0.1),
    "chunks": (CHUNKED, b"1\r\nx\r\n", 0.1),
    "chunk line": (CHUNKED, b"0", 0.1),
    "trailers": (CHUNKED + b"0\r\n", b"A: b\r\n", 0.1),
    "nothing": (b"", b"", 0.1),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", ENDLESS)
def test_the_client_leaves_at_the_deadline(partner: Standin, bundle: Bundle, case: str) -> None:
    with (
        dripping(partner, *ENDLESS[case]) as url,
        PartnerSession(credentials_of(replace(bundle, base_url=url)), timeout=(5, 0.7)) as session,
    ):
        with pytest.raises(requests.RequestException, match="no answer in time"):
            session.get("/fleets")
        with pytest.raises(requests.RequestException, match="no answer in time"):
            for _ in session.get("/fleets", stream=True, timeout=0.5).iter_content(1):
                pass


def test_partner_that_reads_nothing_is_left(partner: Standin, bundle: Bundle) -> None:
    """It takes the head of the request, and then no more of a body that fills every buffer on the way."""
    ended = threading.Event()
    with Saying(partner, b"-", serve=lambda _: ended.wait() and None) as url:
        session = PartnerSession(credentials_of(replace(bundle, base_url=url)), timeout=(0.7, 0.7))
        with session, pytest.raises(requests.Timeout, match="no answer in time"):
            session.post("/fleets", data=b"x" * 64_000_000)
        ended.set()


def test_a_handshake_that_stalls_is_left(partner: Standin, bundle: Bundle) -> None:
    partner.faults.apply("handshake-stall=30s")
    with (
        PartnerSession(credentials_of(bundle), timeout=(0.5, 20)) as session,
        pytest.raises(requests.RequestException, match="no answer in time"),
    ):
        session.get("/fleets")


def test_a_large_body_needs_a_stream(partner: Standin, bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    """A small answer may unpack to a large one."""
    monkeypatch.setattr(module, "LARGEST", 100_000)
    body = gzip.compress(b"x" * 1_000_000)
    head = b"HTTP/1.1 200 OK\r\n%bContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % (CLOSE, len(body))
    with Saying(partner, head + body) as url, PartnerSession(credentials_of(replace(bundle, base_url=url))) as session:
        with pytest.raises(requests.RequestException, match="stream=True"):
            session.get("/fleets")
        with session.get("/fleets", stream=True) as response:
            assert sum(map(len, response.iter_content(1000))) == 1_000_000


def test_one_request_can_have_its_timeout(partner: Standin, bundle: Bundle) -> None:
    partner.faults.apply("slow-answer=0.3s")
    with PartnerSession(credentials_of(bundle), timeout=(5, 0.1)) as session:
        for longer in (10, (10, 10), (None, 10)):
            assert session.get("/fleets", timeout=longer).status_code == 200


def test_unfollowed_redirect_is_an_answer(partner: Standin, bundle: Bundle) -> None:
    away = b"HTTP/1.1 302 no\r\n" + CLOSE + b"Location: https://elsewhere.example\r\nContent-Length: 2\r\n\r\n{}"
    with Saying(partner, away) as url, PartnerSession(credentials_of(replace(bundle, base_url=url))) as session:
        response = session.get("/fleets", allow_redirects=False)
        assert (response.status_code, response.content) == (302, b"{}")
