"""Each fault of the table has a visible effect, which ends when the fault is cleared."""

from __future__ import annotations

import http.client
import json
import socket
import ssl
import time
from collections.abc import Callable
from urllib.parse import urlsplit

import pytest
from partner_standin import Standin
from partner_standin.faults import FAULTS

from tests.support.partner import LOGIN, Clock, Customer, Response, desk

pytestmark = pytest.mark.slow


def fails(kind: type[Exception] | tuple[type[Exception], ...], says: str = "") -> Callable[[Customer], None]:
    def check(customer: Customer) -> None:
        with pytest.raises(kind, match=f"(?i){says}"):
            customer.call("/fleets", timeout=1)

    return check


def answers(status: int, holds: bytes = b"", **headers: str) -> Callable[[Customer], None]:
    def check(customer: Customer) -> None:
        answer = customer.call("/fleets")
        assert (answer.status, holds in answer.body) == (status, True)
        assert {name: answer.headers[name.replace("_", "-")] for name in headers} == headers

    return check


def speaks_only_tls_1_2(customer: Customer) -> None:
    assert customer.call("/fleets", tls="1.2").status == 200
    with pytest.raises(ssl.SSLError, match="PROTOCOL_VERSION"):
        customer.call("/fleets", tls="1.3")


def is_slow(customer: Customer) -> None:
    start = time.monotonic()
    assert customer.call("/fleets").status == 200
    assert time.monotonic() - start >= 0.2


def loses_the_timestamp(customer: Customer) -> None:
    assert "timestamp" not in customer.call("/nothing").json


def echoes_the_client_id(customer: Customer) -> None:
    assert f"client_id={customer.client_id}" in customer.call("/fleets").json["_links"]["self"]["href"]


def ends_media_type_with_a_space(customer: Customer) -> None:
    assert customer.call("/fleets").headers["Content-Type"] == "application/hal+json "


def answers_empty(customer: Customer) -> None:
    answer = customer.call("/fleets")
    assert (answer.status, answer.body) == (200, b"")


def breaks_json(customer: Customer) -> None:
    with pytest.raises(json.JSONDecodeError):
        _ = customer.call("/fleets").json


def minds_the_common_name(customer: Customer) -> None:
    customer.partner.registry.add_account("MZP0000002", "other")
    client_id = customer.partner.registry.client_id("MZP0000002", "default")
    assert customer.but(login="MZP0000002", password="other", client_id=client_id).call("/fleets").status == 401


def locks_for_good(customer: Customer) -> None:
    for _ in range(2):
        assert customer.but(password="wrong").call("/fleets").status == 401
    assert customer.call("/fleets").status == 401, "the right password comes too late"
    assert desk(customer.partner, "GET", "/desk/accounts").json[0]["locked"] is True
    customer.partner.faults.clear()
    assert customer.call("/fleets").status == 401, "the lock outlives the fault"
    assert desk(customer.partner, "DELETE", f"/desk/accounts/{LOGIN}/lock").json["locked"] is False


