"""`broker rotation plan` and `snooze`: what is due when and why, and a person's decision to wait."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING

import click

from broker.cli.options import account_argument, accounts_argument, moment, the_reason
from broker.cli.output import at_time, note, show_details, show_done, show_table, when, wrote_json
from broker.cli.start import Start
from broker.errors import InputError
from broker.model.life_cycle import Phase, Who
from broker.model.names import AccountName
from broker.model.plan import Step

if TYPE_CHECKING:
    from broker.compose.planning import PlanReport


@accounts_argument
def plan(start: Start, accounts: tuple[AccountName, ...], everything: bool) -> None:
    """Show what is due when, and who does it: all accounts, or for one every term of the date and every step.

    The scheduler promotes and retires in the maintenance windows of the configuration and outside of its freezes. A
    person may promote at any time. Requests are made and sent when they are due: no consumer notices.
    """
    found = start.broker.planning.reports(() if everything else accounts, lambda: start.now)
    order = list(Phase)
    found.sort(key=lambda one: (order.index(one.phase), one.due or start.now))
    if wrote_json(found):
        return
    if len(accounts) == 1:
        _show_one(found[0], start.now)
    else:
        _show_all(found, start.now)
    for one in found:
        for warning in one.warnings:
            note(f"warning: {one.account}: {warning}")


@account_argument
@click.option("--until", metavar="TIME", help="When to start the renewal instead, before the certificate ends.")
@click.option("--reason", default="", metavar="TEXT", help="Reason, for the evidence; required with --until.")
@click.option("--end", is_flag=True, help="Start the renewal when it is due again.")
def snooze(start: Start, account: AccountName, until: str | None, reason: str, end: bool) -> None:
    """Put the renewal of an account off until a time. It ends by itself, and with the certificate at the latest."""
    if end is bool(until):
        raise InputError("give either --until or --end", hint="--until 2026-12-31 --reason TEXT, or --end")
    reason = the_reason(bool(until), reason, "--until")
    if until is None:
        changed = start.broker.rotation.end_snooze(account)
        show_done(f"{account} is not snoozed", changed=changed, account=account)
        return
    at = moment(until)
    changed = start.broker.rotation.snooze(account, at, reason)
    show_done(f"the renewal of {account} is put off until {at:%F %TZ}", changed=changed, account=account, until=at)


def _show_all(found: Sequence[PlanReport], now: datetime) -> None:
    show_table(
        ["account", "phase", "next step", "when", "who"],
        [(one.account, one.phase.value, *_next_step(one, now), _who(one)) for one in found],
        empty="there are no accounts yet: broker account add --help",
    )


def _next_step(one: PlanReport, now: datetime) -> tuple[str, str] | tuple[None, None]:
    """Return the earliest step, and when; steps without a time come last."""
    first = min(one.steps, key=lambda step: (step.at is None, step.at), default=None)
    return (first.action.value, at_time(first.at, now)) if first else (None, None)


def _show_one(one: PlanReport, now: datetime) -> None:
    show_details(
        {
            "account": one.account,
            "phase": f"{one.phase.value}: {one.phase.row.meaning}",
            "who": _who(one),
            "next": f"{one.message}: {one.hint}" if one.hint else one.message,
            "expires": when(one.not_after, now),
            "renewal due": f"{when(one.due, now)}: {one.due_because}" if one.due else None,
            "renewal": one.renewal.value,
            "promotion": one.promotion.value,
        }
    )
    if one.terms:
        click.echo()
        show_table(
            ["term", "renewal starts", "why"],
            [(t.name, f"{t.at:%F}{' *' * t.decides}" if t.at else None, t.because) for t in one.terms],
        )
    show_steps(one.steps, now)


def show_steps(steps: Sequence[Step], now: datetime) -> None:
    """Show what comes next, if anything does."""
    if steps:
        click.echo()
        show_table(["step", "when", "why"], [(s.action.value, at_time(s.at, now), s.because) for s in steps])


def _who(one: PlanReport) -> str:
    return "scheduler" if one.automatic and one.who is not Who.PARTNER else one.who.value
