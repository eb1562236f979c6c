"""Consumers in Vault: enrolled with an AppRole or a subject at an issuer, listed, removed, and by a printed script."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from broker.copies import replace
from broker.embedded.up import Embedded
from broker.errors import DeniedError, RefusedError, UnknownNameError
from broker.model.jwt_issuer import JwtIssuer
from broker.model.secret import Secret
from broker.vault.capabilities import authorize
from broker.vault.connection import Connection, Phase
from broker.vault.enrol_script import enrol_script
from broker.vault.enrolment import (
    Login,
    Subject,
    change_rights,
    consumer,
    consumers,
    enrol_consumer,
    remove_consumer,
)
from broker.vault.exchange import Exchange
from broker.vault.jwt_mounts import jwt_mounts
from broker.vault.logins import FixedToken
from broker.vault.setup import Wish
from tests.support.issuer import Issuer
from tests.support.setup_script import run_script
from tests.support.vault import TestVault, a_consumer, admin_token, login, mounted, set_up

pytestmark = pytest.mark.slow

RIGHT: Final = "cb-issue/stellantis/standin/mzp-1/app/direct"
OTHER: Final = "cb-issue/stellantis/standin/mzp-1/other/direct"


@dataclass
class World:
    """A vault that trusts two issuers, an administrator of it, and the service's exchange."""

    vault: TestVault
    admin: Connection
    ci: Issuer
    pods: Issuer
    issuers: dict[str, JwtIssuer]

    def subject(self, name: str, issuer: str = "ci") -> Subject:
        return Subject(self.issuers[issuer], name)

    def token(self, jwt: str) -> Secret[str]:
        """Return the token that the service gets for a JWT."""
        return Exchange(lambda: Connection(self.vault.settings), self.issuers).token(Secret(jwt))

    def may(self, jwt: str, right: str = RIGHT) -> str:
        """Return the name of the consumer that shows a JWT."""
        server = Connection(self.vault.settings, FixedToken(self.vault.token("server")))
        return authorize(server, self.token(jwt), right, peer=None).name


