"""Tokens for mail servers: from a token endpoint, and from a program."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from broker.errors import BrokerError, InputError, MailUnavailableError, RefusedError
from broker.model.secret import Secret
from broker.people.login import WrongLoginError
from broker.people.oauth import TokenCommand, TokenEndpoint
from broker.people.server import MailTlsError
from tests.support.https_server import token_endpoint
from tests.support.scripted_server import Answer, misbehaving

SECRET = "cl1ent-pl4nted/+="
TOKEN = "eyJ0-token.pl4nted~x=="
ENVIRONMENT = {"PATH": "/usr/bin:/bin"}


def an_endpoint(url: str, ca_file: str = "") -> TokenEndpoint:
    return TokenEndpoint(f"{url}/oauth2/token?tenant=1", "the client", Secret(SECRET), "https://mail/.default", ca_file)


def answer(status: int, body: object) -> Answer:
    return Answer(status, body if isinstance(body, bytes) else json.dumps(body).encode())


def test_client_credentials_give_a_token(tmp_path: Path) -> None:
    with token_endpoint(tmp_path, {"access_token": TOKEN, "token_type": "Bearer"}) as (url, forms):
        endpoint = an_endpoint(url, str(tmp_path / "ca.crt"))
        assert endpoint.token().reveal() == TOKEN
        assert endpoint.token().reveal() == TOKEN
        assert (
            forms
            == [
                {
                    "grant_type": ["client_credentials"],
                    "client_id": ["the client"],
                    "client_secret": [SECRET],
                    "scope": ["https://mail/.default"],
                }
            ]
            * 2
        )
        with pytest.raises(MailTlsError, match="cannot be verified"):
            an_endpoint(url).token()
        assert len(forms) == 2


@pytest.mark.parametrize(
    ("given", "kind", "says"),
    [
        (answer(401, {"error": "invalid_client", "error_description": SECRET}), WrongLoginError, "invalid_client"),
        (answer(400, {"error": f"x {SECRET}"}), WrongLoginError, "it answered 400"),
        (answer(302, {}), WrongLoginError, "it answered 302"),
        (answer(429, {}), MailUnavailableError, "answered 429"),
        (answer(503, b"<html>"), MailUnavailableError, "answered 503"),
        (answer(200, b"<html>"), MailUnavailableError, "nothing that is a token"),
        (answer(200, b"[" * 5000), MailUnavailableError, "nothing that is a token"),
        (answer(200, {"access_token": "a\1auth=b"}), MailUnavailableError, "nothing that is a token"),
        (answer(200, {"access_token": ["a"]}), MailUnavailableError, "nothing that is a token"),
        (answer(200, b" " * 70_000), MailUnavailableError, "gave no usable answer"),
        (Answer(hang_up=True), MailUnavailableError, "closed the connection"),
    ],
)
def test_other_answers_are_explained(given: Answer, kind: type[BrokerError], says: str) -> None:
    with misbehaving(given) as server, pytest.raises(kind) as caught:
        an_endpoint(server.address).token()
    assert says in caught.value.message
    assert SECRET not in f"{caught.value!r} {caught.value.hint}"
    assert len(server.asked) == 1  # no redirect is followed


def test_no_secret_goes_unencrypted() -> None:
    with pytest.raises(InputError, match="unencrypted"):
        an_endpoint("http://login.example")


def test_no_address_answers() -> None:
    with pytest.raises(MailUnavailableError, match="cannot be reached"):
        an_endpoint("http://127.0.0.1:1").token()


def a_command(code: str, limit: float = 20) -> TokenCommand:
    return TokenCommand([sys.executable, "-c", code, SECRET], ENVIRONMENT, limit)


def test_a_program_prints_a_token() -> None:
    code = "import os, sys; assert sys.stdin.read() == ''; assert 'HOME' not in os.environ; print('a.b.c')"
    assert a_command(code).token().reveal() == "a.b.c"
    assert TokenCommand(["/bin/echo", "$HOME;x"], ENVIRONMENT).arguments == ["/bin/echo", "$HOME;x"]


@pytest.mark.parametrize(
    ("code", "kind", "says"),
    [
        ("raise SystemExit(f'{__import__(\"sys\").argv}')", RefusedError, "ended with exit code 1"),
        ("print('two words')", MailUnavailableError, "nothing that is a token"),
        ("pass", MailUnavailableError, "nothing that is a token"),
    ],
)
def test_a_program_that_fails_is_explained(code: str, kind: type[BrokerError], says: str) -> None:
    with pytest.raises(kind) as caught:
        a_command(code).token()
    assert says in caught.value.message
    assert SECRET not in f"{caught.value!r} {caught.value.hint}"


def test_a_program_that_hangs_is_killed() -> None:
    with pytest.raises(RefusedError, match="took longer"):
        a_command("import subprocess; subprocess.run(['sleep', '1000'])", 0.2).token()


def test_no_shell_reads_the_arguments() -> None:
    with pytest.raises(MailUnavailableError, match="nothing that is a token"):
        TokenCommand(["/bin/echo", "$(id)"], ENVIRONMENT).token()
    with pytest.raises(InputError, match="cannot run"):
        TokenCommand(["/nowhere/token; id"], ENVIRONMENT).token()
