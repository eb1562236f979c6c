"""Clients that know nothing of us, and how each fetches the fleets with files of a bundle: the catalogue of them.

`tests/e2e/test_clients.py` runs every row, and docs/reference/clients.md is made of the rows.
"""

from __future__ import annotations

import asyncio
import base64
import http.client
import json
import socket
import ssl
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import quote, urlsplit

import aiohttp
import httpx
import requests

from broker import client
from broker.delivery.formats import FileFormat

__all__ = ["COLUMNS", "REASONS", "STORES", "WAYS", "Published", "Way"]

PATH: Final = "/usr/bin:/bin:/usr/sbin:/sbin"
KEY, CERT, CA, BOTH = FileFormat.KEY, FileFormat.CERTIFICATE, FileFormat.TRUST, FileFormat.COMBINED
P12, TRUST = FileFormat.KEYSTORE, FileFormat.TRUSTSTORE
PAIR: Final = (CERT, KEY, CA)
ONE: Final = (BOTH, CA)
NODE: Final = """
const fs = require("fs"), https = require("https");
const [directory, url, cert, key, pfx] = process.argv.slice(1);
const read = name => fs.readFileSync(`${directory}/${name}`);
const set = pfx
  ? {pfx: read(pfx), passphrase: read("keystore.password").toString()}
  : {key: read(key), cert: read(cert)};
const target = new URL(url);
target.searchParams.set("client_id", read("client_id").toString());
const auth = `${read("username")}:${read("password")}`;
https.get(target, {...set, ca: read("ca.crt"), auth}, answer => answer.pipe(process.stdout));
"""
JAVA: Final = """
import java.io.*; import java.net.*; import java.net.http.*; import java.nio.file.*; import java.security.*;
import java.util.Base64; import javax.net.ssl.*;
class Fetch {
    public static void main(String[] args) throws Exception {
        Path at = Path.of(args[0]);
        char[] pass = Files.readString(at.resolve("keystore.password")).toCharArray();
        KeyStore keys = KeyStore.getInstance(args[2].endsWith("jks") ? "JKS" : "PKCS12");
        try (InputStream in = Files.newInputStream(at.resolve(args[2]))) { keys.load(in, pass); }
        KeyStore trust = KeyStore.getInstance("PKCS12");
        try (InputStream in = Files.newInputStream(at.resolve("truststore.p12"))) { trust.load(in, pass); }
        KeyManagerFactory k = KeyManagerFactory.getInstance("SunX509"); k.init(keys, pass);
        TrustManagerFactory t = TrustManagerFactory.getInstance("PKIX"); t.init(trust);
        SSLContext tls = SSLContext.getInstance("TLS"); tls.init(k.getKeyManagers(), t.getTrustManagers(), null);
        String pair = Files.readString(at.resolve("username")) + ":" + Files.readString(at.resolve("password"));
        HttpRequest request = HttpRequest.newBuilder(URI.create(args[1] + "?client_id="
                + URLEncoder.encode(Files.readString(at.resolve("client_id")), "UTF-8")))
            .header("Authorization", "Basic " + Base64.getEncoder().encodeToString(pair.getBytes("UTF-8"))).build();
        System.out.print(HttpClient.newBuilder().sslContext(tls).build()
            .send(request, HttpResponse.BodyHandlers.ofString()).body());
    }
}
"""
GO: Final = """
package main

import ("crypto/tls"; "crypto/x509"; "io"; "net/http"; "net/url"; "os"; "path/filepath")

func must[T any](value T, err error) T {
    if err != nil { panic(err) }
    return value
}

func main() {
    file := func(name string) string { return filepath.Join(os.Args[1], name) }
    read := func(name string) string { return string(must(os.ReadFile(file(name)))) }
    roots := x509.NewCertPool()
    roots.AppendCertsFromPEM([]byte(read("ca.crt")))
    pair := must(tls.LoadX509KeyPair(file(os.Args[3]), file(os.Args[4])))
    config := &tls.Config{Certificates: []tls.Certificate{pair}, RootCAs: roots}
    request := must(http.NewRequest("GET", os.Args[2] + "?client_id=" + url.QueryEscape(read("client_id")), nil))
    request.SetBasicAuth(read("username"), read("password"))
    client := &http.Client{Transport: &http.Transport{TLSClientConfig: config}}
    must(io.Copy(os.Stdout, must(client.Do(request)).Body))
}
"""
SHELL: Final = """
. "$1"
curl -q -sS --cert "$PARTNER_CERT" --key "$PARTNER_KEY" --cacert "$PARTNER_CA" \
    -u "$PARTNER_USERNAME:$PARTNER_PASSWORD" -G --data-urlencode "client_id=$PARTNER_CLIENT_ID" \
    "$PARTNER_BASE_URL/fleets"
"""