EFFECTS: dict[str, Callable[[Customer], None]] = {
    "tls-version=1.2": speaks_only_tls_1_2,
    "closed-at-once": fails(ssl.SSLError, "EOF"),
    "reset-at-once": fails(ConnectionResetError),
    "handshake-failure": fails(ssl.SSLError, "HANDSHAKE_FAILURE|PROTOCOL_VERSION"),
    "handshake-garbage": fails(ssl.SSLError, "WRONG_VERSION_NUMBER"),
    "handshake-stall=2s": fails(TimeoutError),
    "wrong-ca": fails(ssl.SSLCertVerificationError, "unable to get local issuer"),
    "wrong-host": fails(ssl.SSLCertVerificationError, "IP address mismatch"),
    "expired-server": fails(ssl.SSLCertVerificationError, "certificate has expired"),
    "certificate-alert": fails(ssl.SSLError, "UNKNOWN_CA"),
    "certificate-nginx": answers(400, b"The SSL certificate error", Content_Type="text/html"),
    "certificate-json": answers(400, b'"code":"495"', Content_Type="application/json"),
    "certificate-eof": fails((ssl.SSLEOFError, http.client.RemoteDisconnected, ConnectionError)),
    "login-rejected": answers(401, b"Cannot pass the security checks"),
    "login-lockout=2": locks_for_good,
    "client-rejected": answers(401, b"Invalid client id or secret."),
    "not-subscribed": answers(401, b'"moreInformation":"Not registered to plan"'),
    "address-refused": answers(403, b'"httpCode":"403"', Content_Type="application/json"),
    "cn-mismatch=401": minds_the_common_name,
    "quota-day=0": answers(429, b'"code":42999'),
    "quota-burst=0": answers(429, b'"code":42999', Retry_After="1", X_RateLimit_Reset="1"),
    "status-500": answers(500, b'"code":50099'),
    "status-503=90s": answers(503, b'"code":50399', Retry_After="90"),
    "html-403": answers(403, b"Access Denied", Content_Type="text/html"),
    "empty-body": answers_empty,
    "not-json": breaks_json,
    "reset-mid-body": fails((http.client.IncompleteRead, ConnectionResetError)),
    "cut-mid-body": fails((http.client.IncompleteRead, ssl.SSLEOFError)),
    "garbage": fails(http.client.BadStatusLine),
    "slow-answer=0.2s": is_slow,
    "slow-body=0.2s": is_slow,
    "spaced-media-type": ends_media_type_with_a_space,
    "no-timestamp": loses_the_timestamp,
    "echo-client-id": echoes_the_client_id,
}


def test_every_fault_is_tested_here() -> None:
    covered = {setting.partition("=")[0] for setting in EFFECTS}
    assert covered == {fault.name for fault in FAULTS if fault.place != "desk"}


@pytest.mark.parametrize("setting", EFFECTS)
def test_a_fault_shows_until_cleared(customer: Customer, setting: str) -> None:
    customer.partner.faults.apply(setting)
    EFFECTS[setting](customer)
    customer.partner.faults.clear()
    assert customer.call("/fleets").status == 200


@pytest.mark.parametrize("setting", ["status-500@2", "wrong-ca@2", "certificate-nginx@2", "login-rejected@2"])
def test_a_fault_lasts_for_its_hits(customer: Customer, setting: str) -> None:
    customer.partner.faults.apply(setting)
    assert [_outcome(customer) for _ in range(3)] == [False, False, True]
    assert customer.partner.faults.active() == ()


def _outcome(customer: Customer) -> bool:
    try:
        return customer.call("/fleets").status == 200
    except ssl.SSLError:
        return False


@pytest.mark.parametrize(("fault", "tls"), [("certificate-nginx", "1.2"), ("certificate-json", "1.3")])
def test_deserved_faults_spare_valid_certs(customer: Customer, fault: str, tls: str) -> None:
    customer.partner.faults.set(fault, "deserved")
    assert customer.call("/fleets", tls=tls).status == 200
    for bad in (
        customer.but(certificate=None),
        customer.enrolled(not_before="-2d", lifetime="-1d"),
        customer.enrolled(not_before="1d"),
    ):
        assert bad.call("/fleets", tls=tls).status == 400


def test_nginx_answers_missing_and_bad_apart(customer: Customer) -> None:
    customer.partner.faults.set("certificate-nginx", "deserved")
    page = customer.but(certificate=None).call("/fleets").body
    assert b"No required SSL certificate was sent" in page
    customer.partner.registry.revoke(customer.serial, customer.partner.registry._clock())
    assert b"The SSL certificate error" in customer.call("/fleets").body


@pytest.mark.parametrize("tls", ["1.2", "1.3"])
def test_certificate_eof_sends_no_alert(customer: Customer, tls: str) -> None:
    customer.partner.faults.set("certificate-eof")
    port = urlsplit(customer.partner.api_url).port or 0
    with (
        socket.create_connection(("127.0.0.1", port), timeout=5) as plain,
        customer.context(tls).wrap_socket(plain, server_hostname="127.0.0.1", suppress_ragged_eofs=False) as connection,
        pytest.raises(ssl.SSLEOFError),
    ):
        connection.recv(1)


