"""No secret is written, and no login read, through a link of another user: every path that a user chooses is tried."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from unittest.mock import Mock

import click
import pytest

from broker.cli.options import read_input, read_password, writable, writable_secret, write_output
from broker.cli.vault import _write_private
from broker.embedded.home import Home, write_private
from broker.errors import InputError
from broker.vault.approle import require_no_others_login
from broker.vault.logins import AppRoleLogin, CertificateLogin, FileToken, JwtLogin
from broker.vault.settings import VaultSettings
from broker.vault.transport import new_pool
from tests.support.credential_sets import paper, publish

STRANGER = 65534
OPTION = (click.Context(click.Command("x")), click.Option(["--x"]))

WRITES: Mapping[str, Callable[[Path], object]] = MappingProxyType(
    {
        "bundle get --to": lambda path: publish(path, paper()),
        "--token-file": lambda path: write_output(str(path), b"hvs.token", mode=0o600),
        "--token-file, checked first": lambda path: writable_secret(*OPTION, str(path)),
        "--login-dir": lambda path: _write_private(path / "rotator" / "secret_id", b"secret"),
        "--out, --key-to, evidence export": lambda path: write_output(str(path), b"public"),
        "--out, checked first": lambda path: writable(*OPTION, str(path)),
        "embedded.directory": lambda path: Home(path).claim(),
        "a file of the embedded vault": lambda path: write_private(path, b"secret"),
    }
)


READS: Mapping[str, Callable[[Path], object]] = MappingProxyType(
    {
        "--consumer-token-file": lambda path: read_input(str(path)),
        "--password-file": lambda path: read_password(str(path)),
        "role_id_file": lambda path: AppRoleLogin(Mock(), path, path, mount="m").token(),
        "jwt_file": lambda path: JwtLogin(Mock(), "r", path, mount="m").token(),
        "certificate_file": lambda path: CertificateLogin(Mock(), "r", path, path, mount="m").token(),
        "token_file": lambda path: FileToken(path).token(),
        "vault.client_key": lambda path: new_pool(VaultSettings("https://v", client_certificate=path, client_key=path)),
        "--login-dir": lambda path: require_no_others_login(Mock(), "rotator", path.parent),
    }
)


@pytest.fixture
def link(tmp_path: Path) -> Path:
    """A link of another user, to one of our directories."""
    (tmp_path / "victim").mkdir(mode=0o700)
    return strangers(tmp_path / "link", "victim")


def strangers(link: Path, target: str) -> Path:
    link.symlink_to(target)
    os.lchown(link, STRANGER, -1)
    return link


@pytest.mark.rights("chown")
@pytest.mark.parametrize("way", WRITES)
def test_nothing_is_written_through_it(link: Path, way: str) -> None:
    with pytest.raises(InputError, match="is a link of user 65534"):
        WRITES[way](link / "place")
    assert list(link.resolve().iterdir()) == []


@pytest.mark.rights("chown")
@pytest.mark.parametrize("way", READS)
def test_no_login_is_read_through_it(link: Path, way: str) -> None:
    (link.resolve() / "role_id").write_text("secret")
    itself = strangers(link.with_name("role_id"), "victim/role_id")
    for path in (link / "role_id", itself):
        with pytest.raises(InputError, match="is a link of user 65534"):
            READS[way](path)


@pytest.mark.parametrize("way", ["bundle get --to", "--token-file", "--token-file, checked first", "--login-dir"])
def test_no_secret_below_others_directories(tmp_path: Path, way: str) -> None:
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    with pytest.raises(InputError, match="which others control"):
        WRITES[way](tmp_path / "open" / "place")
    assert list((tmp_path / "open").iterdir()) == []
