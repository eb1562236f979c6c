"""Verdicts of answers; an unclear answer gets the verdict whose mistake costs less."""

from __future__ import annotations

from datetime import timedelta

import pytest

from broker.model.verdict import Verdict
from broker.partners.verdict import ProbeFacts, Where, classify, wait

CLIENT = "Unauthorized; Invalid client id or secret."
BASIC = (
    "Unauthorized; Cannot pass the security checks that are required by the target API or operation, "
    "Enable debug headers for more details."
)


def http(status: int, message: str = "", *, json: bool = True, code: str = "") -> ProbeFacts:
    return ProbeFacts(Where.HTTP, status=status, message=message, is_json=json, code=code)


ALERTS = [
    ("certificate required", Verdict.CERTIFICATE_REJECTED),
    ("certificate expired", Verdict.CERTIFICATE_REJECTED),
    ("bad certificate", Verdict.CERTIFICATE_REJECTED),
    ("unknown ca", Verdict.CERTIFICATE_REJECTED),
    ("unsupported certificate", Verdict.CERTIFICATE_REJECTED),
    ("certificate revoked", Verdict.CERTIFICATE_REJECTED),
    ("certificate unknown", Verdict.CERTIFICATE_REJECTED),
    ("access denied", Verdict.CERTIFICATE_REJECTED),
    ("decrypt error", Verdict.CERTIFICATE_REJECTED),
    ("handshake failure", Verdict.HANDSHAKE),
    ("protocol version", Verdict.HANDSHAKE),
    ("unrecognized name", Verdict.HANDSHAKE),
    ("internal error", Verdict.HANDSHAKE),
]


@pytest.mark.parametrize("where", [Where.HANDSHAKE, Where.FIRST_READ])
@pytest.mark.parametrize(("alert", "verdict"), ALERTS)
def test_alert_means_the_same_at_both_steps(alert: str, verdict: Verdict, where: Where) -> None:
    assert classify(ProbeFacts(where, alert=alert)) is verdict


@pytest.mark.parametrize(
    ("facts", "verdict"),
    [
        (ProbeFacts(Where.CONNECT), Verdict.PARTNER_DOWN),
        (ProbeFacts(Where.CONNECT, timed_out=True), Verdict.PARTNER_DOWN),
        (ProbeFacts(Where.HANDSHAKE, closed=True), Verdict.PARTNER_DOWN),
        (ProbeFacts(Where.HANDSHAKE, timed_out=True), Verdict.PARTNER_DOWN),
        (ProbeFacts(Where.HANDSHAKE, detail="TLS failed"), Verdict.HANDSHAKE),
        (ProbeFacts(Where.HANDSHAKE, verify_error="self-signed certificate"), Verdict.WRONG_CA),
        (ProbeFacts(Where.FIRST_READ, closed=True), Verdict.CERTIFICATE_REJECTED),
        (ProbeFacts(Where.FIRST_READ, closed=True, stays_open=True), Verdict.PARTNER_DOWN),
        (ProbeFacts(Where.FIRST_READ, timed_out=True), Verdict.PARTNER_DOWN),
        (ProbeFacts(Where.BODY, closed=True), Verdict.PARTNER_DOWN),
    ],
)
def test_verdict_depends_on_the_step(facts: ProbeFacts, verdict: Verdict) -> None:
    assert classify(facts) is verdict


@pytest.mark.parametrize(
    ("facts", "verdict"),
    [
        (http(200), Verdict.OK),
        (http(200, json=False), Verdict.PARTNER_DOWN),
        (http(204, json=False), Verdict.PARTNER_DOWN),
        (http(302), Verdict.PARTNER_DOWN),
        (http(400, "Bad request", code="40000"), Verdict.PARTNER_DOWN),
        (http(400, "400 The SSL certificate error", json=False), Verdict.CERTIFICATE_REJECTED),
        (http(400, "400 No required SSL certificate was sent", json=False), Verdict.CERTIFICATE_REJECTED),
        (http(495, json=False), Verdict.CERTIFICATE_REJECTED),
        (http(496, json=False), Verdict.CERTIFICATE_REJECTED),
        (http(401, "Invalid or expired client certificate", code="495"), Verdict.CERTIFICATE_REJECTED),
        (http(500, "x", code="495"), Verdict.CERTIFICATE_REJECTED),
        (http(401, CLIENT), Verdict.CLIENT_REJECTED),
        (http(401, BASIC), Verdict.LOGIN_REJECTED),
        (http(401), Verdict.LOGIN_REJECTED),
        (http(401, json=False), Verdict.LOGIN_REJECTED),
        (http(401, "wrong client id or password"), Verdict.LOGIN_REJECTED),
        (http(401, "wrong login or client_id"), Verdict.LOGIN_REJECTED),
        (http(403, "Forbidden", code="40300"), Verdict.LOGIN_REJECTED),
        (http(403, "client id is not subscribed"), Verdict.CLIENT_REJECTED),
        (http(403, "Access denied", json=False), Verdict.PARTNER_DOWN),
        (http(404, code="40499"), Verdict.PARTNER_DOWN),
        (http(429), Verdict.QUOTA),
        (http(429, json=False), Verdict.QUOTA),
        (http(500), Verdict.PARTNER_DOWN),
        (http(503, "SSL certificate error", json=False), Verdict.PARTNER_DOWN),
    ],
)
def test_answers_have_their_verdict(facts: ProbeFacts, verdict: Verdict) -> None:
    assert classify(facts) is verdict


def test_profile_defines_success() -> None:
    assert classify(http(202), expect={202}) is Verdict.OK
    assert classify(http(200), expect={202}) is Verdict.PARTNER_DOWN


def test_unverified_server_is_wrong_ca() -> None:
    """The answer of a server that is not the partner's does not count."""
    assert classify(ProbeFacts(Where.HTTP, status=200, is_json=True, verify_error="x")) is Verdict.WRONG_CA


@pytest.mark.parametrize(
    ("seconds", "waited"), [(None, None), (0, None), (30, timedelta(seconds=30)), (10**9, timedelta(days=1))]
)
def test_wait_is_a_day_at_most(seconds: int | None, waited: timedelta | None) -> None:
    assert wait(ProbeFacts(Where.HTTP, status=429, retry_after=seconds)) == waited


def test_verdicts_have_message_and_hint() -> None:
    for verdict in Verdict:
        assert verdict.message
        assert verdict.hint or verdict in (Verdict.OK, Verdict.PARTNER_DOWN)
