"""Tokens for JWTs: used again for a while, revoked when nothing uses them, one exchange at a time."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, cast

import pytest

from broker.errors import DeniedError, PartlyUnavailableError, VaultUnavailableError
from broker.model.jwt_issuer import JwtIssuer
from broker.model.secret import Secret
from broker.vault.connection import Connection
from broker.vault.errors import InvalidError, PassingError
from broker.vault.exchange import Exchange
from tests.support.issuer import AUDIENCE, Issuer

CI = Issuer("https://ci.example")
ISSUERS = {"ci": JwtIssuer(CI.name, AUDIENCE, "jwt-ci")}


@dataclass
class Vault:
    """A Vault that counts logins and revocations; tokens are numbered."""

    uptime: float = 0.0
    logins: list[dict[str, Any]] = field(default_factory=list)
    revoked: list[str] = field(default_factory=list)
    error: Exception | None = None
    sealed: bool = False
    down: bool = False
    slowness: float = 0.0  # seconds of a login
    revoke_error: Exception | None = None
    go_on: threading.Event = field(default_factory=threading.Event)
    go_on_revoking: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self.go_on.set()
        self.go_on_revoking.set()
        self.exchange = Exchange(lambda: cast("Connection", self), ISSUERS, lambda: self.uptime)

    def revoke(self, token: Secret[str]) -> None:
        assert self.go_on_revoking.wait(30)
        self.revoked.append(token.reveal())
        if self.revoke_error:
            raise self.revoke_error

    def ask(self, _method: str, path: str, body: Any = None) -> Any:
        if path == "sys/seal-status":
            if self.down:
                raise PassingError("not reached")
            return {"sealed": self.sealed}
        self.logins.append({"path": path, **body})
        assert self.go_on.wait(30)
        self.uptime += self.slowness
        if self.error:
            raise self.error
        return {"auth": {"client_token": f"t{len(self.logins)}", "lease_duration": 120, "renewable": True}}

    def token(self, jwt: str) -> str:
        return self.exchange.token(Secret(jwt)).reveal()


def test_a_token_is_used_again_for_a_minute() -> None:
    vault, jwt = Vault(), CI.jwt("job")
    assert [vault.token(jwt), vault.token(jwt), vault.token(CI.jwt("job", jti="2"))] == ["t1", "t1", "t2"]
    vault.uptime = 59.0
    assert vault.token(jwt) == "t1"
    vault.uptime = 60.0
    assert vault.token(jwt) == "t3"


def test_the_role_is_ours() -> None:
    vault = Vault()
    vault.token(CI.jwt("job", role="admin"))
    (login,) = vault.logins
    assert login["path"] == "auth/jwt-ci/login"
    assert login["role"] == ISSUERS["ci"].role("job") != ISSUERS["ci"].role("job2")
    assert login["role"].startswith("consumer-")


def test_no_token_outlives_its_jwt() -> None:
    vault, jwt = Vault(), CI.jwt("job", exp=int(time.time()) + 3)
    vault.token(jwt)
    vault.uptime = 3.0
    assert vault.token(jwt) == "t2"


def test_an_expired_jwt_is_asked_about_each_time() -> None:
    """Vault allows for clocks that are wrong by a minute."""
    vault, jwt = Vault(), CI.jwt("job", exp=int(time.time()) - 45)
    assert [vault.token(jwt), vault.token(jwt)] == ["t1", "t2"]
    assert vault.revoked == []


def test_old_tokens_are_revoked_when_unused() -> None:
    vault, jwt = Vault(), CI.jwt("job")
    vault.token(jwt)
    vault.uptime = 61.0
    vault.token(jwt)
    assert vault.revoked == []  # a judgement may have begun with it a moment ago
    vault.uptime = 91.0
    vault.token(CI.jwt("other"))
    assert vault.revoked == ["t1"]
    vault.exchange.close()
    assert sorted(vault.revoked) == ["t1", "t2", "t3"]


def test_close_after_close_is_nothing() -> None:
    vault = Vault()
    vault.token(CI.jwt("job"))
    vault.exchange.close()
    vault.exchange.close()
    assert vault.revoked == ["t1"]


def test_close_ends_when_vault_is_away() -> None:
    """Else the process is killed before it gives back its own token."""
    vault = Vault()
    for number in range(5):
        vault.token(CI.jwt("job", jti=str(number)))
    vault.revoke_error = PassingError("not reached")
    vault.exchange.close()
    assert vault.revoked == ["t1"]


def test_close_passes_over_a_token_that_ended() -> None:
    vault = Vault()
    for number in range(3):
        vault.token(CI.jwt("job", jti=str(number)))
    vault.revoke_error = DeniedError("bad token")
    vault.exchange.close()
    assert vault.revoked == ["t1", "t2", "t3"]


def test_a_request_revokes_few_tokens() -> None:
    vault = Vault()
    for number in range(10):
        vault.token(CI.jwt("job", jti=str(number)))
    vault.uptime = 100.0
    vault.token(CI.jwt("other"))
    assert vault.revoked == ["t1", "t2", "t3", "t4"]
    vault.token(CI.jwt("another"))
    assert len(vault.revoked) == 8


def test_a_slow_revocation_holds_up_no_other() -> None:
    vault, jwt = Vault(), CI.jwt("job")
    vault.token(CI.jwt("old"))
    vault.uptime = 91.0
    vault.go_on_revoking.clear()
    with ThreadPoolExecutor(2) as threads:
        first = threads.submit(vault.token, jwt)
        while len(vault.logins) < 2:
            time.sleep(0.001)
        try:
            assert threads.submit(vault.token, jwt).result(30) == "t2"
            assert not first.done()
        finally:
            vault.go_on_revoking.set()
        assert first.result(30) == "t2"
    assert vault.revoked == ["t1"]


def test_a_slow_login_near_the_end_of_its_jwt() -> None:
    """Its token is not used again, and not revoked before its bearer has been judged."""
    vault = Vault(slowness=31.0)
    assert vault.token(CI.jwt("job", exp=int(time.time()))) == "t1"
    assert vault.revoked == []
    vault.slowness, vault.uptime = 0.0, 61.0
    vault.token(CI.jwt("other"))
    assert vault.revoked == ["t1"]


def test_many_threads_exchange_a_jwt_once() -> None:
    vault, jwt = Vault(), CI.jwt("job")
    vault.go_on.clear()
    with ThreadPoolExecutor(8) as threads:
        asking = [threads.submit(vault.token, jwt) for _ in range(8)]
        while not vault.logins:
            time.sleep(0.001)
        vault.go_on.set()
        assert {one.result() for one in asking} == {"t1"}


def test_the_oldest_makes_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("broker.vault.exchange._KEPT", 2)
    vault = Vault()
    jwts = [CI.jwt("job", jti=str(number)) for number in range(3)]
    for jwt in jwts:
        vault.token(jwt)
    assert vault.token(jwts[2]) == "t3"
    assert vault.token(jwts[0]) == "t4"
    assert vault.revoked == []
    vault.exchange.close()
    assert len(vault.revoked) == 4


def test_a_vault_that_is_away_denies_nobody() -> None:
    for vault in (Vault(error=PassingError("no"), sealed=True), Vault(error=PassingError("no"), down=True)):
        with pytest.raises(VaultUnavailableError) as caught:
            vault.token(CI.jwt("job"))
        assert not isinstance(caught.value, PartlyUnavailableError)
    vault.error = InvalidError("no")
    with pytest.raises(DeniedError, match="'job'"):
        vault.token(CI.jwt("job"))


def test_a_stuck_login_is_its_issuers_fault() -> None:
    """Vault waits for the issuer's keys, and serves everybody else meanwhile."""
    vault = Vault(error=PassingError("not reached (ReadTimeoutError)"))
    with pytest.raises(PartlyUnavailableError, match="auth/jwt-ci/ fails"):
        vault.token(CI.jwt("job"))
    vault.error = None
    assert vault.token(CI.jwt("job")) == "t2"


@pytest.mark.parametrize(
    ("claims", "says"),
    [
        ({"aud": "another"}, "its audience is not credential-broker"),
        ({"aud": ["a", AUDIENCE]}, "is not enrolled"),
        ({"exp": 1}, "has expired"),
        ({"nbf": 4_000_000_000}, "not valid yet"),
        ({"nbf": "soon"}, "not valid yet"),
        ({}, "is not enrolled"),
    ],
)
def test_a_refusal_names_a_probable_reason(claims: dict[str, object], says: str) -> None:
    vault = Vault(error=InvalidError("no"))
    with pytest.raises(DeniedError, match=says) as refused:
        vault.token(CI.jwt("job", **claims))
    assert ("get a " in refused.value.hint) == ("enrolled" not in says)


@pytest.mark.parametrize("jwt", ["", "x", "a.b.c", "é.é.é", "x" * 20_000, CI.jwt("job", iss="https://x")])
def test_what_is_no_jwt_of_ours_costs_nothing(jwt: str) -> None:
    vault = Vault()
    with pytest.raises(DeniedError):
        vault.token(jwt)
    assert vault.logins == []