@pytest.fixture(scope="module")
def prepared(vault_server: tuple[Embedded, Connection], tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """One for all tests: each uses consumers and subjects of its own."""
    with mounted(vault_server) as vault, trusting(vault, tmp_path_factory.mktemp("keys")) as world:
        yield world


@contextmanager
def trusting(vault: TestVault, folder: Path) -> Iterator[World]:
    mount = vault.settings.mount
    made = {name: Issuer(f"https://{name}.example") for name in ("ci", "pods")}
    issuers = {}
    for name, issuer in made.items():
        (folder / f"{name}.pem").write_text(issuer.public_pem)
        issuers[name] = JwtIssuer(
            issuer.name,
            audience="credential-broker",
            mount=f"{mount}-jwt/{name}",
            keys_file=str(folder / f"{name}.pem"),
        )
    set_up(vault.admin, Wish(issuers=jwt_mounts(issuers)))
    mounts = [issuer.mount for issuer in issuers.values()]
    admin = Connection(vault.settings, FixedToken(admin_token(vault.admin, jwt_mounts=mounts)))
    try:
        yield World(vault, admin, made["ci"], made["pods"], issuers)
    finally:
        admin.close()
        for path in mounts:
            vault.admin.call("DELETE", f"sys/auth/{path}")


def test_each_subject_is_an_entity_of_its_own(prepared: World) -> None:
    for name in ("own-a", "own-b"):
        enrol_consumer(prepared.admin, name, [RIGHT if name == "own-a" else OTHER], prepared.subject(f"repo:{name}"))
    a, b = (prepared.ci.jwt(f"repo:{name}") for name in ("own-a", "own-b"))
    assert prepared.may(a) == f"{prepared.vault.settings.mount}/own-a"
    assert prepared.may(b, OTHER) == f"{prepared.vault.settings.mount}/own-b"
    for jwt, right in ((a, OTHER), (b, RIGHT)):
        with pytest.raises(DeniedError):
            prepared.may(jwt, right)


@pytest.mark.parametrize(
    "claims",
    [
        {"aud": "another"},
        {"aud": None},
        {"sub": "repo:other"},
        {"sub": ""},
        {"sub": ["repo:claims"]},
        {"iss": "https://other.example"},
        {"iss": "https://pods.example"},
        {"iss": ["https://ci.example"]},
        {"exp": 1},
        {"exp": "soon"},
        {"nbf": 4_000_000_000},
    ],
    ids=str,
)
def test_a_wrong_jwt_is_refused(prepared: World, claims: dict[str, object]) -> None:
    enrol_consumer(prepared.admin, "claims", [RIGHT], prepared.subject("repo:claims"))
    prepared.token(prepared.ci.jwt("repo:claims"))
    with pytest.raises(DeniedError):
        prepared.token(prepared.ci.jwt("repo:claims", **claims))


def test_forged_jwts_are_refused(prepared: World) -> None:
    enrol_consumer(prepared.admin, "forged", [RIGHT], prepared.subject("repo:forged"))
    good = prepared.ci.jwt("repo:forged")
    unsigned = prepared.ci.unsigned("repo:forged")
    forger = Issuer(prepared.ci.name).jwt("repo:forged")
    for jwt in (unsigned, forger, good[:-4], good.rsplit(".", 1)[0] + ".", "x", "", "a.b.c", "é", "x" * 20_000):
        with pytest.raises(DeniedError):
            prepared.token(jwt)


def test_a_subject_is_of_one_issuer(prepared: World) -> None:
    """The same subject at another issuer is somebody else, though that issuer is trusted too."""
    enrol_consumer(prepared.admin, "issuer", [RIGHT], prepared.subject("repo:issuer"))
    assert prepared.may(prepared.ci.jwt("repo:issuer"))
    with pytest.raises(DeniedError):
        prepared.token(prepared.pods.jwt("repo:issuer"))


def test_one_consumer_has_logins_of_all_kinds(prepared: World) -> None:
    enrol_consumer(prepared.admin, "many", [OTHER], prepared.subject("repo:many"))
    enrol_consumer(prepared.admin, "many", [OTHER], prepared.subject("system:serviceaccount:a:many", "pods"))
    approle = a_consumer(prepared.vault.admin, "many", [RIGHT])
    server = Connection(prepared.vault.settings, FixedToken(prepared.vault.token("server")))
    shown = [
        prepared.token(prepared.ci.jwt("repo:many")),
        prepared.token(prepared.pods.jwt("system:serviceaccount:a:many")),
        login(prepared.vault.admin, approle),
    ]
    assert len({authorize(server, token, RIGHT, peer=None).entity for token in shown}) == 1
    found = consumer(prepared.admin, "many")
    assert found.rights == (RIGHT,)
    mount = prepared.vault.settings.mount
    assert set(found.logins) == {
        Login(mount, approle.role_id),
        Login(f"{mount}-jwt/ci", "repo:many"),
        Login(f"{mount}-jwt/pods", "system:serviceaccount:a:many"),
    }


def test_a_subject_belongs_to_one_consumer(prepared: World) -> None:
    enrol_consumer(prepared.admin, "first", [RIGHT], prepared.subject("repo:taken"))
    for subject in ("repo:taken", "REPO:taken"):  # Vault knows aliases without their case
        with pytest.raises(RefusedError, match="belongs to"):
            enrol_consumer(prepared.admin, "second", [OTHER], prepared.subject(subject))
    assert "second" not in {found.name for found in consumers(prepared.admin)}
    with pytest.raises(RefusedError, match="has the subject repo:taken") as caught:
        enrol_consumer(prepared.admin, "first", [RIGHT], prepared.subject("repo:another"))
    assert "broker vault enrol --remove first" in caught.value.hint
    assert prepared.may(prepared.ci.jwt("repo:taken"))


def test_what_others_made_for_a_subject_stays(prepared: World) -> None:
    """An entity that a login of others has already; a role of others at a mount that they share with us."""
    subject = prepared.subject("repo:theirs")
    role = f"auth/{subject.issuer.mount}/role/theirs"
    body = {"role_type": "jwt", "user_claim": "sub", "bound_audiences": ["credential-broker"], "token_policies": ["x"]}
    prepared.vault.admin.call("POST", role, body)
    prepared.vault.admin.ask(
        "POST", f"auth/{subject.issuer.mount}/login", {"role": "theirs", "jwt": prepared.ci.jwt("repo:theirs")}
    )
    with pytest.raises(RefusedError, match="belongs to entity_"):
        enrol_consumer(prepared.admin, "theirs", [RIGHT], subject)
    prepared.vault.admin.call("DELETE", role)
    taken = prepared.subject("repo:role")
    prepared.vault.admin.call("POST", taken.role, {**body, "bound_subject": "repo:role"})
    with pytest.raises(RefusedError, match="belongs to others"):
        enrol_consumer(prepared.admin, "theirs", [RIGHT], taken)
    assert "theirs" not in {found.name for found in consumers(prepared.admin)}


def test_rights_change_for_all_logins(prepared: World) -> None:
    enrol_consumer(prepared.admin, "changed", [RIGHT], prepared.subject("repo:changed"))
    change_rights(prepared.admin, "changed", [OTHER])
    assert prepared.may(prepared.ci.jwt("repo:changed"), OTHER)
    with pytest.raises(DeniedError, match="lacks update"):
        prepared.may(prepared.ci.jwt("repo:changed"))
    with pytest.raises(UnknownNameError):
        change_rights(prepared.admin, "nobody", [OTHER])


def test_a_removed_consumer_has_nothing_left(prepared: World) -> None:
    enrol_consumer(prepared.admin, "gone", [RIGHT], prepared.subject("repo:gone"))
    a_consumer(prepared.vault.admin, "gone", [RIGHT])
    jwt = prepared.ci.jwt("repo:gone")
    token = prepared.token(jwt)
    assert remove_consumer(prepared.admin, "gone", prepared.issuers)
    assert not remove_consumer(prepared.admin, "gone", prepared.issuers)
    server = Connection(prepared.vault.settings, FixedToken(prepared.vault.token("server")))
    with pytest.raises(DeniedError):
        authorize(server, token, RIGHT, peer=None)
    with pytest.raises(DeniedError):
        prepared.token(jwt)
    with pytest.raises(UnknownNameError):
        consumer(prepared.admin, "gone")
    enrol_consumer(prepared.admin, "again", [RIGHT], prepared.subject("repo:gone"))
    assert prepared.may(jwt) == f"{prepared.vault.settings.mount}/again"


@pytest.mark.parametrize("writes", range(4))
def test_a_removal_that_was_cut_short_is_finished(prepared: World, writes: int) -> None:
    name = f"cut-{writes}"
    enrol_consumer(prepared.admin, name, [RIGHT], prepared.subject(f"repo:{name}"))
    jwt = prepared.ci.jwt(f"repo:{name}")
    assert prepared.may(jwt)
    left = [writes]

    def killed(phase: Phase, _: str) -> None:
        left[0] -= phase is Phase.BEFORE
        if left[0] < 0:
            raise KeyboardInterrupt

    watched = Connection(prepared.vault.settings, prepared.admin.tokens, observer=killed)
    with pytest.raises(KeyboardInterrupt):
        remove_consumer(watched, name, prepared.issuers)
    if writes:
        with pytest.raises(DeniedError):
            prepared.may(jwt)
    assert remove_consumer(prepared.admin, name, prepared.issuers)
    assert not remove_consumer(prepared.admin, name, prepared.issuers)


def test_unnamed_issuer_stops_removal(prepared: World) -> None:
    """Else its role would stay, and get the rights of the next consumer of that name."""
    enrol_consumer(prepared.admin, "left", [RIGHT], prepared.subject("repo:left"))
    with pytest.raises(RefusedError, match="no \\[issuers\\] names"):
        remove_consumer(prepared.admin, "left", {})
    assert prepared.may(prepared.ci.jwt("repo:left"))


def test_a_mount_that_is_missing_is_named(prepared: World) -> None:
    away = Subject(replace(prepared.issuers["ci"], mount="nowhere"), "repo:x")
    with pytest.raises(UnknownNameError, match="auth/nowhere/") as caught:
        enrol_consumer(prepared.admin, "nowhere", [RIGHT], away)
    assert "broker vault setup" in caught.value.hint


@pytest.mark.parametrize("kind", ["jwt", "approle"])
def test_a_printed_script_enrols_too(prepared: World, tmp_path: Path, kind: str) -> None:
    mount, name = prepared.vault.settings.mount, f"printed-{kind}"
    subject = prepared.subject('@it\'s "odd" %s $HOME') if kind == "jwt" else None
    for _ in range(2):
        text = enrol_script(mount, name, [RIGHT], subject)
        ended = run_script(prepared.vault.admin, tmp_path, text, jwt_mounts=[f"{mount}-jwt/ci"])
        assert ended.returncode == 0, ended.stderr
    if subject:
        assert prepared.may(prepared.ci.jwt(subject.name)) == f"{mount}/{name}"
    assert consumer(prepared.admin, name).rights == (RIGHT,)
    assert remove_consumer(prepared.admin, name, prepared.issuers)
