"""A partner that rejects the set: each session asks once for a newer one, and never repeats a rejected login."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from cryptography import x509
from partner_standin import Standin

from broker.copies import replace
from broker.model.bundle import Bundle
from broker.model.secret import Secret
from broker.upstream import current
from tests.support.credential_sets import LOGIN, bundle_of, credentials_of, publish
from tests.support.sessions import Calls

Opened = Callable[..., AbstractContextManager[Calls]]
pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("checks_never")]


def rotated(partner: Standin, root: Path, bundle: Bundle, generation: int = 8) -> None:
    """Change the password at the partner, and publish a generation that has the new one."""
    partner.registry.set_password(LOGIN, "rotated")
    publish(root, replace(bundle, generation=generation, secrets={"password": Secret("rotated")}))


def tried(partner: Standin) -> list[int]:
    return [entry.status for entry in partner.log.entries()]


@pytest.fixture(autouse=True)
def _empty_log(partner: Standin) -> None:
    partner.log.clear()


def test_a_newer_generation_is_tried_once(partner: Standin, bundle: Bundle, root: Path, opened: Opened) -> None:
    with opened(root) as calls:
        rotated(partner, root, bundle)
        assert calls.get() == 200
    assert tried(partner) == [401, 200]


def test_a_rejected_login_is_not_repeated(partner: Standin, root: Path, opened: Opened) -> None:
    partner.registry.set_password(LOGIN, "rotated")
    with opened(root) as calls:
        assert calls.get() == 401
    assert tried(partner) == [401]


def test_a_newer_login_is_rejected_once(partner: Standin, bundle: Bundle, root: Path, opened: Opened) -> None:
    with opened(root) as calls:
        rotated(partner, root, bundle)
        partner.registry.set_password(LOGIN, "another")
        assert calls.get() == 401
    assert tried(partner) == [401, 401]


def test_a_post_is_not_repeated(partner: Standin, bundle: Bundle, root: Path, opened: Opened) -> None:
    """But the next request has the new set."""
    with opened(root) as calls:
        rotated(partner, root, bundle)
        assert calls.request("POST", "/fleets")[0] == 401
        assert calls.get() == 200
    assert tried(partner) == [401, 200]


@pytest.mark.parametrize("tls", ["1.2", "1.3"])
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_hard_cut_over_fails_nothing(partner: Standin, root: Path, opened: Opened, method: str, tls: str) -> None:
    """The partner refuses the old certificate in the handshake: even a POST is repeated, since none was read."""
    old, new = bundle_of(partner, number=1), bundle_of(partner, number=2, generation=8)
    publish(root, old)
    partner.faults.set("tls-version", tls)
    serial = x509.load_pem_x509_certificate(old.certificate.encode()).serial_number
    with opened(root) as calls:
        partner.registry.revoke(f"{serial:x}", datetime.now(UTC))
        publish(root, new)
        assert calls.request(method, "/fleets")[0] == (200 if method == "GET" else 405)


@pytest.mark.parametrize("fault", ["certificate-json=deserved", "certificate-eof=deserved"])
def test_odd_refusals_of_a_certificate_count(partner: Standin, root: Path, opened: Opened, fault: str) -> None:
    old, new = bundle_of(partner, number=1), bundle_of(partner, number=2, generation=8)
    publish(root, old)
    serial = x509.load_pem_x509_certificate(old.certificate.encode()).serial_number
    partner.faults.apply(fault)
    with opened(root) as calls:
        partner.registry.revoke(f"{serial:x}", datetime.now(UTC))
        publish(root, new)
        assert calls.get() == 200


def test_many_rejections_ask_once(
    partner: Standin, root: Path, opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(current, "ASK_EVERY", 3600.0)
    partner.registry.set_password(LOGIN, "rotated")
    asked: list[None] = []
    statuses: list[int] = []
    with opened(root) as calls:
        calls.session.current.ask = lambda: asked.append(None)
        threads = [threading.Thread(target=lambda: statuses.append(calls.get())) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert statuses == [401] * 8
    assert len(asked) == 1


def test_hours_of_rejections_ask_rarely(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each question renews a lease. After an answer that is none, the next rejection asks within a second again."""
    now = [0]
    asked: list[int] = []
    monkeypatch.setattr(current, "time", SimpleNamespace(monotonic=lambda: now[0]))
    made: current.Current[Any] = current.Current(credentials_of(bundle), lambda _: SimpleNamespace(close=bool))
    made.ask = lambda: asked.append(now[0])
    use = made.lend()
    for now[0] in range(3600):
        assert not made.has_newer(use)
    assert asked[:5] == [0, 2, 6, 14, 30]
    assert len(asked) == 6 + (3600 - 62) // 64
    made.forget_rejections()
    now[0] = asked[-1] + 1
    made.has_newer(use)
    assert asked[-1] == now[0]
