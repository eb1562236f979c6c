"""Accounts, stages, expiry, and who must act."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from functools import cache, partial
from typing import TYPE_CHECKING

import click

from broker.cli.obstacles import say_obstacles, shown_clock, shown_obstacles
from broker.cli.options import accounts_argument
from broker.cli.output import output_option, show_json, show_table, stage_of, when
from broker.errors import InputError
from broker.model.names import AccountName

if TYPE_CHECKING:
    from broker.cli.start import Start
    from broker.model.account import Account
    from broker.model.due import DueDate
    from broker.model.todo import Todo
    from broker.partners.profile import Profile

__all__ = ["command"]


@dataclass(frozen=True, slots=True)
class _Row:
    account: Account
    due: DueDate | None
    todo: Todo

    @property
    def stages(self) -> str:
        living = [g for g in self.account.generations if g.stage.living]
        return ", ".join(f"{g.number} {stage_of(self.account, g)}" for g in living) or "-"


@click.command("status", epilog="Example: broker status -o json")
@accounts_argument
@output_option
@click.pass_obj
def command(start: Start, accounts: tuple[AccountName, ...], everything: bool, output: str) -> None:
    """Show each account: its generations, when the current certificate expires, when renewal is due, who must act."""
    broker = start.broker
    named = map(broker.account, dict.fromkeys(accounts))
    every = everything or not accounts
    found = list(broker.all_accounts() if every else named)
    now, profiles = shown_clock(broker), cache(partial(_profile, start))
    rows = [_row(start, account, now, profiles) for account in found]
    if output == "json":
        show_json([_facts(row, now) for row in rows])
        return
    show_table(
        ["account", "generations", "expires", "renewal due", "who", "next"],
        [
            (
                row.account.name,
                row.stages,
                when(_not_after(row), now),
                when(row.due.at, now) if row.due else "-",
                row.todo.who.value,
                row.todo.message + (f": {row.todo.hint}" if row.todo.hint else ""),
            )
            for row in rows
        ],
        empty="there are no accounts yet: broker account add",
    )
    for row in rows:
        say_obstacles(row.account, now)


def _profile(start: Start, name: str) -> Profile:
    from broker.vault.policies import Role

    return start.broker.profile(name, Role.AUDITOR)


def _row(start: Start, account: Account, now: datetime, profiles: Callable[[str], Profile]) -> _Row:
    from broker.compose.settling import forked
    from broker.model.due import due_date, lead_time
    from broker.model.todo import forked_todo, next_todo, unread_profile_todo

    try:
        renewal = profiles(account.profile).renewal
    except InputError as error:  # one account's trouble hides no other
        unread = unread_profile_todo(error.message, error.hint)
        return _Row(account, None, forked_todo(account) if forked(start.broker.roles, account) else unread)
    lead = lead_time(account, renewal.lead_time)
    due = None
    if account.current:
        certificate = account.certificate(account.current.parts.certificate)
        due = due_date(
            certificate.not_before, certificate.not_after, lead=lead, safety=renewal.safety, share=renewal.share
        )
    if forked(start.broker.roles, account):
        return _Row(account, due, forked_todo(account))
    return _Row(account, due, next_todo(account, due, lead=lead, now=now))


def _not_after(row: _Row) -> datetime | None:
    current = row.account.current
    return row.account.certificate(current.parts.certificate).not_after if current else None


def _facts(row: _Row, now: datetime) -> dict[str, object]:
    account = row.account
    return {
        "account": account.name,
        "environment": account.environment,
        "current": account.current.number if account.current else None,
        "not_after": _not_after(row),
        "due": row.due.at if row.due else None,
        "due_because": row.due.decided_by.because if row.due else None,
        "generations": [
            {"number": g.number, "stage": g.stage, "rolled_back": account.rolled_back(g)} for g in account.generations
        ],
        "open_request": account.open_request.number if account.open_request else None,
        "who": row.todo.who,
        "message": row.todo.message,
        "hint": row.todo.hint,
        "obstacles": shown_obstacles(account, now),
    }
