"""`broker rotation rehearse`: the next renewal, at the partner's stand-in."""

import importlib
from typing import Any

import click

from broker.cli.exits import REFUSED
from broker.cli.options import account_argument
from broker.cli.output import note, show_findings, show_table, step, wrote_json
from broker.cli.start import Start
from broker.model.names import AccountName
from broker.model.role import Role


@account_argument
def rehearse(start: Start, account: AccountName) -> int:
    """Rehearse the next renewal of an account at the partner stand-in, with the clock moved; print a report.

    Uses what is public of the account. Keys and passwords are made up, in a vault of its own that is gone afterwards.
    Nothing real is changed: no mail is sent, and the partner is not asked. Needs the partner-standin package.

    Exits with 6 if something would prevent the renewal.
    """
    rehearsal = importlib.import_module("broker_demo.rehearsal")  # of the stand-in's distribution
    broker = start.broker
    found = broker.account(account, Role.AUDITOR).kept()
    step("rehearsing at a stand-in of the partner")
    done = rehearsal.rehearse(
        found, broker.profile(found.profile, Role.AUDITOR), broker.planning.maintenance, start.now
    )
    shown = {name: getattr(done, name) for name in ("account", "at", "complete", "steps", "findings")}
    if not wrote_json({"success": done.success, **shown}):
        _show(done)
    return 0 if done.success else REFUSED


def _show(done: Any) -> None:
    click.echo(f"Rehearsal of the next renewal of {done.account}, made on {done.at:%F %H:%M %Z}")
    rows = [(f"{s.at:%F %H:%M}", s.who, s.message, s.command) for s in done.steps]
    show_table(["date", "who", "step", "typed"], rows, empty="no step was reached")
    show_findings(done.findings, err=False)
    click.echo("the renewal succeeds" if done.success else "the renewal does not succeed as things are")
    note("dates are simulated; keys and passwords were made up; nothing real was changed")
