"""The session: which URLs it calls, what it adds, and that secrets stay hidden."""

from __future__ import annotations

import base64
import copy
import gc
import io
import pickle
import ssl
import threading
import traceback
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import certifi
import pytest
import requests
from partner_standin import Standin

from broker.copies import replace
from broker.errors import RefusedError
from broker.model.bundle import Bundle
from broker.model.secret import Secret
from broker.upstream.session import PartnerSession
from tests.support.credential_sets import LOGIN, PASSWORD, bundle_of, credentials_of
from tests.support.tls_server import Saying

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"


@pytest.fixture
def session(bundle: Bundle) -> Iterator[PartnerSession]:
    with PartnerSession(credentials_of(bundle)) as made:
        yield made


def shapes(client_id: str) -> list[str]:
    pair = base64.b64encode(f"{LOGIN}:{PASSWORD}".encode()).decode()
    return [PASSWORD, quote(PASSWORD), repr(PASSWORD), pair, client_id, base64.b64encode(PASSWORD.encode()).decode()]


def frames_of(error: BaseException) -> str:
    """Return the traceback with every local variable, as error trackers take it, but for the test's own frame."""
    assert error.__traceback__ is not None
    return "".join(
        traceback.StackSummary.extract(traceback.walk_tb(error.__traceback__.tb_next), capture_locals=True).format()
    )


def assert_shows_no_secret(found: object, client_id: str) -> None:
    """Search what a logger or an error tracker would take: text, repr, arguments, context, and frames' locals."""
    text = repr(found) + str(found)
    if isinstance(found, BaseException):
        text += frames_of(found) + repr(found.args) + repr(found.__context__) + repr(found.__cause__)
        assert found.__context__ is None
        request = getattr(found, "request", None)
        text += repr(vars(request)) if request is not None else ""
    for shape in shapes(client_id):
        assert shape not in text


def test_a_path_is_enough(session: PartnerSession) -> None:
    response = session.get("/fleets", params={"pageSize": "1"})
    assert response.status_code == 200
    assert "_links" in response.json()


@pytest.mark.parametrize("tls", ["1.2", "1.3"])
def test_link_may_repeat_our_client_id(partner: Standin, session: PartnerSession, tls: str) -> None:
    partner.faults.set("tls-version", tls)
    partner.faults.set("echo-client-id")
    link = session.get("/fleets").json()["_links"]["self"]["href"]
    assert "client_id=" in link
    assert session.get(link).status_code == 200


def test_link_may_have_its_host_in_capitals(session: PartnerSession) -> None:
    assert session.get(session.base_url.replace("https:", "HTTPS:") + "/fleets").status_code == 200
    assert session.link("HTTPS:" + session.base_url[6:] + "/fleets#a", session.base_url) == session.base_url + "/fleets"


def test_responses_and_hooks_see_no_secret(session: PartnerSession, bundle: Bundle) -> None:
    seen: list[requests.Response] = []
    response = session.get("/fleets", hooks={"response": lambda r, **_: seen.append(r)})
    for found in (response, *seen):
        assert found.request.headers.get("Authorization") is None
        for text in (found.url, found.request.url, str(found.request.headers), str(found.raw.geturl()), repr(found)):
            assert_shows_no_secret(text, bundle.client_id)


@pytest.mark.parametrize(
    "path",
    [
        "https://elsewhere.example/fleets",
        "http://127.0.0.1/fleets",
        "//elsewhere.example/fleets",
        "/../v2/fleets",
        "/%2e%2e/v2/fleets",
        "/%252e%252e/v2/fleets",
        "/..;/v2",
        "/a/./b",
        "/a//b",
        "/a%2fb",
        "/a\\b",
        "/a\nb",
        "/a#b",
        "/fleets?client_id=other",
        "/fleets?client%5fid=other",
        "/fleets?CLIENT_ID=other",
        "/fleets?a=1;client_id=other",
    ],
)
def test_request_cannot_leave_the_base_url(session: PartnerSession, path: str) -> None:
    with pytest.raises((RefusedError, requests.RequestException)):
        session.get(path)


def test_other_path_of_the_host_is_refused(session: PartnerSession) -> None:
    with pytest.raises(RefusedError, match="not below"):
        session.get(session.base_url.removesuffix("/v3") + "/v2/fleets")


def test_other_client_id_is_refused(session: PartnerSession, bundle: Bundle) -> None:
    assert session.get("/fleets", params={"client_id": bundle.client_id}).status_code == 200
    with pytest.raises(RefusedError):
        session.get("/fleets", params={"client_id": "other"})


@pytest.mark.parametrize(
    "location", ["https://elsewhere.example/", "http://127.0.0.1:{port}/v3/fleets", "https://127.0.0.1:{port}/other"]
)
def test_redirect_out_of_the_base_is_refused(partner: Standin, bundle: Bundle, location: str) -> None:
    port = bundle.base_url.rsplit(":", 1)[1].partition("/")[0]
    answer = f"HTTP/1.1 302 Go\r\nLocation: {location.format(port=port)}\r\nContent-Length: 0\r\n\r\n".encode()
    with Saying(partner, answer) as url, PartnerSession(credentials_of(replace(bundle, base_url=url))) as session:
        with pytest.raises(RefusedError) as caught:
            session.get("/fleets")
        assert bundle.client_id not in str(caught.value)


