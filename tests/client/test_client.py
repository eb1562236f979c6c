"""The client API: a session on a published bundle, which follows its rotation."""

from __future__ import annotations

import base64
import json
import os
import re
import threading
import traceback
from collections.abc import Callable
from pathlib import Path

import pytest
import requests
from partner_standin import Standin

import broker.client
from broker.client import following
from broker.client.published import NothingPublishedError
from broker.copies import replace
from broker.delivery.directory import CURRENT
from broker.delivery.formats import MANIFEST
from broker.errors import InputError, PartnerUnavailableError, RefusedError
from broker.model.bundle import Bundle
from broker.model.secret import Secret
from tests.support.credential_sets import LEASE, LOGIN, PASSWORD, bundle_of, paper, publish, withdraw
from tests.support.tls_server import Saying


def test_public_names_are_documented() -> None:
    values = {"Credentials", "Manifest", "Published", "Session", "connect", "open", "read"}
    errors = {"BrokerError", "DeniedError", "InputError", "NothingPublishedError", "PartnerUnavailableError"}
    errors |= {"RefusedError", "VaultUnavailableError"}
    assert set(broker.client.__all__) == values | errors
    for name in broker.client.__all__:
        assert getattr(broker.client, name).__doc__


def test_documented_errors_are_exported() -> None:
    documented = "".join(getattr(broker.client, name).__doc__ or "" for name in broker.client.__all__)
    documented += "".join(getattr(broker.client.Session, name).__doc__ or "" for name in vars(broker.client.Session))
    raised = set(re.findall(r"`(\w+Error)`", documented)) - {"HTTPError"}
    assert raised <= set(broker.client.__all__)


def test_a_request_may_ask_for_another_type(root: Path) -> None:
    """Stellantis's lastPosition answers GeoJSON only, and only to who asks for it."""
    with broker.client.open(root) as session:
        fleet = session.get("/fleets").json()["_embedded"]["fleets"][0]["id"]
        vehicle = session.get(f"/fleets/{fleet}/vehicles").json()["_embedded"]["vehicles"][0]["id"]
        path = f"/fleets/{fleet}/vehicles/{vehicle}/lastPosition"
        assert session.get(path).status_code == 406
        assert session.get(path, headers={"Accept": "application/vnd.geo+json"}).json()["type"] == "Feature"


def test_session_opens_a_directory(root: Path) -> None:
    with broker.client.open(root) as session:
        assert session.get("/fleets").status_code == 200
        assert session.manifest.lease_id == "lease-0001"


def test_pages_yields_the_whole_list(root: Path) -> None:
    with broker.client.open(str(root)) as session:
        pages = list(session.pages("/fleets", params={"pageSize": "1"}))
    assert len(pages) == pages[0]["totalPage"] > 1
    assert len({page["currentPage"] for page in pages}) == len(pages)


def test_pages_follows_links_with_client_id(partner: Standin, root: Path) -> None:
    partner.faults.set("echo-client-id")
    with broker.client.open(root) as session:
        assert len(list(session.pages("/fleets", params={"pageSize": "1"}))) > 1


@pytest.mark.usefixtures("checks_always")
def test_rotation_is_followed(partner: Standin, bundle: Bundle, root: Path) -> None:
    with broker.client.open(root) as session:
        assert session.get("/fleets").status_code == 200
        partner.registry.set_password(LOGIN, "rotated")
        try:
            publish(root, replace(bundle_of(partner, number=2, generation=8), secrets={"password": Secret("rotated")}))
            assert session.get("/fleets").status_code == 200
            assert session.manifest.generation == 8
        finally:
            partner.registry.set_password(LOGIN, PASSWORD)


def test_link_is_read_once_a_second(root: Path, bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following, "CHECK_EVERY", 3600.0)
    with broker.client.open(root) as session:
        publish(root, replace(bundle, generation=8))
        session.get("/fleets")
        assert session.manifest.generation == 7
        assert session.follow()
        assert session.manifest.generation == 8
        assert not session.follow()


@pytest.mark.usefixtures("checks_always")
def test_rotations_lose_no_request(partner: Standin, bundle: Bundle, root: Path) -> None:
    sets = [replace(bundle, generation=8), bundle_of(partner, number=2, generation=9), bundle]
    statuses: list[int] = []
    with broker.client.open(root) as session:

        def read() -> None:
            statuses.extend(session.get("/fleets", params={"pageSize": "1"}).status_code for _ in range(6))

        threads = [threading.Thread(target=read) for _ in range(8)]
        for thread in threads:
            thread.start()
        for turn in range(9):
            publish(root, sets[turn % 3])
        for thread in threads:
            thread.join()
    assert statuses == [200] * 48


@pytest.mark.usefixtures("checks_always")
def test_withdrawn_bundle_is_reported(root: Path) -> None:
    with broker.client.open(root) as session:
        assert not session.withdrawn
        withdraw(root, LEASE)
        assert session.get("/fleets").status_code == 200
        assert session.withdrawn
        with pytest.raises(NothingPublishedError):
            session.follow()