@dataclass(frozen=True, slots=True)
class Published:
    """A bundle's own directory, the address of the fleets, and a directory for what a client needs beside."""

    directory: Path
    fleets: str
    scratch: Path

    def read(self, file: FileFormat) -> str:
        """Return the text of a file."""
        return self.paths(file)[0].read_text(encoding="utf-8")

    def paths(self, *files: FileFormat) -> list[Path]:
        """Return where the files are."""
        return [self.directory / file.value for file in files]

    @property
    def login(self) -> tuple[str, str]:
        """Login and password."""
        return self.read(FileFormat.USERNAME), self.read(FileFormat.PASSWORD)

    @property
    def passphrase(self) -> str:
        """The passphrase of the key stores."""
        return self.read(FileFormat.PASSPHRASE)

    @property
    def basic(self) -> str:
        """The header of login and password."""
        return "Basic " + base64.b64encode(":".join(self.login).encode()).decode()

    @property
    def query(self) -> str:
        """The client_id, as a query."""
        return f"client_id={quote(self.read(FileFormat.CLIENT_ID), safe='')}"


@dataclass(frozen=True, slots=True)
class Way:
    """How a client fetches the fleets with some files of a bundle: `fetch` returns the body of the answer."""

    client: str
    files: tuple[FileFormat, ...]  # those that identify the client and verify the server
    fetch: Callable[[Published], bytes]
    programs: tuple[str, ...] = ()


def ran(*command: str | Path, data: str = "", **environment: str) -> bytes:
    """Run a program that must succeed, and return its output."""
    environment = {"PATH": PATH, **environment}
    done = subprocess.run(command, input=data.encode(), capture_output=True, env=environment, timeout=200, check=False)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


def _curl(at: Published, **options: FileFormat | str) -> bytes:
    """Call curl with options from its standard input, out of sight of other users."""
    values = {name: str(at.directory / v.value) if isinstance(v, FileFormat) else v for name, v in options.items()}
    lines = {"cacert": str(at.directory / CA.value), "user": ":".join(at.login), **values}.items()
    config = "\n".join(f"{name.replace('_', '-')} = {json.dumps(v, ensure_ascii=False)}" for name, v in lines)
    return ran("curl", "-q", "-sS", "-K", "-", f"{at.fleets}?{at.query}", data=config)


def _wget(at: Published, cert: FileFormat, key: FileFormat) -> bytes:
    login, password = at.login
    (at.scratch / ".wgetrc").write_text(f"http_user={login}\nhttp_password={password}\n", encoding="utf-8")
    cert_, key_, ca = at.paths(cert, key, CA)
    return ran(
        "wget", "-qO-", "--auth-no-challenge", f"--certificate={cert_}", f"--private-key={key_}",
        f"--ca-certificate={ca}", f"{at.fleets}?{at.query}", HOME=str(at.scratch),
    )  # fmt: skip


def _openssl(at: Published, cert: FileFormat, key: FileFormat) -> bytes:
    """Send a request through `openssl s_client`, and return the body of the answer."""
    url = urlsplit(at.fleets)
    lines = (f"GET {url.path}?{at.query} HTTP/1.0", f"Host: {url.netloc}", f"Authorization: {at.basic}", "", "")
    cert_, key_, ca, passphrase = at.paths(cert, key, CA, FileFormat.PASSPHRASE)
    answer = ran(
        "openssl", "s_client", "-quiet", "-verify_quiet", "-verify_return_error", "-connect", url.netloc,
        "-CAfile", ca, "-cert", cert_, "-key", key_, "-pass", f"file:{passphrase}",
        data="\r\n".join(lines),
    )  # fmt: skip
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b" 200 " in head.splitlines()[0], head
    return body


