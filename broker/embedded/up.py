"""An embedded vault that is set up, with one login for each role, in files."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from msgspec import Struct

from broker.embedded.config import DEFAULTS, Options
from broker.embedded.home import SETUP_ROLE, write_private
from broker.embedded.server import Running, start
from broker.model.role import Role
from broker.signals import undisturbed
from broker.vault.approle import provide_login
from broker.vault.connection import ADMINISTRATOR, Connection, Observer, unobserved
from broker.vault.logins import AppRoleLogin
from broker.vault.settings import DEFAULT_MOUNT, VaultSettings
from broker.vault.setup import Wish, apply, plan


class Embedded(Struct, frozen=True):
    """A running embedded vault and how to reach it."""

    running: Running
    settings: VaultSettings


def up(
    directory: Path,
    options: Options = DEFAULTS,
    *,
    mount: str = DEFAULT_MOUNT,
    wish: Wish = Wish(),  # noqa: B008  # frozen
    observer: Observer = unobserved,
) -> Embedded:
    """Start the vault of `directory` if it does not run, set it up, and make each role's files.

    Repeated, it changes nothing. `DIRECTORY/roles/<role>/` holds `role_id` and `secret_id`, 0600. Raises as `start` and
    `setup.plan`.
    """
    running = start(directory, options)
    embedded = Embedded(running, VaultSettings(running.address, mount=mount))
    with administered(embedded, observer=observer) as vault:
        apply(vault, plan(vault, wish))
        running.home.roles.mkdir(mode=0o700, exist_ok=True)
        for role in Role:
            (running.home.roles / role.value).mkdir(mode=0o700, exist_ok=True)
            provide_login(vault, role.value, running.home.roles / role.value, write_private)
    return embedded


@contextmanager
def administered(embedded: Embedded, *, observer: Observer = unobserved) -> Iterator[Connection]:
    """Yield a connection that may do everything; its token is revoked at the end.

    It is not a root token: the server revoked the one it initialised itself with.
    """
    home = embedded.running.home
    role_id = home.root / "setup.role"
    if not role_id.exists():
        write_private(role_id, SETUP_ROLE.encode())
    login = AppRoleLogin(Connection(embedded.settings), role_id, home.setup_secret, mount=SETUP_ROLE)
    vault = Connection(embedded.settings, login, observer=observer, holder=ADMINISTRATOR)
    try:
        yield vault
    finally:
        with undisturbed():  # or a token that may do everything would live on for minutes
            vault.close()
