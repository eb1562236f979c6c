"""Decide whether bundles of an account could be issued now."""

from datetime import datetime

from broker.errors import RefusedError
from broker.issuing.grant import deliverable
from broker.model.account import Account
from broker.model.authentication import Authentication
from broker.model.generation import Generation


def require_issuable(account: Account, authentication: Authentication, now: datetime) -> Generation:
    """Return the generation that an application would get; raise `RefusedError` if none would get one."""
    applications = [application.name for application in account.served().applications]
    if not applications:
        raise RefusedError(f"{account.name} has no application", hint=f"broker app add {account.name}/APPLICATION")
    generation = _first(account, applications, authentication)
    not_after = account.certificate(generation.parts.certificate).not_after
    if not_after <= now:
        message = f"the certificate of {account.name}, generation {generation.number}, expired on {not_after:%F %TZ}"
        raise RefusedError(message, hint=f"broker status {account.name}")
    return generation


def _first(account: Account, applications: list[str], authentication: Authentication) -> Generation:
    for name in applications[:-1]:
        try:
            return deliverable(account, name, authentication)
        except RefusedError:
            continue
    return deliverable(account, applications[-1], authentication)
