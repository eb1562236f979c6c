"""The canary, which is given the secrets of a set, and the check that comes before it and before a bundle."""

from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from typing import Final

from broker.compose.proxies import proxy_for
from broker.compose.roles import Roles
from broker.copies import replace
from broker.evidence.tamper import require_first_entry
from broker.issuing.grant import SetSecrets
from broker.model.account import Account
from broker.model.authentication import CLIENT_ID
from broker.model.generation import Application, Parts
from broker.model.names import AccountName
from broker.model.redactor import Redactor
from broker.model.role import Role
from broker.model.secret import Secret
from broker.model.verdict import CanaryResult, Verdict
from broker.partners.profile import Probe, Profile
from broker.pki.tls import client_context
from broker.rotation.ports import Canary
from broker.telemetry import log
from broker.upstream.canary import ask
from broker.upstream.credentials import Credentials
from broker.vault.secrets import read_secrets

Profiles = Callable[[str, Role], Profile]
_FIRST_ENTRIES: Final = 4096  # accounts whose first entry of evidence is kept in memory: it never changes


def canary(roles: Roles, profiles: Profiles) -> Canary:
    """Return the function that prepares a try at the partner, as the canary role."""
    read, checked = partial(read_secrets, roles.connection(Role.CANARY)), _checked(roles, Role.CANARY)

    def prepared(account: Account, parts: Parts) -> Callable[[], CanaryResult]:
        checked(account)
        profile = profiles(account.profile, Role.CANARY)
        applications = account.asked_with(parts) if CLIENT_ID in profile.authentication.needs else (None,)
        client_ids = [application.client_id if application else "" for application in applications]
        credentials = _credentials(account, parts, read(account.name, parts), client_ids[0], profile)
        proxy = proxy_for(roles.config, account.name)
        sets = [replace(credentials, client_id=client_id, proxy=proxy) for client_id in client_ids]
        return partial(_asked, list(zip(sets, applications, strict=True)), profile.probe)

    return prepared


def checked_accounts(roles: Roles, role: Role) -> Callable[[AccountName], Account]:
    """Return a function that reads an account whose evidence allows its secrets to travel to its address."""
    checked = _checked(roles, role)
    return lambda name: checked(roles.accounts(role).read(name).account)


def _checked(roles: Roles, role: Role) -> Callable[[Account], Account]:
    """Return a function that returns an account if its evidence allows its secrets to travel to its address."""
    return partial(require_first_entry, first=lru_cache(_FIRST_ENTRIES)(roles.evidence(role).first))


def _asked(sets: Sequence[tuple[Credentials, Application | None]], probe: Probe) -> CanaryResult:
    """Ask the partner with each of `sets`, which differ in the application, until one is not accepted."""
    for credentials, application in sets:
        answer = ask(credentials, probe, application=application)
        if answer.verdict is not Verdict.OK:
            break
    return answer


def _credentials(account: Account, parts: Parts, hidden: SetSecrets, client_id: str, profile: Profile) -> Credentials:
    log.hide(Redactor(hidden.secrets.values()).redact)
    chain = account.certificate(parts.certificate).pem.encode()
    context = client_context(Secret(hidden.key.reveal() + chain), account.ca_set(parts.trust).pem)
    return Credentials(account.base_url, context, account.login, hidden.secrets, client_id, profile.authentication)
