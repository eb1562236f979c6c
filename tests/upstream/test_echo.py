"""A partner that repeats our secrets, in every form and place: no text that people read shows them."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from partner_standin import Standin

import broker.client
from broker.copies import replace
from broker.errors import BrokerError
from broker.model.authentication import PASSWORD
from broker.model.bundle import Bundle
from broker.model.secret import Secret
from broker.model.verdict import Verdict
from broker.partners.catalogue import builtin
from broker.upstream.canary import ask
from tests.support.credential_sets import credentials_of, publish
from tests.support.echoing import FORMS, ODD_PASSWORDS, PLACES, answer, repeated, traces
from tests.support.tls_server import Saying

pytestmark = pytest.mark.slow  # each waits for a cut connection

PROBE = builtin("stellantis").probe
PASSWORDS = st.one_of(
    st.sampled_from(ODD_PASSWORDS), st.text(st.characters(exclude_categories=("Cc", "Cs")), min_size=4, max_size=40)
)


class Echo:
    """A partner whose answer is built from the set that is tried."""

    def __init__(self, partner: Standin, bundle: Bundle) -> None:
        self._saying = Saying(partner, b"-")
        self._bundle = bundle

    def __enter__(self) -> Echo:
        self._bundle = replace(self._bundle, base_url=self._saying.__enter__())
        return self

    def __exit__(self, *_: object) -> None:
        self._saying.__exit__(None, None, None)

    def bundle(self, password: str) -> Bundle:
        return replace(self._bundle, secrets={PASSWORD: Secret(password)})

    def say(self, answer: bytes) -> None:
        self._saying.answer = answer


@pytest.fixture(scope="module")
def echo(partner_forever: Standin, bundle: Bundle) -> Iterator[Echo]:
    with Echo(partner_forever, bundle) as made:
        yield made


def everything(error: BaseException) -> str:
    """Return all that a logger takes of `error`: texts, arguments, fields, and the traceback with nothing behind it."""
    assert error.__context__ is None
    assert error.__cause__ is None
    return "".join(traceback.format_exception(error)) + f"{error!r} {error} {error.args} {vars(error)}"


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(PASSWORDS, st.sampled_from(sorted(FORMS)), st.sampled_from(["message", "page"]), st.integers(0, 330))
def test_the_canary_repeats_no_secret(echo: Echo, password: str, form: str, place: str, filling: int) -> None:
    credentials = credentials_of(echo.bundle(password))
    said = "a" * filling + " " + repeated(form, credentials)
    echo.say(PLACES[place](said.replace("<", "").encode() if place == "page" else said.encode()))
    answer = ask(credentials, PROBE)
    assert answer.verdict in (Verdict.LOGIN_REJECTED, Verdict.CLIENT_REJECTED, Verdict.PARTNER_DOWN)
    assert answer.detail.isprintable()
    assert traces(answer.detail, credentials) == []


def test_a_secret_across_the_cut_is_hidden(echo: Echo) -> None:
    """The message is cut to 300 characters: where in the secret that falls makes no difference."""
    credentials = credentials_of(echo.bundle("pl4nted-secret-pass"))
    for filling in range(270, 301):
        echo.say(PLACES["message"](b"%b pl4nted-secret-pass" % (b"a" * filling)))
        assert "pl4nted" not in ask(credentials, PROBE).detail


def test_hiding_changes_no_verdict(echo: Echo) -> None:
    """A password like a word of the message: what the partner means is read before anything is hidden."""
    credentials = credentials_of(echo.bundle("client id"))
    echo.say(PLACES["message"](b"client id unknown"))
    answer = ask(credentials, PROBE)
    assert (answer.verdict, answer.detail) == (Verdict.CLIENT_REJECTED, "HTTP 401, <hidden> unknown")


@pytest.mark.parametrize("place", PLACES)
def test_client_errors_repeat_no_secret(
    echo: Echo, tmp_path: Path, caplog: pytest.LogCaptureFixture, place: str
) -> None:
    caplog.set_level("INFO")
    publish(tmp_path / "r", echo.bundle("plänted-pass\\word+1 <&>"))
    with broker.client.open(tmp_path / "r") as session:
        credentials = broker.client.read(tmp_path / "r").credentials
        for form in ("raw", "html"):
            said = repeated(form, credentials).encode()
            echo.say(PLACES[place](said))
            for error in (raised(session, stream=False), raised(session, stream=True)):
                found = traces(everything(error), credentials) if error else []
                assert found == [], f"{place}, {form}: {error!r}"
    assert traces(caplog.text, credentials) == []
    assert credentials.client_id not in caplog.text


def raised(session: broker.client.Session, *, stream: bool) -> Exception | None:
    try:
        if stream:
            response = session.get("/fleets", stream=True)
            with response:
                list(response.iter_content(10))
                response.raise_for_status()
        else:
            list(session.pages("/fleets"))
    except (requests.RequestException, BrokerError) as error:
        return error
    return None


@pytest.mark.parametrize("charset", ["idna", "undefined", "hex", "no-such", "utf-7", "a\0b", "utf-8"])
def test_an_odd_charset_raises_nothing_else(echo: Echo, tmp_path: Path, charset: str) -> None:
    publish(tmp_path / "r", echo.bundle("plänted-password"))
    credentials = broker.client.read(tmp_path / "r").credentials
    body = b'{"a": "\xff' + credentials.headers()["Authorization"].encode()
    echo.say(answer(200, body, f"application/json; charset={charset}"))
    with broker.client.open(tmp_path / "r") as session:
        response = session.get("/fleets")
        assert response.text
        assert list(response.iter_lines(decode_unicode=True))
        with pytest.raises(requests.JSONDecodeError) as caught:
            response.json()
    assert traces(everything(caught.value), credentials) == []
