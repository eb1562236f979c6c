"""`broker account`: accounts, which are logins at a partner."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from datetime import datetime, timedelta
from typing import Final

import click

from broker.cli.account_import import import_
from broker.cli.new_account import address_of, checked_login
from broker.cli.options import account_argument
from broker.cli.output import (
    note,
    note_done,
    output_option,
    show_details,
    show_findings,
    show_json,
    show_table,
    stage_of,
    when,
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

_INTERNAL: Final = ("outbox", "doomed_keys", "doomed_passwords")


@click.group("account", epilog="Example: broker account show acme")
def command() -> None:
    """Manage accounts: logins at a partner, with subject, contacts and generations."""


command.add_command(import_)


@command.command(
    "add",
    epilog="Example: broker account add acme --login MZP1234567 --subject C=FR --subject ST=Ile-de-France "
    "--subject L=Paris --subject O='ACME SA' --subject emailAddress=fleet@acme.example",
)
@account_argument
@click.option(
    "--profile", default="stellantis", show_default=True, help="Profile of the partner: see broker partner list."
)
@click.option("--environment", default="production", show_default=True, help="Environment of the profile.")
@click.option("--login", required=True, help="Login at the partner, such as MZP….")
@click.option(
    "--subject",
    "subject",
    multiple=True,
    metavar="NAME=VALUE",
    help="Subject of the CSR: C, ST, L, O, emailAddress … (repeatable).",
)
@click.option("--base-url", default="", help="Address of the API, if the profile has none.")
@click.option(
    "--contact", "partner", multiple=True, metavar="MAIL", help="Address at the partner that gets the CSR (repeatable)."
)
@click.option("--team", multiple=True, metavar="MAIL", help="Address of your team to notify (repeatable).")
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
    """Add an account. Checks the subject against the partner's rules, and fills in OU and CN if they are fixed.

    The account's secrets are only ever sent to the address stored here.
    """
    broker = start.broker
    rules = broker.profile(profile, Role.OPERATOR)
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
    note(f"account {added.name}: login {added.login} at {added.base_url}")
    note(
        f"next: broker password set {added.name}, broker app add {added.name}/APPLICATION, broker csr new {added.name}"
    )


@command.command("set", epilog="Example: broker account set acme --renew-before 30d --team ops@acme.example")
@account_argument
@click.option("--contact", "partner", multiple=True, metavar="MAIL", help="New contact at the partner (repeatable).")
@click.option("--team", multiple=True, metavar="MAIL", help="New address of your team (repeatable).")
@click.option("--renew-before", metavar="TIME", help="When to renew: 30d, or 20% of the lifetime, before expiry.")
@click.option(
    "--clear",
    multiple=True,
    type=click.Choice(["contact", "team", "renew-before"]),
    help="Remove a setting (repeatable). Without renew-before, the profile decides.",
)
@click.pass_obj
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
    both = [name for name in clear if given[name]]
    if both:
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
    note_done(f"account {account} is set", changed=changed)


@command.command("list", epilog="Example: broker account list -o json")
@output_option
@click.pass_obj
def list_(start: Start, output: str) -> None:
    """List all accounts."""
    accounts = list(start.broker.all_accounts())
    if output == "json":
        show_json([_shown(account) for account in accounts])
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
    """Show all details of an account. None of them is secret."""
    found, now = start.broker.account(account), start.broker.clock()
    if output == "json":
        show_json(_shown(found))
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


def _current(account: Account, now: datetime) -> tuple[object, str]:
    if account.current is None:
        return "-", "-"
    return account.current.number, when(account.certificate(account.current.parts.certificate).not_after, now)


def _shown(account: Account) -> dict[str, object]:
    """Return the account as data, without what only the broker needs."""
    shown = {f.name: getattr(account, f.name) for f in fields(account) if f.name not in _INTERNAL}
    return shown | {"canaries": shown.pop("tries")}
