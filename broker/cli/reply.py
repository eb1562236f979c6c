"""`broker reply`: replies that arrived by mail or in the drop folder, and wait for a person."""

import re
from collections.abc import Sequence
from typing import Final

import click
from msgspec.structs import asdict

from broker.cli.completion import account_names
from broker.cli.noun import Noun
from broker.cli.options import reason_option
from broker.cli.output import note, show_details, show_done, show_findings, show_table, when, wrote_json
from broker.cli.start import Start
from broker.errors import InputError
from broker.model.account import Account
from broker.model.finding import has_errors
from broker.model.names import AccountName, account_name
from broker.model.proposal import MOST_WAITING, Outcome, Proposal, next_step, reply_id
from broker.model.role import Role

_ID: Final = re.compile(r"[0-9a-f]{16}")


def split_reply(text: str) -> tuple[AccountName, str]:
    """Return account and id of `ACCOUNT/ID`; raise `InputError`."""
    account, _, id_ = text.partition("/")
    if not _ID.fullmatch(id_):
        raise InputError(f"{text[:80]!r} is not the id of a reply", hint="broker reply list shows the ids: ACCOUNT/ID")
    return account_name(account), id_


def _reply(ctx: click.Context, _: click.Parameter, value: str) -> tuple[AccountName, str] | None:
    return None if ctx.resilient_parsing else split_reply(value)


def _accounts(_: click.Context, __: click.Parameter, values: Sequence[str]) -> tuple[AccountName, ...]:
    return tuple(map(account_name, values))


reply_argument = click.argument("reply", metavar="ACCOUNT/ID", callback=_reply)


@click.group("reply", cls=Noun, epilog="Example: broker reply list")
def command() -> None:
    """Look at the replies that arrived and wait for a person. To import one: broker cert import ACCOUNT --reply ID."""


@command.verb("list", example="broker reply list")
@click.argument("accounts", nargs=-1, metavar="[ACCOUNT]...", callback=_accounts, shell_complete=account_names)
def list_(start: Start, accounts: Sequence[AccountName]) -> None:
    """List what arrived for accounts, or for all, and waits for a person.

    Senders are not verified: a mail says itself who sent it.
    """
    rows = start.broker.arriving.waiting(accounts)
    if wrote_json([_shown(account, one) for account, one in rows]):
        return
    show_table(
        ["reply", "kind", "request", "received", "from (unverified)", "next"],
        [
            (
                reply_id(account.name, one),
                one.kind.value,
                one.request or None,
                when(one.received, start.now),
                one.sender or one.source,
                next_step(account, one)[1],
            )
            for account, one in rows
        ],
        empty="no reply waits",
    )
    for name in {account.name for account, _ in rows}:
        if sum(account.name == name for account, _ in rows) >= MOST_WAITING:
            note(f"{name} keeps no more than {MOST_WAITING} replies: others may be in the mailbox or the drop folder")


@command.verb("show", example="broker reply show acme/1f6a90c2b7d3e845")
@reply_argument
def show(start: Start, reply: tuple[AccountName, str]) -> None:
    """Show what a reply holds, what an import would find now, and the next step."""
    name, id_ = reply
    one = start.broker.arriving.find(name, id_, Role.AUDITOR)
    account = start.broker.account(name)
    what, command = next_step(account, one)
    findings = start.broker.arriving.findings(account, one, f"broker cert import {name} --reply {name}/{id_}")
    if wrote_json(_shown(account, one) | {"findings": findings, "material": one.material}):
        return
    show_details(
        {
            "reply": reply_id(name, one),
            "kind": one.kind.value,
            "request": one.request or None,
            "from": f"{one.sender or '-'} (not verified)",
            "subject": one.subject,
            "received": when(one.received, start.now),
            "source": one.source,
            "holds": "\n".join(one.holds),
            "download by": f"{one.download_by:%F %TZ}" if one.download_by else None,
            "state": f"{one.outcome.value} {one.reason}".strip()
            if one.outcome
            else "over"
            if one.over(account)
            else what,
        }
    )
    show_findings(findings)
    if not one.over(account) and not has_errors(findings):  # whose hints say what to do
        note(f"next: {command}")


@command.verb("dismiss", example='broker reply dismiss acme/1f6a90c2b7d3e845 --reason "a forgery"')
@reply_argument
@reason_option
def dismiss(start: Start, reply: tuple[AccountName, str], reason: str) -> None:
    """Close a reply that nobody needs. Its mail stays in the mailbox; the same mail does not come again."""
    name, id_ = reply
    start.broker.account(name, Role.ROTATOR)  # or raises
    changed = start.broker.arriving.conclude(name, id_, Outcome.DISMISSED, reason)
    show_done(f"reply {name}/{id_} is dismissed", changed=changed, reply=f"{name}/{id_}")


def _shown(account: Account, one: Proposal) -> dict[str, object]:
    what, command = next_step(account, one)
    facts = asdict(one) | {"id": reply_id(account.name, one), "account": account.name, "message": what, "hint": command}
    return {name: value for name, value in facts.items() if name not in ("material", "findings")}