@pytest.mark.peer("curl")
def test_curl_distinguishes_reset_and_cut(customer: Customer) -> None:
    """Python's ssl shows both as the end of the body."""
    customer.partner.faults.apply("reset-mid-body@1")
    assert "Connection reset by peer" in customer.curl("/fleets").stderr
    customer.partner.faults.apply("cut-mid-body@1")
    cut = customer.curl("/fleets")
    assert cut.returncode in (18, 56)
    assert "reset" not in cut.stderr


def test_tls_1_3_alone(customer: Customer) -> None:
    customer.partner.faults.set("tls-version", "1.3")
    assert customer.call("/fleets", tls="1.3").status == 200
    with pytest.raises(ssl.SSLError, match="PROTOCOL_VERSION"):
        customer.call("/fleets", tls="1.2")


def test_the_daily_quota_counts_down(customer: Customer) -> None:
    customer.partner.faults.set("quota-day", "2")
    seen = [customer.call("/fleets") for _ in range(3)]
    assert [answer.status for answer in seen] == [200, 200, 429]
    assert [answer.headers["X-RateLimit-Remaining-1"] for answer in seen] == ["1", "0", "0"]
    assert int(seen[2].headers["Retry-After"]) > 1000
    assert seen[2].headers["Retry-After"] == seen[2].headers["X-RateLimit-Reset"]


def test_the_burst_quota_recovers(timed: Customer, clock: Clock) -> None:
    timed.partner.faults.set("quota-burst", "1")
    assert [timed.call("/fleets").status for _ in range(2)] == [200, 429]
    clock.goes_on(1.1)
    assert timed.call("/fleets").status == 200


def test_after_stop_connections_are_refused(customer: Customer, tmp_path: object) -> None:
    address = urlsplit(customer.partner.api_url)
    with Standin(customer.directory / "gone") as gone:
        port = urlsplit(gone.api_url).port
        assert port != address.port
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port or 0), timeout=1)


# switches over HTTP


def assert_switch_refused(answer: Response, status: int = 422) -> None:
    assert (answer.status, bool(answer.json["error"])) == (status, True)


def test_faults_are_switched_over_http(customer: Customer) -> None:
    partner = customer.partner
    assert desk(partner, "PUT", "/desk/faults/status-503", {"value": "5s", "times": 3}).status == 200
    assert desk(partner, "PUT", "/desk/faults/html-403").status == 200
    listed = desk(partner, "GET", "/desk/faults").json
    assert [(one["name"], one["value"], one["times"]) for one in listed["active"]] == [
        ("status-503", "5s", 3),
        ("html-403", "", None),
    ]
    assert len(listed["table"]) == len(FAULTS)
    assert desk(partner, "DELETE", "/desk/faults/html-403").status == 204
    assert len(partner.faults.active()) == 1
    assert desk(partner, "DELETE", "/desk/faults").status == 204
    assert partner.faults.active() == ()


def test_unknown_switches_are_refused(partner: Standin) -> None:
    assert_switch_refused(desk(partner, "PUT", "/desk/faults/nothing"))
    assert_switch_refused(desk(partner, "DELETE", "/desk/faults/nothing"))
    assert_switch_refused(desk(partner, "PUT", "/desk/faults/tls-version"))
    assert_switch_refused(desk(partner, "PUT", "/desk/faults/tls-version", {"value": "1.1"}))
    assert_switch_refused(desk(partner, "PUT", "/desk/faults/wrong-ca", {"value": "very"}))
    assert_switch_refused(desk(partner, "PUT", "/desk/faults/wrong-ca", {"times": 0}), 400)
    assert_switch_refused(desk(partner, "PUT", "/desk/faults/wrong-ca", b"{"), 400)
    assert_switch_refused(desk(partner, "PATCH", "/desk/faults/wrong-ca"), 405)
