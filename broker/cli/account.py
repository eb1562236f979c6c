"""Accounts: logins at a partner."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

import click

from broker.cli.options import account_argument
from broker.cli.output import (
    note,
    output_option,
    show_details,
    show_findings,
    show_json,
    show_table,
    stage_of,
    when,
)
from broker.errors import InputError
from broker.model.names import AccountName, mail_address

if TYPE_CHECKING:
    from broker.cli.start import Start
    from broker.model.account import Account
    from broker.model.subject import Subject
    from broker.partners.profile import Profile

__all__ = ["command"]

_LONGEST_LOGIN = 256


@click.group("account", epilog="Example: broker account show acme")
def command() -> None:
    """Logins at a partner, and what is stored for each."""


@command.command(
    "add",
    epilog="Example: broker account add acme --login MZP1234567 --subject C=FR --subject ST=Ile-de-France "
    "--subject L=Paris --subject O='ACME SA' --subject emailAddress=fleet@acme.example",
)
@account_argument
@click.option("--profile", default="stellantis", show_default=True, help="Whose account it is: broker partner list.")
@click.option("--environment", default="production", show_default=True, help="One of the profile's.")
@click.option("--login", required=True, help="The partner's login, such as MZP….")
@click.option("--subject", "subject", multiple=True, metavar="NAME=VALUE", help="C, ST, L, O, emailAddress …; repeat.")
@click.option("--base-url", default="", help="Where the API is, if the profile leaves that to the account.")
@click.option("--contact", "partner", multiple=True, metavar="MAIL", help="Who gets the CSR at the partner; repeat.")
@click.option("--team", multiple=True, metavar="MAIL", help="Who of yours is told; repeat.")
@click.pass_obj
def add(
    start: Start,
    account: AccountName,
    profile: str,
    environment: str,
    login: str,
    subject: Sequence[str],
    base_url: str,
    partner: Sequence[str],
    team: Sequence[str],
) -> None:
    """Add an account. The subject is checked against the partner's rules; OU and CN are filled in where they are fixed.

    What is stored is the only place that its secrets will ever be sent to.
    """
    from broker.model.account import Account, Contacts
    from broker.model.authentication import LOGIN
    from broker.model.finding import refuse_errors
    from broker.pki.lint import lint_subject
    from broker.vault.policies import Role

    broker = start.broker
    rules = broker.profile(profile, Role.OPERATOR)
    if not (0 < len(login) <= _LONGEST_LOGIN and login.isprintable()):
        raise InputError(
            f"a login has 1 to {_LONGEST_LOGIN} characters, all of them printable: {login[:80]!r} does not"
        )
    fault = rules.authentication.problem(LOGIN, login)
    if fault:
        raise fault
    url = _base_url(rules, environment, base_url)  # before the subject: names are checked first
    named = _subject(subject, rules, login)
    findings = lint_subject(named, rules.subject, login)
    refuse_errors(f"the subject of {account}", findings)
    show_findings(findings)
    added = broker.registry.add_account(
        Account(
            name=account,
            profile=profile,
            environment=environment,
            login=login,
            base_url=url,
            subject=named,
            created_at=broker.true_clock(),
            contacts=Contacts(tuple(map(mail_address, partner)), tuple(map(mail_address, team))),
        )
    )
    note(f"account {added.name}: login {added.login} at {added.base_url}")
    note(
        f"next: broker password set {added.name}, broker app add {added.name}/APPLICATION, broker csr new {added.name}"
    )


@command.command("list", epilog="Example: broker account list -o json")
@output_option
@click.pass_obj
def list_(start: Start, output: str) -> None:
    """List all accounts."""
    accounts = list(start.broker.all_accounts())
    if output == "json":
        show_json([_facts(account) for account in accounts])
        return
    now = start.broker.clock()
    show_table(
        ["account", "partner", "environment", "login", "current", "expires", "applications"],
        [
            (a.name, a.profile, a.environment, a.login, *_current(a, now), ", ".join(p.name for p in a.applications))
            for a in accounts
        ],
        empty="there are no accounts yet: broker account add",
    )


@command.command("show", epilog="Example: broker account show acme")
@account_argument
@output_option
@click.pass_obj
def show(start: Start, account: AccountName, output: str) -> None:
    """Show all that is stored of an account; nothing secret is."""
    found, now = start.broker.account(account), start.broker.clock()
    if output == "json":
        show_json(_facts(found))
        return
    show_details(
        {
            "account": found.name,
            "partner": f"{found.profile}, {found.environment}",
            "login": found.login,
            "base URL": found.base_url,
            "subject": str(found.subject),
            "password": f"number {found.password}" if found.password else "none yet",
            "contacts": ", ".join((*found.contacts.partner, *found.contacts.team)),
            "added": f"{found.created_at:%F %TZ}",
        }
    )
    show_table(
        ["application", "client_id", "rejected"],
        [(a.name, a.client_id, a.rejected_at) for a in found.applications],
        empty=f"no application yet: broker app add {found.name}/APPLICATION",
    )
    show_table(
        ["request", "drafted", "sent", "state"],
        [
            (r.number, f"{r.drafted_at:%F}", len(r.submissions), r.closed.value if r.closed else "open")
            for r in found.requests
        ],
        empty=f"no signing request yet: broker csr new {found.name}",
    )
    show_table(
        ["generation", "stage", "since", "key", "password", "expires"],
        [
            (
                g.number,
                stage_of(found, g),
                f"{g.since:%F}",
                found.parts_of(g).key,
                found.parts_of(g).password,
                when(found.certificate(found.parts_of(g).certificate).not_after, now),
            )
            for g in found.generations
        ],
        empty="no generation yet",
    )


def _subject(pairs: Sequence[str], profile: Profile, login: str) -> Subject:
    from broker.model.subject import ATTRIBUTES, Subject

    given: dict[str, str] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        known = next((a for a in ATTRIBUTES if a.lower() == _ALIASES.get(name.lower(), name.lower())), None)
        if not equals or known is None:
            raise InputError(f"--subject {pair[:80]!r} is not NAME=VALUE", hint=f"names are {', '.join(ATTRIBUTES)}")
        if known in given:
            raise InputError(f"--subject names {known} twice", hint="give each attribute once")
        given[known] = value
    rules = profile.subject
    filled = dict(rules.fixed) | ({"CN": login} if rules.common_name_is_login else {}) | given
    order = (*rules.order, *(name for name in filled if name not in rules.order))
    return Subject(tuple((name, filled[name]) for name in order if name in filled))


_ALIASES = {"email": "emailaddress", "e": "emailaddress", "s": "st", "sp": "st"}


def _base_url(profile: Profile, environment: str, given: str) -> str:
    from broker.partners.request import base_url

    known = profile.environment(environment).base_url
    if known and given and base_url(given) != base_url(known):
        raise InputError(
            f"{profile.name} {environment} is at {known}, and the secrets go nowhere else",
            hint="leave out --base-url, or add a profile of your own: broker partner add",
        )
    if not known and not given:
        raise InputError(
            f"{profile.name} {environment} leaves the address to the account", hint="--base-url https://host/path"
        )
    return base_url(known or given)


def _current(account: Account, now: datetime) -> tuple[object, str]:
    if account.current is None:
        return "-", "-"
    return account.current.number, when(account.certificate(account.current.parts.certificate).not_after, now)


def _facts(account: Account) -> dict[str, Any]:
    """Return the account as data. The outbox is nobody's business but ours, and PEM only bloats."""
    from broker.vault.documents import encoded

    facts: dict[str, Any] = encoded(account)["value"]
    for name in ("outbox", "doomed_keys", "doomed_secrets"):
        del facts[name]
    facts["canaries"] = facts.pop("tries")
    return facts
