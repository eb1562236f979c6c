"""The canary and the issuer of bundles: the only two use-cases that are given the secrets of a set.

Each first compares the account with the first entry of its evidence.
"""

from collections.abc import Callable
from functools import lru_cache, partial
from typing import Final

from broker.compose.roles import Roles
from broker.evidence.journal import Journal
from broker.evidence.tamper import require_first_entry
from broker.issuing.grant import Consumer, Issuer, SetSecrets
from broker.model.account import Account
from broker.model.authentication import CLIENT_ID
from broker.model.clock import Clock
from broker.model.generation import Parts
from broker.model.lease import BundleKind
from broker.model.redactor import Redactor
from broker.model.role import Role
from broker.model.secret import Secret
from broker.model.verdict import CanaryResult
from broker.partners.profile import Profile
from broker.pki.tls import client_context
from broker.rotation.ports import Canary
from broker.telemetry import log
from broker.upstream.canary import ask
from broker.upstream.credentials import Credentials
from broker.vault import capabilities, layout
from broker.vault.changing import VaultConsumers
from broker.vault.secrets import lease_signer, read_secrets

Profiles = Callable[[str, Role], Profile]
_FIRST_ENTRIES: Final = 256  # accounts whose first entry of evidence is kept in memory: it never changes


def canary(roles: Roles, profiles: Profiles) -> Canary:
    """Return the function that prepares a try at the partner, as the canary role."""
    read, checked = partial(read_secrets, roles.connection(Role.CANARY)), _checked(roles, Role.CANARY)

    def prepared(account: Account, parts: Parts) -> Callable[[], CanaryResult]:
        checked(account)
        profile = profiles(account.profile, Role.CANARY)
        application = account.canary_application if CLIENT_ID in profile.authentication.needs else None
        client_id = application.client_id if application else ""
        credentials = _credentials(account, parts, read(account.name, parts), client_id, profile)
        return partial(ask, credentials, profile.probe, application=application)

    return prepared


def issuer(roles: Roles, profiles: Profiles, token: Secret[str], clock: Clock, journal: Journal) -> Issuer:
    """Return the use-case that grants bundles, as the server role, to the consumer that `token` belongs to.

    `clock` refuses while it is wrong. All issuers of a process share one `journal`.
    """
    vault, checked = roles.connection(Role.SERVER), _checked(roles, Role.SERVER)

    def authorize(account: Account, application: str, kind: BundleKind) -> Consumer:
        right = layout.right(account.profile, account.environment, account.name, application, kind.value)
        return capabilities.authorize(vault, token, right, peer=None)

    return Issuer(
        accounts=lambda name: checked(roles.accounts(Role.SERVER).read(name).account),
        profile=lambda account: profiles(account.profile, Role.SERVER),
        authorize=authorize,
        read_secrets=partial(read_secrets, vault),
        consumers=VaultConsumers(vault),
        journal=journal,
        signer=lease_signer(vault),
        clock=clock,
    )


def _checked(roles: Roles, role: Role) -> Callable[[Account], Account]:
    """Return a function that returns an account if its evidence allows its secrets to travel to its address."""
    return partial(require_first_entry, first=lru_cache(_FIRST_ENTRIES)(roles.evidence(role).first))


def _credentials(account: Account, parts: Parts, hidden: SetSecrets, client_id: str, profile: Profile) -> Credentials:
    log.hide(Redactor(hidden.secrets.values()).redact)
    context = client_context(hidden.key, account.certificate(parts.certificate).pem, account.ca_set(parts.trust).pem)
    return Credentials(account.base_url, context, account.login, hidden.secrets, client_id, profile.authentication)
