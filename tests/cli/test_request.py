"""`broker request`: signed requests to the stand-in, with a bundle of a real service."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import Mock

import pytest
from partner_standin import Standin

from broker.cli import request
from broker.copies import replace
from broker.errors import DeniedError, VaultUnavailableError
from broker.issuing.batch_issuer import Issued
from broker.model.bundle import Bundle, Wanted
from broker.model.lease import Caller, Lease
from broker.model.secret import Secret
from broker.service.answers import Contents
from broker.signals import AskedToEnd
from broker.upstream import exchange
from tests.cli.test_exec import Live
from tests.fetching.test_service import served
from tests.service.test_app import READER
from tests.support.console import inside
from tests.support.credential_sets import LOGIN, PASSWORD, bundle_of
from tests.support.ended import Ended

pytestmark = pytest.mark.slow


class Partners(Live):
    """Bundles that work at the stand-in."""

    bundle: Bundle
    silent = False

    async def grant(self, caller: Caller, wanted: Wanted) -> Issued[Contents]:
        self._note(caller)
        self.wanted.append(wanted)
        lease = self._lease(wanted.ttl)
        bundle = replace(self.bundle, application="fleet", lease_id=lease.id, expires=lease.expires)
        return Issued(Contents(bundle), READER, lease, Secret("lease-text"))

    async def revoke(self, caller: Caller, lease_text: Secret[str]) -> Lease:
        if self.silent:
            raise VaultUnavailableError("no answer")
        return await super().revoke(caller, lease_text)


class Shell:
    """A directory with a token, and the environment for the service."""

    def __init__(self, bundles: Partners, partner: Standin, address: str, home: Path) -> None:
        self.bundles, self.partner, self.home = bundles, partner, home
        (home / "token").write_text("s.token")
        (home / "token").chmod(0o600)
        self.environment = {"BROKER_ADDR": address, "BROKER_AUTH": "token-file:token", "HOME": str(home)}

    def request(self, *words: str, typed: bytes = b"") -> Ended:
        ended = inside(["request", "mzp-1/fleet", *words], home=self.home, environment=self.environment, input=typed)
        assert PASSWORD not in ended.out + ended.err
        return ended

    def json(self, *words: str) -> list[dict[str, object]]:
        ended = self.request(*words, "-o", "json")
        assert ended.code == 0, ended
        found: list[dict[str, object]] = ended.json
        return found

    def assert_given_back(self) -> None:
        assert self.bundles.texts == ["lease-text"] * len(self.bundles.wanted)
        assert sorted(path.name for path in self.home.rglob("*")) == ["token"], "nothing is on the disk"


@pytest.fixture(scope="module")
def partner(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Standin]:
    with Standin(tmp_path_factory.mktemp("partner"), accounts={LOGIN: PASSWORD}) as running:
        yield running


@pytest.fixture(scope="module")
def usable(partner: Standin) -> Bundle:
    return bundle_of(partner)


@pytest.fixture
def shell(partner: Standin, usable: Bundle, tmp_path: Path) -> Iterator[Shell]:
    bundles = Partners()
    bundles.bundle = usable
    partner.faults.clear()
    partner.log.clear()
    with served(bundles) as address:
        yield Shell(bundles, partner, address, tmp_path)
    partner.faults.clear()


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(request, "sys", SimpleNamespace(stdout=SimpleNamespace(isatty=lambda: True)))


def test_body_is_printed_as_it_is(shell: Shell) -> None:
    ended = shell.request("GET", "/fleets?pageSize=1")
    assert ended.code == 0, ended
    assert ended.json["_links"]["self"]
    assert "\n" not in ended.out.strip()
    assert "quota left: " in ended.err
    assert "for the day" in ended.err
    shell.assert_given_back()


def test_pages_are_followed_to_the_end(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = shell.json("GET", "/fleets", "--all")
    connected = Mock(wraps=exchange._opened)
    monkeypatch.setattr(exchange, "_opened", connected)
    assert shell.json("GET", "/fleets?pageSize=1", "--all") == whole
    assert len(whole) > 1
    assert connected.call_count == 1, "one connection for all pages"
    shell.partner.faults.set("echo-client-id")
    bodies = shell.request("GET", "/fleets?pageSize=1", "--all").out
    assert [json.loads(line)["totalPage"] for line in bodies.splitlines()] == [len(whole)] * len(whole)
    assert str(shell.bundles.bundle.client_id) not in bodies
    shell.assert_given_back()


def test_a_table_has_the_plain_values(shell: Shell) -> None:
    found = shell.json("GET", "/fleets", "--all")
    lines = shell.request("GET", "/fleets", "--all", "-o", "table").out.splitlines()
    assert len(lines) == len(found) + 1
    assert str(found[0]["id"]) in lines[1]
    assert "_LINKS" not in lines[0]
    assert "id" in shell.request("GET", f"/fleets/{found[0]['id']}", "-o", "table").out


@pytest.mark.parametrize(
    ("fault", "code", "verdict"),
    [
        ("certificate-alert", 6, "certificate_rejected"),
        ("login-rejected", 6, "login_rejected"),
        ("client-rejected", 6, "client_rejected"),
        ("wrong-ca", 6, "wrong_ca"),
        ("quota-day", 4, "quota"),
        ("status-503", 4, "partner_down"),
        ("closed-at-once", 4, "partner_down"),
    ],
)
def test_exit_code_is_the_partners_answer(shell: Shell, fault: str, code: int, verdict: str) -> None:
    shell.partner.faults.set(fault)
    ended = shell.request("GET", "/fleets", "-o", "json")
    assert (ended.code, ended.json["verdict"]) == (code, verdict)
    assert ended.json["hint"]
    shell.assert_given_back()


def test_unknown_path_is_an_unknown_name(shell: Shell) -> None:
    ended = shell.request("GET", "/fleets/none", "-i")
    assert (ended.code, ended.out.partition("\n")[0]) == (2, "HTTP 404")
    assert "the partner has nothing at this path: HTTP 404" in ended.err


@pytest.mark.parametrize(
    "path", ["https://elsewhere.example/fleets", "//elsewhere.example/", "/../admin", "/%2e%2e/x", "fleets", "/a#b", ""]
)
def test_other_places_are_refused(shell: Shell, path: str) -> None:
    assert shell.request("GET", path).code == 6
    assert not shell.bundles.wanted


@pytest.mark.parametrize(
    "words",
    [
        ("POST", "/fleets/1/monitors"),  # asks, and stdin is no terminal
        ("POST", "/fleets", "--all", "--yes"),
        ("GET", "/fleets", "--body", "token"),
        ("POST", "/fleets", "--content-type", "text/plain", "--yes"),
        ("POST", "/fleets", "--body", "missing", "--yes"),
        ("GET", "/fleets", "--timeout", "soon"),
        ("GET", "/fleets", "--accept", "text/plain\r\nX-More: 1"),
        ("POST", "/fleets", "--body", "-", "--content-type", "text/plain\nX-More: 1", "--yes"),
        ("BREW", "/fleets"),
    ],
)
def test_bad_lines_make_no_call(shell: Shell, words: tuple[str, ...]) -> None:
    assert shell.request(*words).code == 2
    assert not shell.bundles.wanted


def test_a_write_sends_the_body(shell: Shell) -> None:
    fleet = shell.json("GET", "/fleets", "--all")[0]["id"]
    path = f"/fleets/{fleet}/monitors"
    assert shell.request("POST", path, "--body", "-", "--yes", typed=b"{").code == 6, "the partner cannot read it"
    body = json.dumps({"label": "here", "subscribeParam": {}}).encode()
    ended = shell.request("POST", path, "--body", "-", "--yes", typed=body)
    assert ended.code == 0, ended
    assert [entry.status for entry in shell.partner.log.entries() if entry.method == "POST"] == [400, 202]
    shell.assert_given_back()


def test_head_shows_headers(shell: Shell) -> None:
    lines = shell.request("HEAD", "/fleets").out.splitlines()
    assert lines[0].startswith("HTTP ")


def test_other_media_type_can_be_asked_for(shell: Shell) -> None:
    fleet = shell.json("GET", "/fleets", "--all")[0]["id"]
    vehicle = shell.json("GET", f"/fleets/{fleet}/vehicles", "--all")[0]["id"]
    path = f"/fleets/{fleet}/vehicles/{vehicle}/lastPosition"
    assert shell.request("GET", path).code == 6
    assert shell.request("GET", path, "--accept", "application/vnd.geo+json").json["type"] == "Feature"


@pytest.mark.usefixtures("terminal")
def test_terminal_gets_indented_json(shell: Shell) -> None:
    assert shell.request("GET", "/fleets").out.startswith("{\n  ")
    shell.partner.faults.set("not-json")
    assert shell.request("GET", "/fleets").code == 0


def test_interrupted_call_gives_the_lease_back(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise AskedToEnd(2)

    monkeypatch.setattr("broker.upstream.call.asked", interrupted)
    assert shell.request("GET", "/fleets").code == 130
    shell.assert_given_back()


def test_lease_that_stays_is_reported(shell: Shell) -> None:
    shell.bundles.silent = True
    ended = shell.request("GET", "/fleets")
    assert ended.code == 0
    assert "the lease was not given back" in ended.err


@pytest.mark.slow
def test_slow_partner_is_cut(shell: Shell) -> None:
    shell.partner.faults.set("handshake-stall", "5s")
    ended = shell.request("GET", "/fleets", "--timeout", "1s")
    assert ended.code == 4
    assert "no answer in time" in ended.err


def test_without_a_right_nothing_is_sent(shell: Shell) -> None:
    shell.bundles.error = DeniedError("no right")
    assert shell.request("GET", "/fleets").code == 5
    assert not shell.partner.log.entries()