def _requests(at: Published, *files: FileFormat) -> bytes:
    paths = [str(path) for path in at.paths(*files)]
    with requests.Session() as session:
        session.trust_env = False
        session.verify, session.headers["Authorization"] = str(at.directory / CA.value), at.basic
        session.cert = (paths[0], paths[1]) if len(paths) > 1 else paths[0]
        return session.get(f"{at.fleets}?{at.query}").content


def _context(at: Published, *files: FileFormat) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=at.directory / CA.value)
    cert, *key = at.paths(*files)
    context.load_cert_chain(cert, key[0] if key else None)
    return context


def _httpx(at: Published, *files: FileFormat) -> bytes:
    with httpx.Client(verify=_context(at, *files), auth=at.login, trust_env=False) as session:
        return session.get(f"{at.fleets}?{at.query}").content


def _aiohttp(at: Published, *files: FileFormat) -> bytes:
    async def fetched() -> bytes:
        async with (
            aiohttp.ClientSession(headers={"Authorization": at.basic}) as session,
            session.get(f"{at.fleets}?{at.query}", ssl=_context(at, *files)) as answer,
        ):
            return await answer.read()

    return asyncio.run(fetched())


def _session(at: Published) -> bytes:
    with client.open(at.directory.parent) as session:
        return session.get("/fleets").content


def _node(at: Published, *names: str) -> bytes:
    return ran("node", "-e", NODE, "--", at.directory, at.fleets, *names)


def _java(at: Published, store: str) -> bytes:
    (at.scratch / "Fetch.java").write_text(JAVA)
    return ran("java", at.scratch / "Fetch.java", at.directory, at.fleets, store)


def _go(at: Published, cert: FileFormat, key: FileFormat) -> bytes:
    source, program = at.scratch / "fetch.go", at.scratch / "fetch"
    if not program.exists():
        source.write_text(GO)
        ran("go", "build", "-o", program, source, GOCACHE=str(at.scratch / "go"), HOME=str(at.scratch))
    return ran(program, at.directory, at.fleets, cert.value, key.value)


def _nginx(at: Published, cert: FileFormat, key: FileFormat) -> bytes:
    """Fetch over plain HTTP from an nginx that adds certificate, login and client_id."""
    url, (cert_, key_, ca) = urlsplit(at.fleets), at.paths(cert, key, CA)
    unused = "".join(f"{kind}_temp_path {at.scratch};" for kind in ("client_body", "fastcgi", "uwsgi", "scgi", "proxy"))
    config = at.scratch / "nginx.conf"
    config.write_text(f"""
        daemon off; master_process off; pid {at.scratch}/nginx.pid; events {{}}
        http {{
            access_log off; {unused}
            server {{
                listen unix:{at.scratch}/nginx.sock;
                location /fleets {{
                    proxy_pass https://{url.netloc}{url.path};
                    proxy_ssl_certificate {cert_}; proxy_ssl_certificate_key {key_};
                    proxy_ssl_trusted_certificate {ca}; proxy_ssl_verify on; proxy_ssl_name localhost;
                    proxy_set_header Authorization "{at.basic}"; proxy_set_header Host {url.netloc};
                    set $args {at.query};
                }}
            }}
        }}""")
    with _running("nginx", "-c", config, "-e", "stderr"), _unix(at.scratch / "nginx.sock") as connection:
        connection.request("GET", "/fleets")
        return connection.getresponse().read()


@contextmanager
def _running(*command: str | Path) -> Iterator[None]:
    with subprocess.Popen(command, env={"PATH": PATH}) as process:
        try:
            yield
        finally:
            process.terminate()


@contextmanager
def _unix(path: Path, patience: float = 20.0) -> Iterator[http.client.HTTPConnection]:
    """Lend an HTTP connection to the unix socket at `path`, once a server listens there."""
    until = time.monotonic() + patience
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as channel:
        while channel.connect_ex(str(path)):
            assert time.monotonic() < until
            time.sleep(0.01)
        connection = http.client.HTTPConnection("localhost")
        connection.sock = channel
        yield connection


