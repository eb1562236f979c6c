"""`broker account`: accounts, which are logins at a partner."""

from collections.abc import Sequence
from dataclasses import fields
from datetime import timedelta
from typing import Final

import click

from broker.cli.account_import import import_
from broker.cli.new_account import address_of, checked_login
from broker.cli.noun import Noun
from broker.cli.options import account_argument, profile_option
from broker.cli.output import (
    note,
    show_details,
    show_done,
    show_findings,
    show_table,
    when,
    wrote_json,
)
from broker.cli.start import Start
from broker.errors import InputError
from broker.model.account import Account, Contacts
from broker.model.duration import part_of
from broker.model.finding import refuse_errors
from broker.model.names import AccountName, mail_address
from broker.model.role import Role
from broker.model.subject import ATTRIBUTES, Subject
from broker.partners.profile import Profile
from broker.pki.lint import lint_subject
from broker.rotation.reports import rotation_status

_ALIASES: Final = {"email": "emailaddress", "e": "emailaddress", "s": "st", "sp": "st"}
_contact_option = click.option(
    "--contact", "partner", multiple=True, metavar="MAIL", help="Address at the partner that gets the CSR (repeatable)."
)
_team_option = click.option(
    "--team", multiple=True, metavar="MAIL", help="Address of your team to notify (repeatable)."
)
_INTERNAL: Final = ("outbox", "doomed_keys", "doomed_passwords")


@click.group("account", cls=Noun, epilog="Example: broker account show acme")
def command() -> None:
    """Manage accounts: logins at a partner, with subject, contacts and generations."""


command.verb(
    "import",
    example="broker account import acme old-set.zip --client-id-for reporting=ID --dry-run",
)(import_)


@command.verb(
    "add",
    example="broker account add acme --login MZP1234567 --subject C=FR --subject ST=Ile-de-France "
    "--subject L=Paris --subject O='ACME SA' --subject emailAddress=fleet@acme.example",
)
@account_argument
@profile_option
@click.option("--environment", default="production", show_default=True, help="Environment of the profile.")
@click.option("--login", required=True, help="Login at the partner, such as MZP….")
@click.option(
    "--subject", multiple=True, metavar="NAME=VALUE", help="Attribute of the CSR: C, ST, L, O … (repeatable)."
)
@click.option("--base-url", default="", help="Address of the API, if the profile has none.")
@_contact_option
@_team_option
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
    """Add an account. Checks the subject against the partner's rules, and fills in OU and CN if they are fixed.

    The account's secrets are only ever sent to the address stored here.
    """
    broker, rules = start.broker, start.broker.profile(profile, Role.OPERATOR)
    checked_login(rules, login)
    url = address_of(rules, environment, base_url)  # before the subject, so that names are checked first
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
    done = f"account {added.name}: login {added.login} at {added.base_url}"
    show_done(done, account=added.name, login=added.login, base_url=added.base_url)
    note(f"next: broker password set {account}, broker app add {account}/APPLICATION, broker csr new {account}")


@command.verb("set", example="broker account set acme --renew-before 30d --team ops@acme.example")
@account_argument
@_contact_option
@_team_option
@click.option("--renew-before", metavar="TIME", help="When to renew: 30d, or 20% of the lifetime, before expiry.")
@click.option(
    "--clear",
    multiple=True,
    type=click.Choice(["contact", "team", "renew-before"]),
    help="Remove a setting (repeatable). Without renew-before, the profile decides.",
)
def set_(
    start: Start,
    account: AccountName,
    partner: Sequence[str],
    team: Sequence[str],
    renew_before: str | None,
    clear: Sequence[str],
) -> None:
    """Replace contacts and renewal settings of an account. Settings that are not named stay as they are."""
    given = {"contact": partner, "team": team, "renew-before": renew_before}
    if both := [name for name in clear if given[name]]:
        raise InputError(f"--clear {both[0]} cannot be combined with --{both[0]}", hint="use one of them")
    if not clear and not any(given.values()):
        raise InputError("nothing to set", hint="--contact, --team, --renew-before or --clear")
    if renew_before is not None:
        part_of(timedelta(days=1), renew_before)  # raises
    changed = start.broker.registry.set_account(
        account,
        partner=() if "contact" in clear else tuple(map(mail_address, partner)) or None,
        team=() if "team" in clear else tuple(map(mail_address, team)) or None,
        renew_before="" if "renew-before" in clear else renew_before,
    )
    show_done(f"account {account} is set", changed=changed, account=account)


@command.verb("list", example="broker account list -o json")
def list_(start: Start) -> None:
    """List all accounts."""
    accounts = list(start.broker.all_accounts())
    if wrote_json([_shown(account) for account in accounts]):
        return
    now = start.broker.clock()
    show_table(
        ["account", "partner", "environment", "login", "current", "expires", "applications"],
        [
            (
                *(a.name, a.profile, a.environment, a.login, a.current.number if a.current else "-"),
                when(a.certificate(a.current.parts.certificate).not_after, now) if a.current else "-",
                ", ".join(p.name for p in a.applications),
            )
            for a in accounts
        ],
        empty="there are no accounts yet: broker account add",
    )


@command.verb("show", example="broker account show acme")
@account_argument
def show(start: Start, account: AccountName) -> None:
    """Show all details of an account. None of them is secret."""
    found, now = start.broker.account(account), start.broker.clock()
    if wrote_json(_shown(found)):
        return
    show_details(
        {
            "account": found.name,
            "partner": f"{found.profile}, {found.environment}",
            "login": found.login,
            "base URL": found.base_url,
            "subject": str(found.subject),
            "password": f"number {found.password}" if found.password else "none yet",
            "renew before": found.renew_before or "as the profile says",
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
        [(r.number, f"{r.drafted_at:%F}", len(r.submissions), r.state) for r in found.requests],
        empty=f"no signing request yet: broker csr new {found.name}",
    )
    show_table(
        ["generation", "stage", "since", "key", "password", "expires"],
        [
            (g.number, g.label, f"{g.since:%F}", g.key, g.password, when(g.not_after, now))
            for g in rotation_status(found, lambda _: frozenset(), now).generations
        ],
        empty="no generation yet",
    )


def _subject(pairs: Sequence[str], profile: Profile, login: str) -> Subject:
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


def _shown(account: Account) -> dict[str, object]:
    """Return the account as data, without what only the broker needs."""
    names = (f.name for f in fields(account) if f.name not in _INTERNAL)
    return {"canaries" if name == "tries" else name: getattr(account, name) for name in names}
