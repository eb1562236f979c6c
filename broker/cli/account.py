"""`broker account`: accounts, which are logins at a partner."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import timedelta
from typing import Final

import click

from broker.addresses import sendable
from broker.cli.account_import import import_
from broker.cli.new_account import address_of, checked_login
from broker.cli.noun import Noun
from broker.cli.options import (
    account_argument,
    confirm,
    profile_option,
    reason_option,
    reason_options,
    the_reason,
    yes_option,
)
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
from broker.errors import InputError, RefusedError
from broker.model.account import Account, Contacts
from broker.model.changes.registering import AccountSettings
from broker.model.channel import Channel
from broker.model.duration import part_of
from broker.model.finding import refuse_errors
from broker.model.generation import PromotionMode, RenewalMode
from broker.model.holdings import Which
from broker.model.names import AccountName
from broker.model.role import Role
from broker.model.subject import ATTRIBUTES, Subject
from broker.partners.profile import Profile
from broker.pki.csr import parse
from broker.pki.lint import lint_subject
from broker.rotation.reports import generation_reports

_ALIASES: Final = {"email": "emailaddress", "e": "emailaddress", "s": "st", "sp": "st"}
_contact_option = click.option(
    "--contact", "partner", multiple=True, metavar="MAIL", help="Address at the partner that gets the CSR (repeatable)."
)
_team_option = click.option(
    "--team", multiple=True, metavar="MAIL", help="Address of your team to notify (repeatable)."
)
_INTERNAL: Final = ("outbox", "doomed_keys", "doomed_secrets")


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
    show_findings((*findings, *broker.arriving.unwatched(named)))
    added = broker.registry.add_account(
        Account(
            name=account,
            profile=profile,
            environment=environment,
            login=login,
            base_url=url,
            subject=named,
            created_at=broker.true_clock(),
            contacts=Contacts(tuple(map(sendable, partner)), tuple(map(sendable, team))),
        )
    )
    done = f"account {added.name}: login {added.login} at {added.base_url}"
    show_done(done, account=added.name, login=added.login, base_url=added.base_url)
    steps = [f"broker password set {account}", f"broker app add {account}/APPLICATION", f"broker csr new {account}"]
    if not added.contacts.partner and not rules.submission.to:
        steps.insert(0, f"broker account set {account} --contact MAIL (who signs at the partner)")
    note(f"next: {', '.join(steps)}")


@command.verb("set", example="broker account set acme --renew-before 30d --team ops@acme.example")
@account_argument
@_contact_option
@_team_option
@click.option("--renew-before", metavar="TIME", help="When to renew: 30d, or 20% of the lifetime, before expiry.")
@click.option(
    "--renewal",
    type=click.Choice([mode.value for mode in RenewalMode]),
    help="Who starts the renewal: the scheduler (auto, the default), a person, or nobody.",
)
@click.option(
    "--promotion",
    type=click.Choice([mode.value for mode in PromotionMode]),
    help="Who promotes a candidate: a person (manual, the default) or the scheduler.",
)
@click.option(
    "--submit-via",
    type=click.Choice([channel.value for channel in Channel]),
    help="How signing requests reach the partner, in place of the profile's way.",
)
@click.option("--language", metavar="LANGUAGE", help="Language of mails to the partner: one that the profile has.")
@click.option(
    "--subject",
    multiple=True,
    metavar="NAME=VALUE",
    help="Attribute of the next request's subject; NAME= removes it (repeatable).",
)
@click.option(
    "--clear",
    multiple=True,
    type=click.Choice(["contact", "team", "renew-before", "submit-via", "language"]),
    help="Remove a setting (repeatable). Without renew-before, the profile decides.",
)
def set_(
    start: Start,
    account: AccountName,
    partner: Sequence[str],
    team: Sequence[str],
    renew_before: str | None,
    renewal: str | None,
    promotion: str | None,
    submit_via: str | None,
    language: str | None,
    subject: Sequence[str],
    clear: Sequence[str],
) -> None:
    """Replace contacts, renewal settings and subject of an account. What is not named stays as it is.

    Login, address, profile and environment never change: another login is another account.
    """
    given = {"contact": partner, "team": team, "renew-before": renew_before, "subject": subject}
    given |= {"submit-via": submit_via, "language": language}
    if both := [name for name in clear if given[name]]:
        raise InputError(f"--clear {both[0]} cannot be combined with --{both[0]}", hint="use one of them")
    if not any([clear, renewal, promotion, *given.values()]):
        raise InputError("nothing to set", hint="broker account set --help")
    if language is not None:
        profile = start.broker.profile(start.broker.account(account, Role.OPERATOR).profile, Role.OPERATOR)
        profile.submission.text(language)  # raises
    if renew_before is not None:
        part_of(timedelta(days=1), renew_before)  # raises
    named = _corrected(start, account, subject) if subject else None
    done = start.broker.registry.set_account(
        account,
        AccountSettings(
            partner=() if "contact" in clear else tuple(map(sendable, partner)) or None,
            team=() if "team" in clear else tuple(map(sendable, team)) or None,
            renew_before="" if "renew-before" in clear else renew_before,
            renewal=RenewalMode(renewal) if renewal else None,
            promotion=PromotionMode(promotion) if promotion else None,
            submit_via="" if "submit-via" in clear else submit_via,
            language="" if "language" in clear else language,
        ),
        named,
    )
    show_done(f"account {account} is set", changed=done.changed, account=account)
    request = done.account.open_request
    if named and request and parse(request.csr.encode()).name.subject != named:
        note(f"signing request {request.number} has another subject: broker csr new {account} --supersede replaces it")


@command.verb("suspend", example="broker account suspend acme --reason 'key found in a repository'")
@account_argument
@reason_option
@click.option("--revoke", is_flag=True, help="End its leases too.")
def suspend(start: Start, account: AccountName, reason: str, revoke: bool) -> None:
    """Issue no bundles of an account until it is resumed. Rotation goes on.

    Bundles that were issued stay as they are: a copy works until its certificate expires.
    """
    changed = start.broker.registry.suspend(account, reason)
    ended = start.broker.leases.revoke(Which(account=account), reason) if revoke else ()
    leases = [holding.lease for _, holding in ended]
    show_done(f"account {account} is suspended", changed=changed or bool(leases), account=account, revoked=leases)
    note("copies that were issued work as before, until their certificate expires")


@command.verb("resume", example="broker account resume acme")
@account_argument
def resume(start: Start, account: AccountName) -> None:
    """Issue bundles of a suspended account again."""
    changed = start.broker.registry.resume(account)
    show_done(f"account {account} is resumed", changed=changed, account=account)


@command.verb("remove", example="broker account remove acme --force --reason 'contract ended'")
@account_argument
@reason_options
@yes_option
def remove(start: Start, account: AccountName, force: bool, reason: str, yes: bool) -> None:
    """Remove an account: destroy its keys and secrets. Its evidence stays, and its name is never given again.

    Refused with exit code 7 while it has an open request, a candidate, or a generation that consumers may hold.
    """
    forced = the_reason(force, reason)
    with suppress(RefusedError):  # it was removed: a killed command may have left something to destroy
        start.broker.account(account, Role.ROTATOR)
    confirm(f"remove account {account}, and destroy its keys and secrets?", yes=yes)
    changed = start.broker.rotation.remove(account, forced)
    show_done(f"account {account} is removed", changed=changed, account=account)
    note("snapshots of Vault may still hold its keys and secrets")


@command.verb("list", example="broker account list -o json")
def list_(start: Start) -> None:
    """List all accounts."""
    accounts = [account for account in start.broker.all_accounts() if not account.removed]
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
        empty="there are no accounts yet: broker account add --help",
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
            "submit via": found.submit_via or "as the profile says",
            "language": found.language or "as the profile says",
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
        [(r.number, f"{r.drafted_at:%F}", len(r.submissions), r.state) for r in found.requests],
        empty=f"no signing request yet: broker csr new {found.name}",
    )
    show_table(
        ["generation", "stage", "since", "key", "password", "expires"],
        [
            (g.number, g.label, f"{g.since:%F}", g.key, g.password, when(g.not_after, now))
            for g in generation_reports(found, lambda _: frozenset())
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
    show_findings((*findings, *start.broker.arriving.unwatched(subject)))
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


def _shown(account: Account) -> dict[str, object]:
    """Return the account as data, without what only the broker needs."""
    names = (name for name in account.__struct_fields__ if name not in _INTERNAL)
    return {"canaries" if name == "tries" else name: getattr(account, name) for name in names}
