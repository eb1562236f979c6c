"""The canary against every fault of the stand-in, over both versions of TLS."""

from __future__ import annotations

import base64
import re
import socket
import ssl
import struct
import threading
from dataclasses import fields
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from partner_standin import Standin

from broker.copies import replace
from broker.errors import InputError, RefusedError
from broker.model.authentication import Authentication, Basic, ClientId, Request
from broker.model.bundle import Bundle
from broker.model.generation import Application
from broker.model.secret import Secret
from broker.model.verdict import Verdict
from broker.network import Deadline
from broker.partners.catalogue import builtin
from broker.partners.verdict import ProbeFacts, Where, classify
from broker.pki import keys
from broker.upstream.canary import ask, probe
from broker.upstream.credentials import Credentials
from broker.upstream.exchange import asked
from tests.support.credential_sets import LOGIN, PASSWORD, bundle_of, credentials_of, self_signed
from tests.support.tls_server import Saying

PROBE = builtin("stellantis").probe
BASIC = base64.b64encode(f"{LOGIN}:{PASSWORD}".encode()).decode()
SHORT = timedelta(seconds=1.5)

EVERY_FAULT = [
    ("closed-at-once", Verdict.PARTNER_DOWN),
    ("reset-at-once", Verdict.PARTNER_DOWN),
    ("handshake-garbage", Verdict.HANDSHAKE),
    ("wrong-ca", Verdict.WRONG_CA),
    ("wrong-host", Verdict.WRONG_CA),
    ("expired-server", Verdict.WRONG_CA),
    ("certificate-alert", Verdict.CERTIFICATE_REJECTED),
    ("certificate-nginx", Verdict.CERTIFICATE_REJECTED),
    ("certificate-json", Verdict.CERTIFICATE_REJECTED),
    ("certificate-eof", Verdict.CERTIFICATE_REJECTED),
    ("login-rejected", Verdict.LOGIN_REJECTED),
    ("client-rejected", Verdict.CLIENT_REJECTED),
    ("not-subscribed", Verdict.NOT_SUBSCRIBED),
    ("address-refused", Verdict.ADDRESS_REFUSED),
    ("quota-day", Verdict.QUOTA),
    ("quota-burst", Verdict.QUOTA),
    ("status-500", Verdict.PARTNER_DOWN),
    ("status-503", Verdict.PARTNER_DOWN),
    ("html-403", Verdict.PARTNER_DOWN),
    ("empty-body", Verdict.PARTNER_DOWN),
    ("not-json", Verdict.PARTNER_DOWN),
    ("reset-mid-body", Verdict.PARTNER_DOWN),
    ("cut-mid-body", Verdict.PARTNER_DOWN),
    ("garbage", Verdict.PARTNER_DOWN),
    ("spaced-media-type", Verdict.OK),
    ("no-timestamp", Verdict.OK),
]


def assert_nothing_leaks(text: str, credentials: Credentials) -> None:
    for secret in (PASSWORD, BASIC, "planted"):
        assert secret not in text


@pytest.mark.parametrize("tls", ["1.2", "1.3"])
@pytest.mark.parametrize(("fault", "verdict"), EVERY_FAULT)
def test_each_fault_has_its_verdict(partner: Standin, bundle: Bundle, fault: str, verdict: Verdict, tls: str) -> None:
    credentials = credentials_of(bundle)
    partner.faults.set("tls-version", tls)
    partner.faults.apply(fault)
    application = Application("reports")
    answer = ask(credentials, PROBE, application=application)
    assert (answer.verdict, answer.application) == (verdict, application)
    assert bool(answer.detail) == (verdict is not Verdict.OK)
    assert_nothing_leaks(repr(answer), credentials)


@pytest.mark.parametrize(("fault", "asked"), [("expired-server", True), ("wrong-ca", False)])
def test_an_expired_server_may_be_our_clock(partner: Standin, bundle: Bundle, fault: str, asked: bool) -> None:
    partner.faults.apply(fault)
    detail = ask(credentials_of(bundle), PROBE).detail
    assert ("is this machine's clock right?" in detail) is asked


@pytest.mark.parametrize("tls", ["1.2", "1.3"])
def test_a_good_set_is_accepted(partner: Standin, bundle: Bundle, tls: str) -> None:
    partner.faults.set("tls-version", tls)
    facts = probe(credentials_of(bundle), PROBE)
    assert (facts.where, facts.status) == (Where.HTTP, 200)
    assert classify(facts) is Verdict.OK


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["handshake-stall=1h", "slow-answer=1h", "slow-body=1h"])
def test_slow_partner_meets_the_deadline(partner: Standin, bundle: Bundle, fault: str) -> None:
    """It answers long after any test has been ended, so an answer of ours shows that we did not wait."""
    partner.faults.apply(fault)
    answer = ask(credentials_of(bundle), PROBE, deadline=SHORT)
    assert answer.verdict is Verdict.PARTNER_DOWN
    assert "no answer in time" in answer.detail


