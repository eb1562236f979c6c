"""The two that are handed the secrets of a set: the canary, and the issuer of bundles.

Nobody else is. Each first holds the account to the first entry of its evidence.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from typing import TYPE_CHECKING

from broker.vault.policies import Role

if TYPE_CHECKING:
    from broker.compose.roles import Roles
    from broker.issuing.grant import Issuer
    from broker.issuing.ports import Authorize, Consumer, SetSecrets
    from broker.model.account import Account
    from broker.model.clock import Clock
    from broker.model.generation import Application, Generation
    from broker.model.lease import BundleKind
    from broker.model.secret import Secret
    from broker.partners.profile import Profile
    from broker.rotation.ports import Answer, Canary
    from broker.upstream.credentials import Credentials
    from broker.vault.connection import Connection

    Profiles = Callable[[str, Role], Profile]

__all__ = ["canary", "issuer"]


def canary(roles: Roles, profiles: Profiles) -> Canary:
    """Return what prepares a try at the partner, as the canary role."""
    from broker.model.generation import Application
    from broker.upstream.canary import ask
    from broker.vault.secrets import VaultSecrets

    read, vouched = VaultSecrets(roles.connection(Role.CANARY)), _vouched(roles, Role.CANARY)

    def prepared(account: Account, generation: Generation) -> Callable[[], Answer]:
        vouched(account)
        profile = profiles(account.profile, Role.CANARY)
        application = account.probing_application if profile.authentication.client_id else Application("")
        credentials = _credentials(account, generation, read(account.name, generation), application, profile)
        return partial(ask, credentials, profile.probe, application=application.name)

    return prepared


def issuer(
    roles: Roles, profiles: Profiles, token: Secret[str], *, clock: Clock, journal_clock: Clock, by: str
) -> Issuer:
    """Return the use-case that grants bundles, as the server role, to the consumer whose token this is.

    `clock` refuses while it is wrong; `journal_clock` does not, so that a bundle that is given back is always noted.
    """
    from broker.evidence.journal import Journal, chain_name
    from broker.issuing.grant import Issuer
    from broker.issuing.leases import LeaseSigner
    from broker.vault.consumers import VaultConsumers
    from broker.vault.secrets import VaultSecrets
    from broker.vault.signers import lease_keys

    vault, vouched = roles.connection(Role.SERVER), _vouched(roles, Role.SERVER)
    journal = Journal(chain_name(journal_clock()), roles.evidence(Role.SERVER).append, journal_clock, by)
    return Issuer(
        accounts=lambda name: vouched(roles.accounts(Role.SERVER).read(name).account),
        profile=lambda account: profiles(account.profile, Role.SERVER),
        authorize=_authorize(vault, token),
        read_secrets=VaultSecrets(vault),
        consumers=VaultConsumers(vault),
        journal=journal,
        signer=LeaseSigner(lease_keys(vault)),
        clock=clock,
    )


def _authorize(vault: Connection, token: Secret[str]) -> Authorize:
    from broker.vault import capabilities, layout

    def authorized(account: Account, application: str, kind: BundleKind) -> Consumer:
        access = layout.Access(kind.value)
        right = layout.right(account.profile, account.environment, account.name, application, access)
        return capabilities.authorize(vault, token, right, peer=None)

    return authorized


def _vouched(roles: Roles, role: Role) -> Callable[[Account], Account]:
    """Return what lets an account through whose secrets travel where its evidence says, which is read once."""
    from broker.evidence.tamper import vouched

    return partial(vouched, first=cache(roles.evidence(role).first))


def _credentials(
    account: Account, generation: Generation, hidden: SetSecrets, application: Application, profile: Profile
) -> Credentials:
    from broker.pki.tls import client_context
    from broker.upstream.credentials import Credentials

    parts = generation.parts
    context = client_context(hidden.key, account.certificate(parts.certificate).pem, account.ca_set(parts.trust).pem)
    return Credentials(
        account.base_url, context, account.login, hidden.password, application.client_id, profile.authentication
    )
