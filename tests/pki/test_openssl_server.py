"""The findings about each kind of certificate are compared with what a real OpenSSL server does."""

from __future__ import annotations

import re
import socket
import ssl
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from broker.pki import keys
from tests.pki.inputs import INPUTS, Chain, Input, findings_of, root
from tests.support import pki
from tests.support.depth import sampled

Servers = Callable[[Input], int]


@contextmanager
def a_server(folder: Path, trusted: str, level: int) -> Iterator[int]:
    """Run `openssl s_server`, which requires a client certificate under `trusted`; yield its port."""
    file, roots = folder / "server.pem", folder / "roots.pem"
    key = pki.a_key("server")
    file.write_bytes(keys.pem(pki.secret_of(key)).reveal() + pki.pem(pki.a_leaf(root(), key)).encode())
    roots.write_text(trusted)
    command = ["openssl", "s_server", "-accept", "127.0.0.1:0", "-www", "-cert", str(file), "-CAfile", str(roots)]
    command += ["-Verify", "5", "-verify_return_error", "-attime", f"{pki.NOW:%s}", "-cipher", f"ALL:@SECLEVEL={level}"]
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as server:
        assert server.stdout
        try:
            lines = (re.match(rb"ACCEPT 127\.0\.0\.1:(\d+)", line) for line in server.stdout)
            yield next(int(found[1]) for found in lines if found)
        finally:
            server.kill()


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    """The port of the server for an input: one for each root and level, which stays."""
    with ExitStack() as running:
        ports: dict[tuple[str, int], int] = {}

        def port_of(one: Input) -> int:
            wanted = ((one.trusted or root)().pem, one.level)
            if wanted not in ports:
                ports[wanted] = running.enter_context(a_server(tmp_path_factory.mktemp("server"), *wanted))
            return ports[wanted]

        yield port_of


def accepts(folder: Path, chain: Chain, port: int) -> bool:
    """Return whether a real server accepts a client with this chain."""
    shown = folder / "client.pem"
    shown.write_text(pki.pem(*chain))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.load_cert_chain(shown, pki.key_file(folder))
    with socket.create_connection(("127.0.0.1", port), 5) as raw:
        try:
            with context.wrap_socket(raw) as secured:
                secured.sendall(b"GET / HTTP/1.0\r\n\r\n")
                return secured.recv(20).startswith(b"HTTP/1.0 200")
        except ssl.SSLError as error:
            if re.search("ALERT|EOF", error.reason or ""):
                return False
            raise


def codes_of(chain: Chain, trusted: pki.Ca) -> str:
    """Return the findings about the chain, as the table of inputs has them."""
    said = findings_of(chain, trusted)
    assert all(f.message.isprintable() and (f.hint or f.severity.value == "note") for f in said)
    return ", ".join(f"{f.severity.value} {f.code.removeprefix('certificate.')}" for f in said)


@pytest.mark.peer("openssl")
@pytest.mark.parametrize("name", sampled(INPUTS, every=4, rest=pytest.mark.slow))
def test_each_input_is_judged(name: str, servers: Servers, tmp_path: Path) -> None:
    one = INPUTS[name]
    chain = one.chain()
    assert codes_of(chain, (one.trusted or root)()) == one.findings
    if one.accepted is not None:
        assert accepts(tmp_path, chain, servers(one)) is one.accepted


def test_a_tiny_ca_key_is_refused() -> None:
    """RSA of 512 bits is factored in hours; refused if it is pinned too."""
    chain = INPUTS["CA, RSA 512"].chain()
    tiny = pki.Ca(chain[1], pki.a_tiny_key())
    assert codes_of(chain[:1], tiny) == "error ca.weak-key"


@pytest.mark.slow
@pytest.mark.peer("openssl")
@pytest.mark.parametrize("name", [n for n, one in INPUTS.items() if one.accepted is not None])
def test_openssl_verify_agrees(name: str, tmp_path: Path) -> None:
    """The command, with the purpose that a server has for its clients, gives the server's answer."""
    one = INPUTS[name]
    leaf, *others = one.chain()
    (tmp_path / "leaf").write_text(pki.pem(leaf))
    (tmp_path / "others").write_text(pki.pem(*others))
    (tmp_path / "root").write_text((one.trusted or root)().pem)
    command = ["openssl", "verify", "-purpose", "sslclient", "-attime", f"{pki.NOW:%s}", "-auth_level", str(one.level)]
    command += ["-CAfile", "root", *(["-untrusted", "others"] if others else []), "leaf"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, check=False)
    assert (done.returncode == 0) is one.accepted, done.stderr


@pytest.mark.parametrize("name", [n for n, one in INPUTS.items() if one.accepted is False])
def test_what_servers_refuse_is_reported(name: str) -> None:
    assert INPUTS[name].findings


def test_an_error_not_of_openssl_is_a_rule() -> None:
    """Only these are refused though a server accepts them; all else that OpenSSL accepts is at most a warning."""
    ours = {n for n, one in INPUTS.items() if one.accepted and "error" in one.findings}
    assert ours == {
        "leaf, CA:TRUE",
        "leaf, version 1",
        "leaf, version 1 with extensions, CA:TRUE",
        "CA, RSA with the ROCA fault",
        "CA, RSA of two close primes",
        "CA, RSA with a small factor",
        "CA, DSA",
    }
