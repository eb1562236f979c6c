"""Settings as Vault's own tools read them."""

from __future__ import annotations

from pathlib import Path

import pytest

from broker.errors import InputError
from broker.model.secret import Secret
from broker.vault.settings import VaultSettings, from_environment


def test_openbaos_names_win_over_vaults() -> None:
    settings = from_environment({"VAULT_ADDR": "http://vault:1", "BAO_ADDR": "http://bao:2/", "VAULT_TOKEN": "s.x"})
    assert settings.address == "http://bao:2"
    assert settings.token == Secret("s.x")


def test_everything_is_read() -> None:
    settings = from_environment(
        {
            "VAULT_ADDR": "https://vault.example:8200",
            "VAULT_NAMESPACE": "/team/a/",
            "VAULT_CACERT": "/ca.pem",
            "VAULT_CAPATH": "/cas",
            "VAULT_CLIENT_CERT": "/me.crt",
            "VAULT_CLIENT_KEY": "/me.key",
            "VAULT_TLS_SERVER_NAME": "inside",
        },
        mount="elsewhere/kv",
    )
    assert settings == VaultSettings(
        "https://vault.example:8200",
        mount="elsewhere/kv",
        namespace="team/a",
        ca_file=Path("/ca.pem"),
        ca_directory=Path("/cas"),
        client_certificate=Path("/me.crt"),
        client_key=Path("/me.key"),
        server_name="inside",
    )


def test_a_unix_socket_is_an_address() -> None:
    assert from_environment({"BAO_ADDR": "unix:///run/bao.sock"}).socket == "/run/bao.sock"
    assert VaultSettings("https://vault").socket == ""


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"VAULT_ADDR": ""},
        {"VAULT_ADDR": "vault.example:8200"},
        {"VAULT_ADDR": "ftp://vault.example"},
        {"VAULT_ADDR": "https://"},
        {"VAULT_ADDR": "unix://"},
        {"VAULT_ADDR": "https://user:pass@vault.example"},
        {"VAULT_ADDR": "https://vault.example/?a=b"},
        {"VAULT_ADDR": "https://vault.example", "VAULT_CLIENT_CERT": "/me.crt"},
        {"VAULT_ADDR": "https://vault.example", "VAULT_CLIENT_KEY": "/me.key"},
    ],
)
def test_what_cannot_be_used_is_refused_with_a_mend(environment: dict[str, str]) -> None:
    with pytest.raises(InputError) as caught:
        from_environment(environment)
    assert caught.value.hint
    assert "pass" not in caught.value.message


@pytest.mark.parametrize(
    ("address", "hint"),
    [
        ("127.0.0.1:8200", "http:// or https:// in front"),
        ("localhost:8200", "http:// or https:// in front"),
        ("vault.example", "http:// or https:// in front"),
        ("ftp://vault.example", "http(s)://host:port"),
        ("http://[::1", "http(s)://host:port"),
        ("http://vault.example:port", "http(s)://host:port"),
        ("http://vault.example:99999", "http(s)://host:port"),
        ("https://vault.example/v1", "leave /v1 away"),
        ("https://vault.example/behind/v1/", "leave /v1 away"),
    ],
)
def test_an_address_that_is_none_is_named_with_who_named_it(address: str, hint: str) -> None:
    for environment, source in (({"BAO_ADDR": address}, "$BAO_ADDR"), ({"VAULT_ADDR": address}, "$VAULT_ADDR")):
        with pytest.raises(InputError) as caught:
            from_environment(environment)
        assert address.rstrip("/") in caught.value.message
        assert source in caught.value.message
        assert hint in caught.value.hint
    with pytest.raises(InputError, match=r"/etc/broker\.toml"):
        from_environment({"VAULT_ADDR": address}, source="/etc/broker.toml")


def test_a_password_in_an_address_is_never_shown() -> None:
    for address in ("user:planted@vault.example:8200", "http://user:planted@[::1", "https://user:planted@vault/v1"):
        with pytest.raises(InputError) as caught:
            from_environment({"VAULT_ADDR": address})
        assert "planted" not in f"{caught.value.message}{caught.value.hint}"


@pytest.mark.parametrize("name", ["VAULT_SKIP_VERIFY", "BAO_SKIP_VERIFY"])
@pytest.mark.parametrize("value", ["1", "true", "TRUE", "t"])
def test_skipping_verification_is_refused_by_name(name: str, value: str) -> None:
    with pytest.raises(InputError, match="SKIP_VERIFY"):
        from_environment({"VAULT_ADDR": "https://vault.example", name: value})


def test_skipping_verification_may_be_switched_off() -> None:
    settings = from_environment({"VAULT_ADDR": "https://vault.example", "VAULT_SKIP_VERIFY": "false"})
    assert settings.address == "https://vault.example"


@pytest.mark.parametrize("mount", ["", "/x", "x/", "a b", "a//b", "../sys", "x\n", "${mount}", '"'])
def test_a_mount_that_would_mean_something_else_is_refused(mount: str) -> None:
    with pytest.raises(InputError):
        VaultSettings("https://vault.example", mount=mount)


def test_the_token_does_not_show() -> None:
    assert "planted" not in repr(from_environment({"VAULT_ADDR": "https://v", "VAULT_TOKEN": "s.planted"}))
