"""Settings of Vault, as its own tools read them from the environment."""

from __future__ import annotations

from pathlib import Path

import pytest

from broker.compose.roles import Roles
from broker.config import resolve
from broker.embedded.home import Home
from broker.errors import InputError
from broker.model.secret import Secret
from broker.vault.settings import VaultSettings


@pytest.fixture(autouse=True)
def empty_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def settings(**environment: str) -> VaultSettings:
    """Return the settings that commands use with `environment`; the embedded vault would lie in `vault`."""
    config = resolve(flags={}, environment=environment, file=None, defaults={"embedded.directory": "vault"})
    return Roles(config, environment).settings


@pytest.mark.parametrize(("timeout", "patience"), [("10s", 4.0), ("1s", 1.0)])
def test_logins_of_callers_have_seconds(timeout: str, patience: float) -> None:
    """Vault may wait for the keys of their issuer, and each holds a thread."""
    environment = {"VAULT_ADDR": "https://vault:1", "BROKER_TIMEOUT": timeout}
    assert (
        Roles(resolve(flags={}, environment=environment, file=None), environment).anonymous().settings.patience
        == patience
    )


def test_openbao_names_win() -> None:
    found = settings(VAULT_ADDR="https://vault:1", BAO_ADDR="https://bao:2/", VAULT_TOKEN="s.x", BAO_TOKEN="s.y")
    assert found.address == "https://bao:2"
    assert found.token == Secret("s.y")


def test_all_variables_are_read() -> None:
    found = settings(
        VAULT_ADDR="https://vault.example:8200",
        VAULT_NAMESPACE="/team/a/",
        VAULT_CACERT="/ca.pem",
        VAULT_CAPATH="/cas",
        VAULT_CLIENT_CERT="/me.crt",
        VAULT_CLIENT_KEY="/me.key",
        VAULT_TLS_SERVER_NAME="inside",
        BROKER_MOUNT="elsewhere/kv",
        BROKER_TIMEOUT="5s",
    )
    assert found == VaultSettings(
        "https://vault.example:8200",
        mount="elsewhere/kv",
        namespace="team/a",
        ca_file=Path("/ca.pem"),
        ca_directory=Path("/cas"),
        client_certificate=Path("/me.crt"),
        client_key=Path("/me.key"),
        server_name="inside",
        patience=5.0,
    )
    assert found.whereabouts == "Vault at https://vault.example:8200 ($VAULT_ADDR) in namespace team/a"


def test_a_unix_socket_is_an_address() -> None:
    assert settings(BAO_ADDR="unix:///run/bao.sock").socket == "/run/bao.sock"
    assert settings(BAO_ADDR="https://vault").socket == ""


def test_embedded_vault_is_the_default(tmp_path: Path) -> None:
    home = Home(tmp_path / "vault")
    home.root.mkdir()
    home.initialized.touch()
    found = settings(BROKER_EMBEDDED=str(home.root), VAULT_TOKEN="s.another", VAULT_SKIP_VERIFY="1")
    assert found.address == f"unix://{home.socket}"
    assert found.token is None


def test_missing_address_is_refused() -> None:
    with pytest.raises(InputError, match="no address") as caught:
        settings(VAULT_ADDR="")
    assert "VAULT_ADDR" in caught.value.hint


@pytest.mark.parametrize("name", ["VAULT_CLIENT_CERT", "VAULT_CLIENT_KEY"])
def test_half_a_client_login_is_refused(name: str) -> None:
    with pytest.raises(InputError) as caught:
        settings(VAULT_ADDR="https://vault.example", **{name: "/me.pem"})
    assert "VAULT_CLIENT_KEY" in caught.value.hint


@pytest.mark.parametrize("name", ["VAULT_SKIP_VERIFY", "BAO_SKIP_VERIFY"])
@pytest.mark.parametrize("value", ["1", "true", "TRUE", "t"])
def test_skip_verify_is_refused(name: str, value: str) -> None:
    with pytest.raises(InputError, match="SKIP_VERIFY"):
        settings(VAULT_ADDR="https://vault.example", **{name: value})


def test_skip_verify_may_be_off() -> None:
    assert settings(VAULT_ADDR="https://vault.example", VAULT_SKIP_VERIFY="false").address == "https://vault.example"


def test_token_does_not_show() -> None:
    assert "planted" not in repr(settings(VAULT_ADDR="https://v", VAULT_TOKEN="s.planted"))


@pytest.mark.slow
@pytest.mark.parametrize("text", ["true", '"true"'])
def test_plain_http_is_accepted_by_a_setting(tmp_path: Path, text: str) -> None:
    file = tmp_path / "broker.toml"
    file.write_text(f'version = 1\n[vault]\naddress = "http://mesh.example:8200"\nallow_http = {text}\n')
    assert Roles(resolve(flags={}, environment={}, file=file), {}).settings.allow_http
    file.write_text('version = 1\n[vault]\naddress = "http://mesh.example:8200"\n')
    with pytest.raises(InputError, match="unencrypted") as caught:
        _ = Roles(resolve(flags={}, environment={}, file=file), {}).settings
    assert f'set address = "https://mesh.example:8200" under [vault] in {file}' in caught.value.hint
    with pytest.raises(InputError, match="neither true nor false"):
        resolve(flags={}, environment={"BROKER_ALLOW_HTTP": "yes"}, file=file)
