"""A JWT mount for each issuer of the configuration: set-up makes it, real keys verify, nothing of others changes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from broker.errors import BrokerError, InputError, RefusedError
from broker.model.jwt_issuer import JwtIssuer
from broker.vault.connection import Connection
from broker.vault.errors import LackingError
from broker.vault.jwt_mounts import jwt_mounts
from broker.vault.logins import FixedToken
from broker.vault.ownership import found, unseen
from broker.vault.setup import Action, Wish, apply, as_shell, changes, lacking_rights, plan, wanted
from tests.support.https_server import https_server
from tests.support.issuer import AUDIENCE, Issuer
from tests.support.setup_script import run_script
from tests.support.vault import admin_token, administrator, plan_of, set_up

pytestmark = pytest.mark.slow

CI = Issuer("https://ci.example")


@pytest.fixture
def path(bare: Connection) -> Iterator[str]:
    """The mount of the issuer `ci`, which is gone afterwards."""
    made = f"{bare.settings.mount}-jwt/ci"
    yield made
    bare.call("DELETE", f"sys/auth/{made}")


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    (tmp_path / "ci.pem").write_text(CI.public_pem)
    return tmp_path / "ci.pem"


def wish(path: str, **how: str) -> Wish:
    return Wish(issuers=jwt_mounts({"ci": JwtIssuer(how.pop("issuer", CI.name), AUDIENCE, path, **how)}))


def accepts(vault: Connection, path: str, issuer: Issuer = CI) -> bool:
    """Return whether the mount verifies a JWT of `issuer`."""
    role = {"role_type": "jwt", "user_claim": "sub", "bound_audiences": [AUDIENCE], "bound_subject": "job"}
    vault.call("POST", f"auth/{path}/role/probe", role)
    try:
        return bool(vault.ask("POST", f"auth/{path}/login", {"role": "probe", "jwt": issuer.jwt("job")})["auth"])
    except BrokerError:
        return False


def test_a_mount_is_made_once(bare: Connection, path: str, keys: Path) -> None:
    asked = wish(path, keys_file=str(keys))
    planned = plan_of(bare, asked)
    assert [item.title for item in planned[-2:]] == [f"logins auth/{path}/", "issuer ci"]
    assert f"{path}/" not in (found(bare, "sys/auth") or {})
    set_up(bare, asked)
    assert changes(plan_of(bare, asked)) == ()
    assert accepts(bare, path)
    assert not accepts(bare, path, Issuer(CI.name))
    assert not accepts(bare, path, Issuer("https://other.example", CI.key))


def test_cut_short_it_can_be_run_again(bare: Connection, path: str, keys: Path) -> None:
    asked = wish(path, keys_file=str(keys))
    with administrator(bare, asked) as person:
        apply(person, plan(person, asked)[:-1])
    assert [item.title for item in changes(plan_of(bare, asked))] == ["issuer ci"]
    set_up(bare, asked)
    assert accepts(bare, path)


def test_keys_come_from_a_url_too(bare: Connection, path: str, tmp_path: Path, keys: Path) -> None:
    """A change of the source clears the one before. The server is verified by ca_file only."""
    discovery: dict[str, str] = {}

    def answer(asked: str, _: object) -> object:
        return {"/jwks": CI.jwks_document, "/.well-known/openid-configuration": discovery}.get(asked)

    set_up(bare, wish(path, keys_file=str(keys)))
    with https_server(tmp_path, answer) as url:
        discovery |= {"issuer": url, "jwks_uri": f"{url}/jwks"}
        with pytest.raises(BrokerError):
            set_up(bare, wish(path, jwks_url=f"{url}/jwks"))
        assert accepts(bare, path)
        for how in ({"jwks_url": f"{url}/jwks"}, {"issuer": url, "discovery_url": url}):
            asked = wish(path, ca_file=str(tmp_path / "ca.crt"), **how)
            (update,) = changes(plan_of(bare, asked))
            assert update.action is Action.UPDATE
            set_up(bare, asked)
            assert changes(plan_of(bare, asked)) == ()
            assert accepts(bare, path, Issuer(how.get("issuer", CI.name), CI.key))


@pytest.mark.parametrize("body", [{"type": "jwt"}, {"type": "approle", "description": "credential broker"}])
def test_a_mount_of_others_is_refused(bare: Connection, path: str, keys: Path, tmp_path: Path, body: object) -> None:
    bare.call("POST", f"sys/auth/{path}", body)  # type: ignore[arg-type]
    before = found(bare, "sys/auth")
    asked = wish(path, keys_file=str(keys))
    with pytest.raises(RefusedError, match="is not the broker's") as caught:
        set_up(bare, asked)
    assert "[issuers.ci]" in caught.value.hint
    ground = unseen(bare.settings.mount)
    ended = run_script(bare, tmp_path, as_shell(ground, wanted(ground, asked)), jwt_mounts=[path])
    assert (ended.returncode, f"auth/{path}/ exists" in ended.stderr) == (6, True), ended.stderr
    assert found(bare, "sys/auth") == before


def test_a_mount_around_it_is_refused(bare: Connection, path: str, keys: Path) -> None:
    around = path.partition("/")[0]
    bare.call("POST", f"sys/auth/{around}", {"type": "jwt"})
    with pytest.raises(RefusedError, match="is mounted"):
        set_up(bare, wish(path, keys_file=str(keys)))
    bare.call("DELETE", f"sys/auth/{around}")


def test_printed_script_makes_the_mount(bare: Connection, path: str, keys: Path, tmp_path: Path) -> None:
    asked, ground = wish(path, keys_file=str(keys)), unseen(bare.settings.mount)
    for _ in range(2):
        ended = run_script(bare, tmp_path, as_shell(ground, wanted(ground, asked)), jwt_mounts=[path])
        assert ended.returncode == 0, ended.stderr
    assert changes(plan_of(bare, asked)) == ()
    assert accepts(bare, path)


def test_a_mount_that_exists_is_left_alone() -> None:
    assert jwt_mounts({"ci": JwtIssuer(CI.name, AUDIENCE, "jwt")}) == ()


def test_each_missing_right_is_named(bare: Connection, path: str, keys: Path) -> None:
    asked = wish(path, keys_file=str(keys))
    person = Connection(bare.settings, FixedToken(admin_token(bare)))
    lacks = lacking_rights(person, asked)
    assert lacks
    for right in (f"sys/auth/{path}", f"auth/{path}/config", f"auth/{path}/role/consumer-"):
        assert right in lacks.message
    with pytest.raises(LackingError):
        apply(person, plan(person, asked))
    person.close()


@pytest.mark.parametrize("content", ["", "-----BEGIN PRIVATE KEY-----\nAA\n-----END PRIVATE KEY-----\n", "é", None])
def test_a_file_without_public_keys_is_refused(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "ci.pem").write_text(content)
    with pytest.raises(InputError, match=r"ci\.pem") as caught:
        wish("jwt", keys_file=str(tmp_path / "ci.pem"))
    assert "AA" not in caught.value.message