def test_other_base_url_is_refused(root: Path, bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    with broker.client.open(root) as session:
        publish(root, replace(bundle, generation=8, base_url="https://api.example.com/v3"))
        monkeypatch.setattr(following, "CHECK_EVERY", 0.001)
        for _ in range(3):
            with pytest.raises(RefusedError, match="keeps its base URL"):
                session.get("/fleets")


@pytest.mark.parametrize(
    "harm",
    [
        lambda d: (d / "tls-combined.pem").unlink(),
        lambda d: (d / "tls-combined.pem").write_text("harmed"),
        lambda d: (d / "ca.crt").write_text("-----BEGIN CERTIFICATE-----"),
        lambda d: (d / "username").write_bytes(b"\xff"),
        lambda d: (d / "password").unlink(),
        lambda d: (d / "password").write_text("planted\nx"),
        lambda d: ((d / "password").unlink(), (d / "password").mkdir()),
        lambda d: (d / MANIFEST).write_text("{}"),
        lambda d: (d / MANIFEST).write_text("[]"),
        lambda d: (d / MANIFEST).write_text('{"schema": 2}'),
        lambda d: (d / MANIFEST).write_text('{"schema": "x"}'),
        lambda d: (d / MANIFEST).write_bytes(b"\xff\xfe"),
    ],
)
def test_changed_bundle_is_refused(tmp_path: Path, harm: Callable[[Path], object]) -> None:
    harm(publish(tmp_path / "r", paper()))
    with pytest.raises(InputError) as caught:
        broker.client.open(tmp_path / "r")
    assert caught.value.hint
    assert PASSWORD not in f"{caught.value}{caught.value.hint}"
    assert "planted" not in f"{caught.value}{caught.value.hint}"


ARMOURED = b"-----BEGIN PRIVATE KEY-----\n" + base64.b64encode(b"planted-secret") + b"\n-----END PRIVATE KEY-----\n"


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("password", b"planted-secret\xff"),
        ("password", b"planted-secret\n"),
        ("tls-combined.pem", b"planted-secret"),
        ("tls-combined.pem", ARMOURED),
    ],
)
@pytest.mark.parametrize("digest", [{}, {"sha256": "0" * 64}])
def test_damaged_bundle_keeps_frames_clean(tmp_path: Path, name: str, content: bytes, digest: dict[str, str]) -> None:
    """Error trackers read local variables and the context of an error."""
    path = publish(tmp_path / "r", paper())
    (path / name).write_bytes(content)
    manifest = json.loads((path / MANIFEST).read_text())
    manifest["files"][name] = digest
    (path / MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(InputError) as caught:
        broker.client.open(tmp_path / "r")
    trace, behind = caught.value.__traceback__, caught.value.__context__
    assert trace is not None
    frames = traceback.StackSummary.extract(traceback.walk_tb(trace.tb_next), capture_locals=True).format()
    shown = "".join(frames) + repr(behind) + repr(getattr(behind, "object", ""))  # of a UnicodeDecodeError
    assert not re.search("planted-secret|cGxhbnRlZ", shown)


def nothing(root: Path) -> None:
    pass


def a_dangling_link(root: Path) -> None:
    root.mkdir()
    (root / CURRENT).symlink_to("gen-000001")


def no_link(root: Path) -> None:
    (root / CURRENT).mkdir(parents=True)


@pytest.mark.parametrize("make", [nothing, a_dangling_link, no_link])
def test_missing_bundle_is_reported(tmp_path: Path, make: Callable[[Path], None]) -> None:
    make(tmp_path / "r")
    with pytest.raises(NothingPublishedError, match="no bundle is published"):
        broker.client.open(tmp_path / "r")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_unreadable_bundle_is_reported(tmp_path: Path) -> None:
    (publish(tmp_path / "r", paper()) / "tls-combined.pem").chmod(0)
    with pytest.raises(InputError, match="permission denied"):
        broker.client.open(tmp_path / "r")


@pytest.mark.parametrize(
    ("body", "error"),
    [
        ('{"_links": {"next": {"href": "https://elsewhere.example/v3"}}}', RefusedError),
        ('{"_links": {"next": {"href": "/v2/fleets"}}}', RefusedError),
        ('{"_links": {"next": {"href": "/v3/fleets?client_id=other"}}}', RefusedError),
        ('{"_links": {"next": {"href": "/v3/same"}}}', PartnerUnavailableError),
        ("[]", PartnerUnavailableError),
        ("<html>", PartnerUnavailableError),
        ("", PartnerUnavailableError),
    ],
)
def test_pages_refuses_bad_links_and_pages(
    partner: Standin, bundle: Bundle, tmp_path: Path, body: str, error: type[Exception]
) -> None:
    answer = f"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode()
    saying = Saying(partner, answer)
    with saying as url:
        publish(tmp_path / "r", replace(bundle, base_url=url))
        with broker.client.open(tmp_path / "r") as session, pytest.raises(error):
            list(session.pages("/fleets"))
    assert len(saying.got) <= 2


@pytest.mark.parametrize(
    "body", ["{}", '{"_links": []}', '{"_links": {"next": {"href": 7}}}', '{"_links": {"next": 1}}']
)
def test_page_without_next_link_is_the_last(partner: Standin, bundle: Bundle, tmp_path: Path, body: str) -> None:
    answer = f"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode()
    with Saying(partner, answer) as url:
        publish(tmp_path / "r", replace(bundle, base_url=url))
        with broker.client.open(tmp_path / "r") as session:
            assert len(list(session.pages("/fleets"))) == 1


def test_pages_raises_for_an_error_status(partner: Standin, root: Path) -> None:
    partner.faults.apply("status-500")
    with broker.client.open(root) as session, pytest.raises(requests.HTTPError) as caught:
        list(session.pages("/fleets"))
    assert session.manifest.base_url in str(caught.value)
    assert "client_id" not in str(caught.value)