def test_wrong_password_costs_one_request(partner: Standin, bundle: Bundle) -> None:
    wrong = replace(bundle, secrets={"password": Secret("planted-wrong")})
    answer = ask(credentials_of(wrong), PROBE)
    assert answer.verdict is Verdict.LOGIN_REJECTED


def test_wrong_client_id_has_its_verdict(partner: Standin, bundle: Bundle) -> None:
    other = replace(bundle, client_id="planted-other")
    assert ask(credentials_of(other), PROBE).verdict is Verdict.CLIENT_REJECTED


def test_certificate_of_another_login_fails(partner: Standin, bundle: Bundle) -> None:
    partner.registry.add_account("MZP0000043", "another")
    other = bundle_of(partner, login="MZP0000043")
    crossed = replace(bundle, certificate=other.certificate, key=other.key)
    for fault, verdict in (("cn-mismatch=401", Verdict.LOGIN_REJECTED), ("cn-mismatch=403", Verdict.LOGIN_REJECTED)):
        partner.faults.apply(fault)
        assert ask(credentials_of(crossed), PROBE).verdict is verdict


def test_the_quota_says_how_long_to_wait(partner: Standin, bundle: Bundle) -> None:
    partner.faults.apply("quota-day=0")
    answer = ask(credentials_of(bundle), PROBE)
    assert answer.wait is not None
    assert timedelta(0) < answer.wait <= timedelta(days=1)
    assert "day quota" in answer.detail


def test_retry_after_may_be_a_date(partner: Standin, bundle: Bundle) -> None:
    until = format_datetime(datetime.now(UTC) + timedelta(hours=2), usegmt=True).encode()
    sent = b"HTTP/1.1 429 no\r\nContent-Type: application/json\r\nRetry-After: %s\r\nContent-Length: 2\r\n\r\n{}"
    with Saying(partner, sent % until) as url:
        answer = ask(credentials_of(replace(bundle, base_url=url)), PROBE)
    assert answer.verdict is Verdict.QUOTA
    assert answer.wait is not None
    assert timedelta(hours=1, minutes=59) < answer.wait <= timedelta(hours=2)


def test_unverified_server_gets_no_secret(bundle: Bundle) -> None:
    """A listener that records every byte: of a server without the partner's CA it gets a ClientHello at most."""
    got = bytearray()
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                connection.settimeout(1)
                try:
                    while data := connection.recv(4096):
                        got.extend(data)
                except OSError:
                    return

        thread = threading.Thread(target=serve)
        thread.start()
        port = server.getsockname()[1]
        credentials = credentials_of(replace(bundle, base_url=f"https://127.0.0.1:{port}/v3"))
        facts = probe(credentials, PROBE, deadline=timedelta(seconds=0.5))
        thread.join()
    assert facts.where is Where.HANDSHAKE
    assert classify(facts) is Verdict.PARTNER_DOWN
    assert b"Basic" not in got
    assert_nothing_leaks(repr(facts), credentials)


def test_closed_port_is_partner_down(bundle: Bundle) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"https://127.0.0.1:{taken.getsockname()[1]}/v3"
        facts = probe(credentials_of(replace(bundle, base_url=url)), PROBE)
    assert (facts.where, facts.detail) == (Where.CONNECT, "the connection was refused")
    assert classify(facts) is Verdict.PARTNER_DOWN


def test_unknown_host_is_partner_down(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)  # no test asks a name server
    facts = probe(credentials_of(replace(bundle, base_url="https://nowhere.invalid/v3")), PROBE)
    assert facts.where is Where.CONNECT
    assert classify(facts) is Verdict.PARTNER_DOWN


@pytest.mark.parametrize(
    ("sent", "where"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 99999999\r\n\r\n" + b"x" * 3_000_000, Where.BODY),
        (b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 500 + b"\r\n", Where.BODY),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", Where.BODY),
        (b"HTTP/1.1 999999 no\r\n\r\n", Where.BODY),
        (b"\x00\xff\r\n\r\n", Where.BODY),
    ],
)
def test_hostile_answers_are_partner_down(partner: Standin, bundle: Bundle, sent: bytes, where: Where) -> None:
    with Saying(partner, sent) as url:
        facts = probe(credentials_of(replace(bundle, base_url=url)), PROBE, deadline=timedelta(seconds=5))
    assert facts.where is where
    assert classify(facts) is Verdict.PARTNER_DOWN


def test_answer_is_read_up_to_the_limit(partner: Standin, bundle: Bundle) -> None:
    with Saying(partner, b"HTTP/1.1 200 OK\r\nContent-Length: 3000000\r\n\r\n" + b"x" * 3_000_000) as url:
        facts = probe(credentials_of(replace(bundle, base_url=url)), PROBE)
    assert facts.detail == "the answer is larger than 1048576 bytes"


