"""Errors of canaries and their hints."""

from __future__ import annotations

import pytest

from broker.model.generation import Application
from broker.model.names import AccountName
from broker.model.verdict import CanaryResult, Verdict
from broker.rotation.reports import CanaryRefusedError, CanaryUnansweredError, require_ok
from tests.support.accounts import NOW

NAME = AccountName("acme")


@pytest.mark.parametrize(
    ("verdict", "hints"),
    [
        (Verdict.WRONG_CA, ("broker trust set acme FILE --accept-ca SHA256",)),
        (Verdict.LOGIN_REJECTED, ("broker password set acme",)),
        (Verdict.CLIENT_REJECTED, ("broker app set acme/reports", "broker explain acme --generation 3")),
        (Verdict.CERTIFICATE_REJECTED, ("fingerprint", "broker explain acme --generation 3")),
        (Verdict.HANDSHAKE, ("proxy", "broker explain acme --generation 3")),
    ],
)
def test_each_refusal_has_its_hint(verdict: Verdict, hints: tuple[str, ...]) -> None:
    with pytest.raises(CanaryRefusedError) as caught:
        require_ok(NAME, 3, CanaryResult(verdict, application=Application("reports")))
    assert all(hint in caught.value.hint for hint in hints)


@pytest.mark.parametrize(("verdict", "hint"), [(Verdict.QUOTA, "wait"), (Verdict.PARTNER_DOWN, "try again later")])
def test_unclear_answer_asks_to_retry_later(verdict: Verdict, hint: str) -> None:
    with pytest.raises(CanaryUnansweredError) as caught:
        require_ok(NAME, 3, CanaryResult(verdict, application=Application("reports")))
    assert hint in caught.value.hint


@pytest.mark.parametrize("verdict", [Verdict.CERTIFICATE_REJECTED, Verdict.HANDSHAKE])
def test_expired_certificate_is_the_reason(verdict: Verdict) -> None:
    """Not "may take hours to be known there"."""
    with pytest.raises(CanaryRefusedError) as caught:
        require_ok(NAME, 3, CanaryResult(verdict, expired=NOW))
    assert caught.value.hint == f"the certificate of generation 3 expired on {NOW:%F %TZ}: broker csr new acme"
