"""A partner with another authentication: one class and one profile, and nothing else changes."""

from __future__ import annotations

import hashlib
import hmac
import json
import re
import ssl
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from partner_standin import Standin

from broker.client import read
from broker.copies import replace
from broker.delivery.formats import FileFormat, curl_config
from broker.errors import InputError, RefusedError
from broker.model.authentication import PARTS, Authentication
from broker.model.authentication.interface import LOGIN, Check, Part, Request, Values
from broker.model.bundle import Bundle
from broker.model.secret import Secret
from broker.model.verdict import Verdict
from broker.partners.document import from_document, parse, to_document
from broker.partners.profile import Profile
from broker.partners.request import as_curl, as_http, recipe
from broker.upstream.canary import ask
from broker.upstream.session import PartnerSession
from tests.support.credential_sets import credentials_of, publish
from tests.support.tls_server import Saying

KEY = "planted-shared-key"
ANSWER = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{}"
REFUSAL = b"HTTP/1.1 401 no\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{}"


class ToyHmac(Part, frozen=True):
    """HMAC-SHA-256 of method, target and body, under a named secret."""

    kind = "toy_hmac"
    header: str
    secret: str

    @property
    def needs(self) -> Mapping[str, Check]:
        return {LOGIN: _require_text, self.secret: _require_text}

    def add(self, request: Request, values: Values) -> Request:
        signature = mac(values.secret(self.secret).reveal(), request.method, request.target, request.content)
        return request.with_header(self.header, f"{values.login}:{signature}")

    def show(self, request: Request) -> Request:
        return request.with_header(self.header, f"<login>:<HMAC-SHA-256 under {self.secret}>")


def _require_text(value: str) -> InputError | None:
    if not value.isascii() or not value:
        return InputError("a value of the signature is empty, or is not ASCII")
    return None


def mac(key: str, method: str, target: str, body: bytes) -> str:
    return hmac.new(key.encode(), f"{method} {target}\n".encode() + body, hashlib.sha256).hexdigest()


class ToyToken(Part, frozen=True):
    """The login in the body, which is JSON."""

    kind = "toy_token"

    @property
    def needs(self) -> Mapping[str, Check]:
        return {LOGIN: _require_text}

    def add(self, request: Request, values: Values) -> Request:
        document = json.loads(request.content or b"{}") | {"user": values.login}
        return replace(request, body=json.dumps(document).encode()).with_header("Content-Type", "application/json")

    def show(self, request: Request) -> Request:
        return replace(request, body=b'{"user": "<login>"}')


class Verifying(Saying):
    """A TLS server that answers 200 to a request with the right signature, and 401 to any other."""

    def received(self, tls: ssl.SSLSocket) -> bytes:
        head, _, body = super().received(tls).partition(b"\r\n\r\n")
        length = re.search(rb"Content-Length: (\d+)", head)
        while length and len(body) < int(length[1]):
            body += super().received(tls)
        return head + b"\r\n\r\n" + body

    def answered(self, sent: bytes) -> bytes:
        head, _, body = sent.partition(b"\r\n\r\n")
        line, *headers = head.decode("ascii").split("\r\n")
        method, target, _ = line.split(" ")
        found = dict(header.split(": ", 1) for header in headers)
        login, _, signature = found.get("X-Signature", "").partition(":")
        good = login.startswith("MZP") and hmac.compare_digest(signature, mac(KEY, method, target, body))
        return ANSWER if good and KEY not in head.decode() and "Authorization" not in found else REFUSAL


@pytest.fixture(autouse=True)
def _registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PARTS, ToyHmac.kind, ToyHmac)


@pytest.fixture
def profile() -> Profile:
    return parse(Path(__file__).with_name("toy.toml").read_text(encoding="utf-8"), "toy.toml")


@pytest.fixture
def url(partner: Standin) -> Iterator[str]:
    with Verifying(partner, ANSWER) as url:
        yield url


@pytest.fixture
def toy(bundle: Bundle, profile: Profile, url: str) -> Bundle:
    secrets = {"shared-key": Secret(KEY)}
    return replace(bundle, base_url=url, authentication=profile.authentication, secrets=secrets, client_id="")


@pytest.mark.parametrize(("key", "verdict"), [(KEY, Verdict.OK), ("another key", Verdict.LOGIN_REJECTED)])
def test_the_canary_signs(toy: Bundle, profile: Profile, key: str, verdict: Verdict) -> None:
    credentials = credentials_of(replace(toy, secrets={"shared-key": Secret(key)}))
    assert ask(credentials, profile.probe).verdict is verdict


def test_a_session_signs_each_request(toy: Bundle) -> None:
    with PartnerSession(credentials_of(toy)) as session:
        assert session.get("/fleets", params={"a": "1"}).status_code == 200
        assert session.post("/fleets", json={"b": 2}).status_code == 200
        with pytest.raises(RefusedError, match="covers the body"):
            session.post("/fleets", data=iter([b"a stream"]))


def test_a_part_can_add_to_the_body(partner: Standin, bundle: Bundle, profile: Profile) -> None:
    """And a part that signs, listed after it, covers what it added."""
    parts = (ToyToken(), ToyHmac("X-Signature", "shared-key"))
    verifying = Verifying(partner, ANSWER)
    with verifying as url:
        toy = replace(bundle, base_url=url, authentication=Authentication(parts), secrets={"shared-key": Secret(KEY)})
        with PartnerSession(credentials_of(toy)) as session:
            response = session.post("/fleets", json={"b": "é"})
        assert ask(credentials_of(toy), profile.probe).verdict is Verdict.OK
    assert response.status_code == 200
    assert response.request.body == b'{"b": "\\u00e9"}'
    bodies = [json.loads(sent.partition(b"\r\n\r\n")[2]) for sent in verifying.got]
    assert bodies == [{"b": "é", "user": bundle.login}, {"user": bundle.login}]
    assert '{"user": "<login>"}' in as_http(recipe(url, toy.authentication, "GET", "/"), toy.authentication)


def test_a_published_bundle_signs(toy: Bundle, tmp_path: Path) -> None:
    publish(tmp_path / "root", toy, [FileFormat.ENV])
    published = read(tmp_path / "root")
    assert not (published.path / "password").exists()
    assert f"PARTNER_SECRET_SHARED_KEY={KEY}\n" in (published.path / "env").read_text()
    with PartnerSession(published.credentials) as session:
        assert session.get("/fleets").status_code == 200


def test_the_profile_survives_being_stored(profile: Profile) -> None:
    assert profile.authentication.parts == (ToyHmac("X-Signature", "shared-key"),)
    assert profile.authentication.needs == {LOGIN, "shared-key"}
    assert from_document(to_document(profile), "vault") == profile


def test_explain_shows_placeholders(toy: Bundle) -> None:
    made = recipe("https://api.example.com/v1", toy.authentication, "GET", "/fleets")
    for text in (as_http(made, toy.authentication), as_curl(made, toy.authentication)):
        assert "X-Signature: <login>:<HMAC-SHA-256 under shared-key>" in text
        assert KEY not in text


def test_missing_support_is_reported(toy: Bundle) -> None:
    with pytest.raises(InputError, match="toy_hmac, which differs in each request"):
        curl_config(Path("/tmp"), toy.authentication, toy.values)
    with pytest.raises(RefusedError, match="different headers in each request"):
        credentials_of(toy).headers()
    with pytest.raises(InputError, match="no secret 'shared-key'"):
        credentials_of(replace(toy, secrets={}))