def test_redirect_in_the_base_is_followed(partner: Standin, bundle: Bundle) -> None:
    saying = Saying(
        partner, b"HTTP/1.1 302 Go\r\nLocation: /v3/b?x=1\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    )
    with saying as url, PartnerSession(credentials_of(replace(bundle, base_url=url))) as session:
        session.max_redirects = 1
        with pytest.raises(requests.TooManyRedirects):
            session.get("/a")
    second = saying.got[1].decode()
    assert second.startswith(f"GET /v3/b?x=1&client_id={bundle.client_id} HTTP/1.1")
    assert second.count("Authorization: Basic") == 1


@pytest.mark.parametrize(
    "option",
    [{"verify": False}, {"verify": "/etc/ssl/certs"}, {"cert": "/tmp/x.pem"}, {"proxies": {"https": "http://p:1"}}],
)
def test_verification_cannot_be_changed(session: PartnerSession, option: dict[str, Any]) -> None:
    with pytest.raises(RefusedError, match="cannot be chosen"):
        session.get("/fleets", **option)


def test_the_environment_adds_nothing(session: PartnerSession, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", certifi.where())
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:1")
    assert session.get("/fleets").status_code == 200


def test_pinned_context_is_not_changed(bundle: Bundle) -> None:
    """requests loads its own CA bundle into a context where it may: two CAs became 146."""
    credentials = credentials_of(bundle)
    with PartnerSession(credentials) as session:
        session.get("/fleets")
    assert credentials.context.cert_store_stats()["x509"] == 1
    assert credentials.context.verify_mode is ssl.CERT_REQUIRED


@pytest.mark.parametrize("tls", ["1.2", "1.3"])
@pytest.mark.parametrize(
    "fault", ["closed-at-once", "wrong-ca", "wrong-host", "certificate-alert", "certificate-eof", "garbage"]
)
def test_failures_show_no_secret(
    partner: Standin, bundle: Bundle, session: PartnerSession, fault: str, tls: str
) -> None:
    partner.faults.set("tls-version", tls)
    partner.faults.apply(fault)
    with pytest.raises(requests.ConnectionError) as caught:
        session.get("/fleets")
    assert_shows_no_secret(caught.value, bundle.client_id)
    assert "HTTPSConnectionPool" not in str(caught.value)


def test_a_timeout_is_one_and_has_a_default(partner: Standin, bundle: Bundle) -> None:
    partner.faults.apply("slow-answer=2s")
    with PartnerSession(credentials_of(bundle), timeout=(1, 0.2)) as session:
        with pytest.raises(requests.ReadTimeout, match="no answer in time") as caught:
            session.get("/fleets")
        assert_shows_no_secret(caught.value, bundle.client_id)


@pytest.mark.parametrize("fault", ["cut-mid-body", "reset-mid-body"])
def test_incomplete_body_shows_no_secret(partner: Standin, bundle: Bundle, session: PartnerSession, fault: str) -> None:
    partner.faults.apply(fault)
    with pytest.raises(requests.RequestException) as caught:
        session.get("/fleets")
    for shape in shapes(bundle.client_id):
        assert shape not in frames_of(caught.value) + repr(caught.value)


def test_session_cannot_be_pickled_or_copied(session: PartnerSession) -> None:
    for attempt in (lambda: pickle.dump(session, io.BytesIO()), lambda: copy.copy(session)):
        with pytest.raises(TypeError, match="secrets"):
            attempt()


def test_our_header_replaces_the_callers(partner: Standin, bundle: Bundle) -> None:
    saying = Saying(partner, OK)
    with saying as url, PartnerSession(credentials_of(replace(bundle, base_url=url))) as session:
        session.get("/fleets", auth=("somebody", "else"), headers={"authorization": "Basic zzz"})
    head = saying.got[0].decode().lower()
    assert head.count("authorization:") == 1
    assert base64.b64encode(f"{LOGIN}:{PASSWORD}".encode()).decode().lower() in head


def test_swap_loses_no_request(partner: Standin, bundle: Bundle) -> None:
    """Sixteen threads read while the set is swapped twenty times: nothing fails, and no set is mixed."""
    sets = [credentials_of(bundle), credentials_of(bundle_of(partner, number=2))]
    statuses: list[int] = []
    with PartnerSession(sets[0]) as session:

        def read() -> None:
            statuses.extend(session.get("/fleets", params={"pageSize": "1"}).status_code for _ in range(5))

        threads = [threading.Thread(target=read) for _ in range(16)]
        for thread in threads:
            thread.start()
        for turn in range(20):
            session.swap(sets[turn % 2])
        for thread in threads:
            thread.join()
    gc.collect()
    assert statuses == [200] * 80


def test_swap_sends_the_new_password(partner: Standin, bundle: Bundle) -> None:
    saying = Saying(partner, OK)
    with saying as url, PartnerSession(credentials_of(replace(bundle, base_url=url))) as session:
        session.swap(credentials_of(replace(bundle, base_url=url, secrets={"password": Secret("newer")})))
        session.get("/fleets")
    assert base64.b64encode(f"{LOGIN}:newer".encode()) in saying.got[-1]


def test_set_of_another_account_is_refused(session: PartnerSession, bundle: Bundle) -> None:
    with pytest.raises(RefusedError, match="keeps its base URL"):
        session.swap(credentials_of(replace(bundle, base_url="https://api.example.com/v3")))