def test_repeated_secret_is_hidden(partner: Standin, bundle: Bundle) -> None:
    credentials = credentials_of(bundle)
    body = f'{{"message": "no Basic {BASIC} for {credentials.client_id}\\u0007\\u001b[31m"}}'.encode()
    sent = b"HTTP/1.1 401 no\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)
    with Saying(partner, sent) as url:
        answer = ask(credentials_of(replace(bundle, base_url=url)), PROBE)
    assert answer.verdict is Verdict.LOGIN_REJECTED
    assert "no Basic <hidden> for <hidden>" in answer.detail
    assert answer.detail.isprintable()


def test_close_after_request_is_partner_down(partner: Standin, bundle: Bundle) -> None:
    """It listens on while nothing is asked, and closes when something is: that is no judgement of the certificate."""
    with Saying(partner, b"") as url:
        facts = probe(credentials_of(replace(bundle, base_url=url)), PROBE, deadline=timedelta(seconds=0.3))
    assert (facts.where, facts.closed, facts.stays_open) == (Where.FIRST_READ, True, True)
    assert classify(facts) is Verdict.PARTNER_DOWN


@pytest.mark.parametrize(
    "change",
    [
        {"login": "a:b"},
        {"login": ""},
        {"login": "a\nb"},
        {"secrets": {"password": Secret("planted\r\nX: y")}},
        {"secrets": {"password": Secret("planted\0")}},
        {"secrets": {"password": Secret("")}},
        {"secrets": {}},
        {"client_id": ""},
        {"client_id": "planted id"},
        {"client_id": "planted\r\n"},
        {"base_url": "https://api.example.com/v3/"},
        {"base_url": "http://api.example.com/v3"},
    ],
)
def test_bad_value_is_refused_without_quote(bundle: Bundle, change: dict[str, object]) -> None:
    with pytest.raises(InputError) as caught:
        credentials_of(replace(bundle, **change))  # type: ignore[arg-type]
    assert "planted" not in f"{caught.value.message}{caught.value.hint}{caught.value!r}"


def test_unverifying_context_is_refused(bundle: Bundle) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    with pytest.raises(RefusedError):
        replace(credentials_of(bundle), context=context)


def test_credentials_print_no_secret(bundle: Bundle) -> None:
    credentials = credentials_of(bundle)
    assert PASSWORD not in repr(credentials)
    assert {f.name for f in fields(credentials)} >= {"secrets", "context"}


def test_a_client_id_can_travel_in_a_header(partner: Standin, bundle: Bundle) -> None:
    """The sibling API wants X-IBM-Client-Id; here it is enough that the query has nothing and the header all."""
    authentication = Authentication((Basic(), ClientId(header="X-IBM-Client-Id")))
    saying = Saying(partner, b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
    with saying as url:
        credentials = credentials_of(replace(bundle, base_url=url, authentication=authentication))
        assert ask(credentials, PROBE).verdict is Verdict.OK
    head = b"".join(saying.got).decode()
    assert re.search(r"^GET /v3/fleets\?pageSize=1 HTTP/1.1\r\n", head)
    assert f"X-IBM-Client-Id: {bundle.client_id}\r\n" in head


@pytest.mark.parametrize("tls", ["1.2", "1.3"])
@pytest.mark.parametrize(
    ("desk", "alert"),
    [("desk-server-auth", "unsupported certificate"), ("desk-not-before=2d", "bad certificate"), ("", "unknown ca")],
)
def test_bad_certificates_have_their_alert(partner: Standin, bundle: Bundle, tls: str, desk: str, alert: str) -> None:
    """The rows of the table measured with OpenSSL, over both versions of TLS."""
    if desk:
        partner.faults.apply(desk)
        bad = bundle_of(partner)
    else:
        bad = replace(bundle, certificate=self_signed(keys.from_pem(bundle.key)))
    partner.faults.clear()
    partner.faults.set("tls-version", tls)
    facts = probe(credentials_of(bad), PROBE)
    assert (facts.alert, facts.where) == (alert, Where.HANDSHAKE if tls == "1.2" else Where.FIRST_READ)
    assert classify(facts) is Verdict.CERTIFICATE_REJECTED


def test_partner_gone_early_leaks_no_socket(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    """An open one would warn when it is collected, and warnings are errors here."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def reset(*_: object) -> socket.socket:
            ours = socket.create_connection(server.getsockname())
            theirs, _ = server.accept()
            theirs.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            theirs.close()
            return ours

        monkeypatch.setattr("broker.network.connected", reset)
        for _ in range(3):
            facts = asked(credentials_of(bundle), Request("GET", bundle.base_url), Deadline(5))
            assert isinstance(facts, ProbeFacts)
