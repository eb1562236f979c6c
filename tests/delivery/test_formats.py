"""Each file of a bundle, read by the program that needs it."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from partner_standin import Standin

from broker.copies import replace
from broker.delivery.formats import DEFAULT, FileFormat, curl_config, render
from broker.errors import InputError
from broker.model.authentication import Authentication, Basic, ClientId, Values
from broker.model.bundle import Bundle
from broker.model.secret import Secret
from tests.support.credential_sets import LOGIN, PASSWORD, bundle_of, paper, publish
from tests.support.depth import sampled
from tests.support.tls_server import Saying

HOSTILE = [
    'plain"quoted"',
    "back\\slash\\n\\",
    "colon:colon",
    "-leading",
    "#hash and space ",
    " leading",
    "pässwörd€",
    "'$(touch planted)`x`",
    "a&b=c%20+d",
    "@/etc/hosts",
    "\\\"'",
]


@pytest.fixture(scope="module")
def _running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Standin, Bundle]]:
    with Standin(tmp_path_factory.mktemp("partner"), accounts={LOGIN: PASSWORD}) as partner:
        yield partner, bundle_of(partner)


@pytest.fixture
def partner(_running: tuple[Standin, Bundle]) -> Standin:
    return _running[0]


@pytest.fixture
def bundle(_running: tuple[Standin, Bundle]) -> Bundle:
    return _running[1]


def run(*words: str | Path, stdin: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(words, input=stdin, capture_output=True, text=True, check=False, timeout=60)


def curl_status(config: Path, url: str, *more: str) -> str:
    ran = run("curl", "-q", "-sS", "-o", "/dev/null", "-w", "%{http_code}", "-K", config, *more, url)
    return ran.stdout + ran.stderr


@pytest.mark.peer("curl")
@pytest.mark.parametrize("password", sampled(HOSTILE, every=4, rest=pytest.mark.slow))
def test_curl_sends_hostile_passwords(partner: Standin, bundle: Bundle, tmp_path: Path, password: str) -> None:
    partner.registry.set_password(LOGIN, password)
    try:
        odd = tmp_path / 'a "b" \\c:d é'
        publish(odd, replace(bundle, secrets={"password": Secret(password)}), [FileFormat.CURL])
        assert curl_status(odd / "current" / "curl.conf", f"{bundle.base_url}/fleets") == "200"
        assert curl_status(odd / "current" / "curl.conf", f"{bundle.base_url}/fleets?pageSize=1") == "200"
    finally:
        partner.registry.set_password(LOGIN, PASSWORD)


@pytest.mark.peer("curl")
def test_curl_reports_a_wrong_password(bundle: Bundle, tmp_path: Path) -> None:
    """Otherwise the test above could not fail."""
    publish(tmp_path / "r", replace(bundle, secrets={"password": Secret("wrong")}), [FileFormat.CURL])
    assert curl_status(tmp_path / "r/current/curl.conf", f"{bundle.base_url}/fleets") == "401"


@pytest.mark.peer("curl")
def test_curl_trusts_only_the_partners_ca(partner: Standin, bundle: Bundle, tmp_path: Path) -> None:
    publish(tmp_path / "r", bundle, [FileFormat.CURL])
    config = tmp_path / "r/current/curl.conf"
    assert "/etc/ssl" not in run("curl", "-q", "-sv", "-K", config, f"{bundle.base_url}/fleets").stderr
    assert re.search("not supported|is disabled", curl_status(config, "http://127.0.0.1:1/"))  # by its version
    partner.faults.set("wrong-ca")
    try:
        assert "curl: (60) SSL certificate" in curl_status(config, f"{bundle.base_url}/fleets")
    finally:
        partner.faults.clear()


@pytest.mark.peer("curl")
def test_curl_quotes_a_hostile_client_id(partner: Standin, bundle: Bundle, tmp_path: Path) -> None:
    """A client_id is printable ASCII, so it may hold all that a query gives a meaning to."""
    hostile = "@a&b=c%20+d#e\"f'\\g"
    saying = Saying(partner, b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
    publish(tmp_path / "r", replace(bundle, client_id=hostile), [FileFormat.CURL])
    with saying as url:
        assert curl_status(tmp_path / "r/current/curl.conf", f"{url}/fleets?a=1") == "200"
    line = saying.got[0].decode().splitlines()[0]
    assert line.upper() == "GET /V3/FLEETS?A=1&CLIENT_ID=%40A%26B%3DC%2520%2BD%23E%22F%27%5CG HTTP/1.1"


@pytest.mark.parametrize("bad", ["a\nuser = x", "a\rb", "a\0b", "a\x7fb", "a\tb"])
def test_curl_config_has_no_control_chars(bad: str) -> None:
    for login, password, client_id in (("l", "planted" + bad, "c"), ("l", "p", "planted" + bad)):
        values = Values(login, client_id, {"password": Secret(password)})
        with pytest.raises(InputError) as caught:
            curl_config(Path("/tmp"), Authentication(), values)
        assert "planted" not in f"{caught.value}{caught.value.hint}"


def test_curl_config_follows_the_profile() -> None:
    values = Values("l", "c1", {"password": Secret("p")})
    text = curl_config(Path("/tmp"), Authentication((ClientId(header="X-IBM-Client-Id"),)), values)
    assert 'header = "X-IBM-Client-Id: c1"' in text
    assert "user" not in text.replace("--user", "")
    assert "client_id" not in curl_config(Path("/tmp"), Authentication((Basic(),)), values).split("\n", 1)[1]


@pytest.mark.parametrize("password", HOSTILE)
def test_a_shell_reads_env_as_it_was_written(tmp_path: Path, password: str) -> None:
    found = publish(tmp_path / 'it\'s "root"', paper(password=password), [FileFormat.ENV])
    ran = run("sh", "-c", '. "$1"; printf %s "$PARTNER_PASSWORD|$PARTNER_KEY"', "sh", found / "env")
    assert ran.stdout == f"{password}|{found / 'tls.key'}"
    assert not Path("planted").exists()


@pytest.mark.slow
@pytest.mark.peer("keytool")
def test_java_opens_the_key_stores(tmp_path: Path) -> None:
    found = publish(tmp_path / "r", paper(), [FileFormat.KEYSTORE, FileFormat.TRUSTSTORE])
    for name, kind in (("keystore.p12", "PrivateKeyEntry"), ("truststore.p12", "trustedCertEntry")):
        ran = run("keytool", "-list", "-keystore", found / name, "-storepass:file", found / "keystore.password")
        assert kind in ran.stdout, ran.stdout + ran.stderr


@pytest.mark.peer("openssl")
def test_openssl_reads_the_pem_files(tmp_path: Path) -> None:
    found = publish(tmp_path / "r", paper())
    assert run("openssl", "pkey", "-noout", "-in", found / "tls.key").returncode == 0
    for name in ("tls.crt", "ca.crt", "tls-combined.pem"):
        assert run("openssl", "x509", "-noout", "-in", found / name).returncode == 0


def test_default_files_are_always_rendered(tmp_path: Path) -> None:
    assert tuple(render(paper(), [], tmp_path)) == DEFAULT
    assert set(render(paper(), [FileFormat.ENV], tmp_path)) == {*DEFAULT, FileFormat.ENV}


def test_passphrase_is_for_key_stores_only(tmp_path: Path) -> None:
    assert FileFormat.PASSPHRASE not in render(paper(), [FileFormat.PASSPHRASE], tmp_path)
    first, second = (render(paper(), [FileFormat.TRUSTSTORE], tmp_path)[FileFormat.PASSPHRASE] for _ in range(2))
    assert first != second
    assert len(first.reveal()) >= 40


def test_formats_have_meaning_and_renderer(tmp_path: Path) -> None:
    for file in FileFormat:
        assert file.meaning
    with pytest.raises(InputError):
        render(replace(paper(), secrets={"password": Secret("\0")}), [FileFormat.ENV], tmp_path)