def _env(at: Published) -> bytes:
    return ran("sh", "-ec", SHELL, "sh", at.directory / "env")


def _conf(at: Published) -> bytes:
    return ran("curl", "-q", "-sS", "-K", at.directory / "curl.conf", at.fleets)


def jks(at: Published) -> bytes:
    """Fetch with a JKS that keytool made, which Java programs of old want."""
    return _java(at, "keystore.jks")


STORES: Final = (P12, TRUST, FileFormat.CURL, FileFormat.ENV)  # asked for beside the default files
COLUMNS: Final = {  # of the reference page
    "`tls.crt` and `tls.key`": (CERT, KEY),
    "`tls-combined.pem`": (BOTH,),
    "`keystore.p12`": (P12,),
    "`ca.crt`": (CA,),
    "`truststore.p12`": (TRUST,),
    "`curl.conf`": (FileFormat.CURL,),
    "`env`": (FileFormat.ENV,),
}
REASONS: Final = {  # why a client reads no more than that
    "curl": "its CAs are PEM",
    "wget": "GnuTLS's wget reads PEM",
    "openssl s_client": "its CAs are PEM",
    "Python: broker.client": "one file is never of two generations",
    "Python: requests": "Python's `ssl` reads PEM",
    "Python: httpx": "Python's `ssl` reads PEM",
    "Python: aiohttp": "Python's `ssl` reads PEM",
    "Node": "its `ca` is PEM",
    "Java": "PEM takes code of one's own",
    "Go": "its standard library reads PEM",
    "nginx, as a proxy": "it reads PEM",
}
WAYS: Final = (
    Way("curl", PAIR, lambda at: _curl(at, cert=CERT, key=KEY), ("curl",)),
    Way("curl", ONE, lambda at: _curl(at, cert=BOTH), ("curl",)),
    Way("curl", (P12, CA), lambda at: _curl(at, cert=P12, cert_type="P12", **{"pass": at.passphrase}), ("curl",)),
    Way("curl", (FileFormat.CURL,), _conf, ("curl",)),
    Way("curl", (FileFormat.ENV,), _env, ("curl",)),
    Way("wget", PAIR, lambda at: _wget(at, CERT, KEY), ("wget",)),
    Way("wget", ONE, lambda at: _wget(at, BOTH, BOTH), ("wget",)),
    Way("openssl s_client", PAIR, lambda at: _openssl(at, CERT, KEY), ("openssl",)),
    Way("openssl s_client", ONE, lambda at: _openssl(at, BOTH, BOTH), ("openssl",)),
    Way("openssl s_client", (P12, CA), lambda at: _openssl(at, P12, P12), ("openssl",)),
    Way("Python: broker.client", ONE, _session),
    Way("Python: requests", PAIR, lambda at: _requests(at, CERT, KEY)),
    Way("Python: requests", ONE, lambda at: _requests(at, BOTH)),
    Way("Python: httpx", PAIR, lambda at: _httpx(at, CERT, KEY)),
    Way("Python: httpx", ONE, lambda at: _httpx(at, BOTH)),
    Way("Python: aiohttp", PAIR, lambda at: _aiohttp(at, CERT, KEY)),
    Way("Python: aiohttp", ONE, lambda at: _aiohttp(at, BOTH)),
    Way("Node", PAIR, lambda at: _node(at, "tls.crt", "tls.key"), ("node",)),
    Way("Node", ONE, lambda at: _node(at, "tls-combined.pem", "tls-combined.pem"), ("node",)),
    Way("Node", (P12, CA), lambda at: _node(at, "", "", "keystore.p12"), ("node",)),
    Way("Java", (P12, TRUST), lambda at: _java(at, "keystore.p12"), ("java",)),
    Way("Go", PAIR, lambda at: _go(at, CERT, KEY), ("go",)),
    Way("Go", ONE, lambda at: _go(at, BOTH, BOTH), ("go",)),
    Way("nginx, as a proxy", PAIR, lambda at: _nginx(at, CERT, KEY), ("nginx",)),
    Way("nginx, as a proxy", ONE, lambda at: _nginx(at, BOTH, BOTH), ("nginx",)),
)
