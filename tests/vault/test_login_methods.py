"""Logins of the broker's own roles by each method, against a real auth mount of each kind."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Final

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from broker.copies import replace
from broker.embedded.config import Options
from broker.embedded.server import Running, start, stop
from broker.embedded.up import Embedded, administered
from broker.errors import BrokerError, DeniedError, InputError, VaultUnavailableError
from broker.model.role import Role
from broker.model.secret import Secret
from broker.vault.connection import Connection
from broker.vault.logins import RenewedLogin, token_source
from broker.vault.policies import policy_name
from broker.vault.settings import VaultSettings
from broker.vault.setup import LOGIN, Wish, apply, plan
from tests.support import pki
from tests.support.https_server import https_server, token_review
from tests.support.issuer import AUDIENCE, Issuer
from tests.support.loopback import tls_listener
from tests.support.ports import free_ports
from tests.support.vault import issue_login

pytestmark = pytest.mark.slow

PODS = Issuer("https://kubernetes.example")
POD: dict[str, object] = {
    "aud": ["https://kubernetes.example"],
    "kubernetes.io": {"namespace": "broker", "serviceaccount": {"name": "auditor", "uid": "uid-broker-auditor"}},
}
FAR: Final = 4_000_000_000  # a long run makes them before it uses them
POD_TOKENS = [PODS.jwt("system:serviceaccount:broker:auditor", jti=number, exp=FAR, **POD) for number in ("0", "1")]
METHODS = ("approle", "jwt", "kubernetes", "cert")


@dataclass
class Mounts:
    """A Vault with a mount of each kind, a role there with the rights of the auditor, and files to log in with."""

    settings: VaultSettings
    running: Running
    options: Options
    admin: Connection
    folder: Path

    def login(self, method: str, clock: Callable[[], float] = time.monotonic, **changes: str) -> RenewedLogin:
        """Return a login by `method`, as the configuration makes it."""
        files = {f"{name}_file": str(self.folder / name) for name in ("role_id", "secret_id", "certificate", "key")}
        files["jwt_file"] = str(self.folder / method)
        mount = {} if method == "approle" else {"mount": method, "role": "auditor"}
        nobody = Connection(self.settings, holder="role auditor")
        login = token_source(method, nobody, {**files, **mount, **changes})
        assert isinstance(login, RenewedLogin)
        login.clock = clock
        return login

    def role(self, method: str, ttl: int = 60, max_ttl: int = 600) -> None:
        """Write the role, whose tokens live for `ttl` and at most `max_ttl` seconds."""
        token: dict[str, object] = {
            **LOGIN,
            "token_policies": [policy_name(self.admin.settings.mount, n) for n in ("base", "auditor")],
        }
        del token["bind_secret_id"], token["secret_id_ttl"]
        token |= {"token_ttl": ttl, "token_max_ttl": max_ttl}
        places: dict[str, tuple[str, dict[str, object]]] = {
            "approle": (f"auth/{self.admin.settings.mount}/role/auditor", {}),
            "jwt": (
                "auth/jwt/role/auditor",
                {
                    "role_type": "jwt",
                    "user_claim": "sub",
                    "bound_audiences": [AUDIENCE],
                    "bound_subject": "system:serviceaccount:broker:auditor",
                },
            ),
            "kubernetes": (
                "auth/kubernetes/role/auditor",
                {"bound_service_account_names": ["auditor"], "bound_service_account_namespaces": ["broker"]},
            ),
            "cert": (
                "auth/cert/certs/auditor",
                {"certificate": (self.folder / "clients.crt").read_text(), "allowed_common_names": ["auditor"]},
            ),
        }
        path, own = places[method]
        self.admin.call("POST", path, {**token, **own})

    def credential(self, method: str, number: int) -> None:
        """Write one of two credentials for the role."""
        match method:
            case "approle":
                (self.folder / "secret_id").write_text(issue_login(self.admin, "auditor").secret_id.reveal())
            case "jwt":
                subject = "system:serviceaccount:broker:auditor"
                (self.folder / "jwt").write_text(PODS.jwt(subject, jti=str(number)))
            case "kubernetes":
                (self.folder / "kubernetes").write_text(POD_TOKENS[number])
            case "cert":
                for name in ("certificate", "key"):
                    (self.folder / name).write_bytes((self.folder / f"{number}.{name}").read_bytes())

    def spoil(self, method: str) -> None:
        """Write a credential that Vault refuses."""
        match method:
            case "approle":
                (self.folder / "secret_id").write_text("wrong")
            case "jwt":
                (self.folder / "jwt").write_text(PODS.jwt("system:serviceaccount:broker:stranger"))
            case "kubernetes":
                (self.folder / "kubernetes").write_text(POD_TOKENS[0][:-4])
            case "cert":
                for name in ("certificate", "key"):
                    (self.folder / name).write_bytes((self.folder / f"2.{name}").read_bytes())

    def alive(self, token: Secret[str]) -> bool:
        try:
            self.admin.ask("POST", "auth/token/lookup", {"token": token.reveal()})
        except DeniedError:
            return False
        return True


@pytest.fixture(scope="module")
def mounts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mounts]:
    folder = tmp_path_factory.mktemp("logins")
    ca = pki.a_ca("clients of the vault")
    (folder / "clients.crt").write_text(ca.pem)
    for number, name in enumerate(("auditor", "auditor", "stranger")):
        key = pki.an_ec_key(f"{name} {number}")
        leaf = pki.a_leaf(ca, key, subject=name, not_after=pki.NOW + timedelta(days=3000))
        (folder / f"{number}.certificate").write_text(pki.pem(leaf))
        (folder / f"{number}.key").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    port = free_ports(1)[0]
    options = Options(listener=tls_listener(folder, port, folder / "clients.crt"), tied=True)
    running = start(folder / "v", options)
    review = folder / "review"
    review.mkdir()
    accounts = dict.fromkeys(POD_TOKENS, "broker/auditor")
    settings = VaultSettings(
        f"https://127.0.0.1:{port}",
        ca_file=folder / "ca.crt",
        patience=5.0,
        client_certificate=folder / "0.certificate",
        client_key=folder / "0.key",
    )
    with (
        https_server(review, token_review(accounts)) as url,
        administered(Embedded(running, VaultSettings(running.address))) as admin,
    ):
        apply(admin, plan(admin, Wish()))
        for kind in METHODS[1:]:
            admin.call("POST", f"sys/auth/{kind}", {"type": kind})
        admin.call("POST", "auth/jwt/config", {"jwt_validation_pubkeys": [PODS.public_pem]})
        cluster = {
            "kubernetes_host": url,
            "kubernetes_ca_cert": (review / "ca.crt").read_text(),
            "token_reviewer_jwt": PODS.jwt("system:serviceaccount:vault:vault"),
        }
        admin.call("POST", "auth/kubernetes/config", cluster)
        (folder / "role_id").write_text(issue_login(admin, "auditor").role_id)
        yield Mounts(settings, running, options, admin, folder)
    stop(running.home.root)


@pytest.fixture(params=METHODS)
def method(mounts: Mounts, request: pytest.FixtureRequest) -> str:
    """A method whose role and credential are good."""
    mounts.role(request.param)
    mounts.credential(request.param, 0)
    return str(request.param)


def test_it_is_renewed_then_given_back(mounts: Mounts, method: str) -> None:
    now = 0.0
    login = mounts.login(method, lambda: now)
    first = login.token()
    now = 39.0
    assert login.token() == first
    before = mounts.admin.ask("POST", "auth/token/lookup", {"token": first.reveal()})["data"]["expire_time"]
    time.sleep(1.1)
    now = 41.0
    assert login.token() == first
    assert mounts.admin.ask("POST", "auth/token/lookup", {"token": first.reveal()})["data"]["expire_time"] > before
    login.close()
    assert not mounts.alive(first)


def test_it_logs_in_again_after_revocation(mounts: Mounts, method: str) -> None:
    login = mounts.login(method)
    connection = Connection(mounts.settings, login)
    assert connection.list("accounts") == ()
    first = login.token()
    mounts.admin.call("POST", "auth/token/revoke", {"token": first.reveal()})
    assert connection.list("accounts") == ()
    assert login.token() != first
    connection.close()


def test_its_end_is_no_end_of_work(mounts: Mounts, method: str) -> None:
    mounts.role(method, ttl=1, max_ttl=2)
    connection = Connection(mounts.settings, mounts.login(method))
    ends = time.monotonic() + 3.5
    while time.monotonic() < ends:
        assert connection.list("accounts") == ()
        time.sleep(0.05)
    connection.close()


def test_many_threads_log_in_once(mounts: Mounts, method: str) -> None:
    login = mounts.login(method)
    tokens: list[Secret[str]] = []
    threads = [threading.Thread(target=lambda: tokens.append(login.token())) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({token.reveal() for token in tokens}) == 1
    assert len(tokens) == 12
    login.close()


def test_a_new_credential_needs_no_restart(mounts: Mounts, method: str) -> None:
    login = mounts.login(method)
    first = login.token()
    mounts.credential(method, 1)
    mounts.admin.call("POST", "auth/token/revoke", {"token": first.reveal()})
    assert login.replace(first)
    assert mounts.alive(login.token())
    login.close()


def test_another_certificate_is_a_new_login(mounts: Mounts) -> None:
    """Vault renews a token only for the certificate that it was given to."""
    mounts.role("cert")
    mounts.credential("cert", 0)
    now = 0.0
    login = mounts.login("cert", lambda: now)
    first = login.token()
    mounts.credential("cert", 1)
    files = {"client_certificate": mounts.folder / "1.certificate", "client_key": mounts.folder / "1.key"}
    other = Connection(replace(mounts.settings, **files))  # type: ignore[arg-type]
    with pytest.raises(BrokerError):
        other.ask("POST", "auth/token/renew-self", {}, token=first)
    other.close()
    now = 41.0
    second = login.token()
    assert second != first
    now = 82.0
    assert login.token() == second
    login.close()


def test_a_refused_login_is_named_not_quoted(mounts: Mounts, method: str) -> None:
    mounts.spoil(method)
    with pytest.raises(DeniedError) as caught:
        mounts.login(method).token()
    said = f"{caught.value.message} {caught.value.hint}"
    assert f"refuses the login of role auditor at auth/{mounts.login(method).mount}" in said
    for name in ("secret_id", "jwt", "kubernetes", "key"):
        assert (mounts.folder / name).exists() is False or (mounts.folder / name).read_text().strip() not in said


@pytest.mark.parametrize("wrong", [{"mount": "nowhere"}, {"role": "nobody"}])
def test_a_wrong_place_is_refused(mounts: Mounts, method: str, wrong: dict[str, str]) -> None:
    if method == "approle" and "role" in wrong:
        pytest.skip("an AppRole has no name there")
    with pytest.raises(DeniedError):
        mounts.login(method, time.monotonic, **wrong).token()


def test_a_missing_file_is_named(mounts: Mounts, method: str) -> None:
    name = {"approle": "secret_id", "cert": "key"}.get(method, method)
    (mounts.folder / name).unlink()
    with pytest.raises(DeniedError, match=f"/{name}, which role auditor logs in with"):
        mounts.login(method).token()


def test_a_vault_that_was_away_is_used_again(mounts: Mounts, method: str) -> None:
    """It is sealed while it is away; the token outlives that, and no new login is needed."""
    now = 0.0
    login = mounts.login(method, lambda: now)
    first = login.token()
    stop(mounts.running.home.root)
    login.vault = Connection(replace(login.vault.settings, patience=0.2), holder=login.vault.holder)
    assert login.token() == first
    now = 41.0
    with pytest.raises(VaultUnavailableError):
        login.token()
    mounts.running = start(mounts.running.home.root, mounts.options)
    login.vault = Connection(replace(login.vault.settings, patience=10.0), holder=login.vault.holder)
    assert login.token() == first
    login.close()


@pytest.mark.parametrize("method", ["jwt", "kubernetes", "cert"])
def test_a_role_is_required(method: str) -> None:
    with pytest.raises(InputError, match=f"the login {method} needs role"):
        token_source(
            method,
            Connection(VaultSettings("https://127.0.0.1:1")),
            dict.fromkeys(("jwt_file", "certificate_file", "key_file"), "x"),
        )


def test_a_certificate_needs_tls() -> None:
    with pytest.raises(InputError, match="needs TLS"):
        token_source("cert", Connection(VaultSettings("http://127.0.0.1:1")), {"role": "a"})


def test_a_pod_needs_no_path() -> None:
    login = token_source("kubernetes", Connection(VaultSettings("https://127.0.0.1:1")), {"role": Role.SERVER.value})
    with pytest.raises(DeniedError, match=r"/var/run/secrets/kubernetes\.io/serviceaccount/token"):
        login.token()
