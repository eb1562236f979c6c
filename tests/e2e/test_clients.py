"""Programs that know nothing of us fetch the fleets with what `broker bundle get` publishes."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from partner_standin import Standin

from broker import client
from broker.embedded.up import Embedded
from broker.vault.connection import Connection
from tests.support.system import LOGIN, PASSWORD, System, made_system
from tests.support.vault import mounted

pytestmark = pytest.mark.slow

NODE = """
const fs = require("fs"), https = require("https");
const [directory, url] = process.argv.slice(1);
const read = name => fs.readFileSync(`${directory}/${name}`);
const set = process.env.SET === "p12"
  ? {pfx: read("keystore.p12"), passphrase: read("keystore.password").toString()}
  : {key: read("tls.key"), cert: read("tls.crt")};
const target = new URL(url);
target.searchParams.set("client_id", read("client_id").toString());
const auth = `${read("username")}:${read("password")}`;
https.get(target, {...set, ca: read("ca.crt"), auth}, answer => answer.pipe(process.stdout));
"""
JAVA = """
import java.io.*; import java.net.*; import java.net.http.*; import java.nio.file.*; import java.security.*;
import java.util.Base64; import javax.net.ssl.*;
class Fetch {
    public static void main(String[] args) throws Exception {
        Path at = Path.of(args[0]);
        char[] pass = Files.readString(at.resolve("keystore.password")).toCharArray();
        KeyStore trust = KeyStore.getInstance("PKCS12");
        try (InputStream in = Files.newInputStream(at.resolve("truststore.p12"))) { trust.load(in, pass); }
        TrustManagerFactory t = TrustManagerFactory.getInstance("PKIX"); t.init(trust);
        String pair = Files.readString(at.resolve("username")) + ":" + Files.readString(at.resolve("password"));
        HttpRequest request = HttpRequest.newBuilder(URI.create(args[1] + "?client_id="
                + URLEncoder.encode(Files.readString(at.resolve("client_id")), "UTF-8")))
            .header("Authorization", "Basic " + Base64.getEncoder().encodeToString(pair.getBytes("UTF-8"))).build();
        for (int i = 2; i < args.length; i++) {  // each store alone must do; the last answer is printed
            KeyStore keys = KeyStore.getInstance(args[i].endsWith("jks") ? "JKS" : "PKCS12");
            try (InputStream in = new FileInputStream(args[i])) { keys.load(in, pass); }
            KeyManagerFactory k = KeyManagerFactory.getInstance("SunX509"); k.init(keys, pass);
            SSLContext tls = SSLContext.getInstance("TLS");
            tls.init(k.getKeyManagers(), t.getTrustManagers(), null);
            HttpResponse<String> answer = HttpClient.newBuilder().sslContext(tls).build()
                .send(request, HttpResponse.BodyHandlers.ofString());
            if (answer.statusCode() != 200) throw new Exception(args[i] + ": " + answer.statusCode());
            if (i == args.length - 1) System.out.print(answer.body());
        }
    }
}
"""


@dataclass(frozen=True, slots=True)
class Published:
    """A bundle in its own directory, and the address of the fleets."""

    directory: Path
    root: Path
    fleets: str


@pytest.fixture(scope="module")
def promoted(vault_server: tuple[Embedded, Connection], tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """A system with a current generation, for all programs of this module."""
    with (
        Standin(tmp_path_factory.mktemp("partner"), accounts={LOGIN: PASSWORD}) as partner,
        mounted(vault_server) as vault,
        made_system(vault, partner) as system,
    ):
        system.promoted()
        yield system


def publish(system: System, name: str, *formats: str) -> Published:
    token = system.consumer("acme/reporting", name=f"reader-of-{name}")
    root = system.home / name
    options = [part for name in formats for part in ("--format", name)]
    system.ok("bundle", "get", "acme/reporting", "--consumer-token-file", str(token), "--to", str(root), *options)
    return Published((root / "current").resolve(), root, f"{system.partner.api_url}/fleets")


@pytest.fixture
def published(promoted: System, request: pytest.FixtureRequest) -> Iterator[Published]:
    name = f"bundle-{abs(hash(request.node.name))}"
    yield publish(promoted, name, "keystore.p12", "truststore.p12", "curl.conf", "env")
    assert promoted.partner.crashes == ()


def assert_fetched(*command: str | Path, **environment: str) -> None:
    done = subprocess.run(
        command, capture_output=True, env={"PATH": "/usr/bin:/bin", **environment}, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr.decode()
    assert json.loads(done.stdout)["_embedded"]["fleets"]


@pytest.mark.peer("curl")
def test_curl_by_its_config_alone(published: Published) -> None:
    assert_fetched("curl", "-sS", "-K", published.directory / "curl.conf", published.fleets)


@pytest.mark.peer("curl")
def test_curl_by_the_combined_pem(published: Published) -> None:
    at = published.directory
    user = f"{(at / 'username').read_text()}:{(at / 'password').read_text()}"
    assert_fetched(
        "curl", "-sS", "--cert", at / "tls-combined.pem", "--cacert", at / "ca.crt", "-u", user, "-G", published.fleets,
        "--data-urlencode", f"client_id@{at / 'client_id'}",
    )  # fmt: skip


@pytest.mark.peer("curl")
def test_a_shell_by_the_env_file(published: Published) -> None:
    at = published.directory
    script = f". {at}/env && curl -sS -K {at}/curl.conf {published.fleets}"
    assert_fetched("sh", "-c", script)


@pytest.mark.peer("wget")
def test_wget(published: Published) -> None:
    at = published.directory
    home = published.root.parent
    (home / ".wgetrc").write_text(
        f"http_user={(at / 'username').read_text()}\nhttp_password={(at / 'password').read_text()}\n"
    )
    url = f"{published.fleets}?client_id={(at / 'client_id').read_text()}"
    assert_fetched(
        "wget", "-qO-", "--auth-no-challenge", f"--certificate={at / 'tls.crt'}", f"--private-key={at / 'tls.key'}",
        f"--ca-certificate={at / 'ca.crt'}", url, HOME=str(home),
    )  # fmt: skip


@pytest.mark.peer("node")
@pytest.mark.parametrize("kind", ["pem", "p12"])
def test_node(published: Published, kind: str) -> None:
    assert_fetched("node", "-e", NODE, "--", published.directory, published.fleets, SET=kind)


@pytest.mark.peer("java")
@pytest.mark.peer("keytool")
def test_java_by_key_stores(published: Published, promoted: System, tmp_path: Path) -> None:
    """By PKCS#12, and by the JKS of the keytool command that `bundle get --format keystore.jks` prints."""
    refused = promoted.run(
        "bundle", "get", "acme/reporting", "--consumer-token-file", "none", "--format", "keystore.jks"
    )
    assert refused.code == 2
    conversion = re.search(r"keytool -importkeystore .*", refused.err)
    assert conversion
    command = conversion.group().replace("DIR", str(published.root))
    subprocess.run(["sh", "-ec", command], cwd=tmp_path, check=True, capture_output=True)
    (tmp_path / "Fetch.java").write_text(JAVA)
    stores = (published.directory / "keystore.p12", tmp_path / "keystore.jks")
    assert_fetched("java", tmp_path / "Fetch.java", published.directory, published.fleets, *stores)


def test_session_pages_to_the_end_of_a_fleet(published: Published) -> None:
    with client.open(published.root) as session:
        fleet = session.get("/fleets").json()["_embedded"]["fleets"][0]
        pages = list(session.pages(f"/fleets/{fleet['id']}/vehicles"))
    assert sum(len(page["_embedded"]["vehicles"]) for page in pages) == fleet["vehicles"]
