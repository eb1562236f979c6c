"""`broker account`: accounts, which are logins at a partner."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from datetime import datetime, timedelta
from typing import Final

import click

from broker.cli.options import account_argument, confirm, reason_options, the_reason
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
from broker.model.authentication import LOGIN
from broker.model.duration import part_of
from broker.model.finding import refuse_errors
from broker.model.names import AccountName, mail_address
from broker.model.role import Role
from broker.model.subject import ATTRIBUTES, Subject
from broker.partners.profile import Profile
from broker.partners.request import base_url
from broker.pki.csr import parse
from broker.pki.lint import lint_subject

_LONGEST_LOGIN: Final = 256
_INTERNAL: Final = ("outbox", "doomed_keys", "doomed_passwords")


@click.group("account", epilog="Example: broker account show acme")
def command() -> None:
    """Manage accounts: logins at a partner, with subject, contacts and generations."""


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
    if not (0 < len(login) <= _LONGEST_LOGIN and login.isprintable()):
        raise InputError(f"{login[:80]!r} is not a valid login", hint=f"use 1 to {_LONGEST_LOGIN} printable characters")
    fault = rules.authentication.problem(LOGIN, login)
    if fault:
        raise fault
    url = _base_url(rules, environment, base_url)  # before the subject, so that names are checked first
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
    "--subject",
    multiple=True,
    metavar="NAME=VALUE",
    help="Attribute of the next request's subject; NAME= removes it (repeatable).",
)
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
    subject: Sequence[str],
    clear: Sequence[str],
) -> None:
    """Replace contacts, renewal settings and subject of an account. What is not named stays as it is.

    Login, address, profile and environment never change: another login is another account.
    """
    given = {"contact": partner, "team": team, "renew-before": renew_before, "subject": subject}
    both = [name for name in clear if given[name]]
    if both:
        raise InputError(f"--clear {both[0]} cannot be combined with --{both[0]}", hint="use one of them")
    if not clear and not any(given.values()):
        raise InputError("nothing to set", hint="--contact, --team, --renew-before, --subject or --clear")
    if renew_before is not None:
        part_of(timedelta(days=1), renew_before)  # raises
    named = _corrected(start, account, subject) if subject else None
    done = start.broker.registry.set_account(
        account,
        partner=() if "contact" in clear else tuple(map(mail_address, partner)) or None,
        team=() if "team" in clear else tuple(map(mail_address, team)) or None,
        renew_before="" if "renew-before" in clear else renew_before,
        subject=named,
    )
    note_done(f"account {account} is set", changed=done.changed)
    request = done.account.open_request
    if named and request and parse(request.csr.encode()).subject != named:
        note(f"signing request {request.number} has another subject: broker csr new {account} --supersede replaces it")


@command.command("suspend", epilog="Example: broker account suspend acme --reason 'key found in a repository'")
@account_argument
@click.option("--reason", required=True, metavar="TEXT", help="Reason, for the evidence.")
@click.pass_obj
def suspend(start: Start, account: AccountName, reason: str) -> None:
    """Issue no bundles of an account until it is resumed. Rotation goes on.

    Bundles that were issued stay as they are: a copy works until its certificate expires.
    """
    changed = start.broker.registry.suspend(account, the_reason(True, reason))
    note_done(f"account {account} is suspended", changed=changed, more="; copies that were issued work as before")


@command.command("resume", epilog="Example: broker account resume acme")
@account_argument
@click.pass_obj
def resume(start: Start, account: AccountName) -> None:
    """Issue bundles of a suspended account again."""
    note_done(f"account {account} is resumed", changed=start.broker.registry.resume(account))


@command.command("remove", epilog="Example: broker account remove acme --force --reason 'contract ended'")
@account_argument
@reason_options
@click.option("--yes", is_flag=True, help="Skip the question.")
@click.pass_obj
def remove(start: Start, account: AccountName, force: bool, reason: str, yes: bool) -> None:
    """Remove an account: destroy its keys and secrets. Its evidence stays, and its name is never given again.

    Refused with exit code 7 while it has an open request, a candidate, or a generation that consumers may hold.
    """
    forced = the_reason(force, reason)
    start.broker.account(account, Role.ROTATOR)
    confirm(f"remove account {account}, and destroy its keys and secrets?", yes=yes)
    changed = start.broker.rotation.remove(account, forced)
    note_done(f"account {account} is removed", changed=changed, more="; snapshots of Vault may still hold its secrets")


@command.command("list", epilog="Example: broker account list -o json")
@output_option
@click.pass_obj
def list_(start: Start, output: str) -> None:
    """List all accounts."""
    accounts = [account for account in start.broker.all_accounts() if not account.removed]
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
            "suspended": f"{found.suspended.at:%F %TZ}: {found.suspended.reason}" if found.suspended else "no",
            "removed": f"{found.removed.at:%F %TZ}: {found.removed.reason}" if found.removed else "no",
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


def _corrected(start: Start, name: AccountName, pairs: Sequence[str]) -> Subject:
    """Return the account's subject with the attributes in `pairs`, checked against the partner's rules."""
    found = start.broker.account(name, Role.OPERATOR)
    profile = start.broker.profile(found.profile, Role.OPERATOR)
    wanted = {**dict(found.subject.attributes), **_given(pairs)}
    subject = _ordered({attribute: value for attribute, value in wanted.items() if value}, profile)
    findings = lint_subject(subject, profile.subject, found.login)
    refuse_errors(f"the subject of {name}", findings)
    show_findings(findings)
    return subject


def _subject(pairs: Sequence[str], profile: Profile, login: str) -> Subject:
    rules = profile.subject
    filled = dict(rules.fixed) | ({"CN": login} if rules.common_name_is_login else {}) | _given(pairs)
    return _ordered(filled, profile)


def _ordered(filled: Mapping[str, str], profile: Profile) -> Subject:
    order = (*profile.subject.order, *(name for name in filled if name not in profile.subject.order))
    return Subject(tuple((name, filled[name]) for name in order if name in filled))


def _given(pairs: Sequence[str]) -> dict[str, str]:
    given: dict[str, str] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        known = next((a for a in ATTRIBUTES if a.lower() == _ALIASES.get(name.lower(), name.lower())), None)
        if not equals or known is None:
            raise InputError(f"--subject {pair[:80]!r} is not NAME=VALUE", hint=f"names are {', '.join(ATTRIBUTES)}")
        if known in given:
            raise InputError(f"--subject names {known} twice", hint="give each attribute once")
        given[known] = value
    return given


_ALIASES = {"email": "emailaddress", "e": "emailaddress", "s": "st", "sp": "st"}


def _base_url(profile: Profile, environment: str, given: str) -> str:
    known = profile.environment(environment).base_url
    if known and given and base_url(given) != base_url(known):
        raise InputError(
            f"{profile.name} {environment} is at {known}; secrets are sent to no other address",
            hint="leave out --base-url, or add a custom profile: broker partner add",
        )
    if not known and not given:
        raise InputError(f"{profile.name} {environment} has no address of its own", hint="--base-url https://host/path")
    return base_url(known or given)


def _current(account: Account, now: datetime) -> tuple[object, str]:
    if account.current is None:
        return "-", "-"
    return account.current.number, when(account.certificate(account.current.parts.certificate).not_after, now)


def _shown(account: Account) -> dict[str, object]:
    """Return the account as data, without what only the broker needs."""
    shown = {f.name: getattr(account, f.name) for f in fields(account) if f.name not in _INTERNAL}
    return shown | {"canaries": shown.pop("tries")}
